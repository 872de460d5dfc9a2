"""The network with its optimiser and average on the devices: one step forward, all of its state out and in."""

import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from restormer_cli.engine.backend import OwnBackend
from restormer_cli.engine.strips import StripNetwork
from restormer_cli.engine.whole_map import tensor_float_32
from restormer_cli.errors import Failed, UserError
from restormer_cli.hardware import held, is_out_of_memory, multiplies_bf16
from restormer_cli.model.depthwise import has_triton
from restormer_cli.model.restormer import Block, Level, Restormer
from restormer_cli.model.weights import load_weights
from restormer_cli.recipe import Recipe
from restormer_cli.training.losses import LOSSES
from restormer_cli.training.muon import Muon, forget_matrices
from restormer_cli.training.step_graph import WARM_UP, Pairs, StepGraph

COMPILED_FROM = 4000
"""Iterations of a stage that pay for a minute of compiling, if a step of some 60 ms gets a quarter faster."""
FUSED = ("cpu", "cuda", "mps", "xpu")
"""Devices with an AdamW in one kernel."""


def choose_precision(recipe: Recipe, device: torch.device) -> Literal["fp32", "bf16"]:
    """Precision that a recipe's `run.precision` stands for on a device."""
    if recipe.run.precision == "auto":
        return "bf16" if multiplies_bf16(device) else "fp32"
    return recipe.run.precision


def compiles(recipe: Recipe, device: torch.device) -> bool:
    """Whether blocks are compiled, as a recipe's `run.compile` has it on a device."""
    if recipe.run.compile != "auto":
        return recipe.run.compile
    if device.type != "cuda" or not has_triton() or not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        return False
    return min(stage.iterations for stage in recipe.stage) >= COMPILED_FROM


class Outcome:
    """What a step came to; to read it waits for the device."""

    def __init__(self, told: Tensor, stop: bool) -> None:
        self._stop = stop
        # To pinned memory, and before the next step overwrites it.
        self._told = told.to("cpu", non_blocking=True, copy=True)
        self._ready: torch.cuda.Event | None = None
        if told.is_cuda:
            self._ready = torch.cuda.Event()
            self._ready.record(torch.cuda.current_stream(told.device))

    def read(self) -> tuple[float, bool, bool]:
        """The global batch's mean loss, whether any process says `stop`, and whether the step was taken."""
        if self._ready is not None:
            self._ready.synchronize()
        loss, stops, taken = self._told.tolist()
        return loss, self._stop or stops > 0, taken > 0


def runs_ahead(accelerator: Accelerator) -> bool:
    """Whether steps are queued without a look at what became of the last one: on CUDA, unless weights are sharded."""
    return accelerator.device.type == "cuda" and accelerator.distributed_type != DistributedType.FSDP


def _exact(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


class TrainState:
    """Model, optimiser and average of one training; `result`, validated and saved, is the average if there is one."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator) -> None:
        self.recipe = recipe
        self.accelerator = accelerator
        self.loss_of = LOSSES[recipe.loss.kind]
        self.precision = choose_precision(recipe, accelerator.device)
        self.sharded = accelerator.distributed_type == DistributedType.FSDP
        self.ahead = runs_ahead(accelerator)
        """Whether a step is only begun by `step`, so that the next one can be prepared meanwhile."""
        alone = accelerator.num_processes == 1
        self.graph = StepGraph(accelerator.device) if self.ahead and alone else None
        self.rate = torch.zeros((), device=accelerator.device) if self.ahead else None
        self._notes: list[str] = []
        if self.sharded and recipe.optimizer.kind == "muon":
            raise UserError("optimizer.kind = muon: FSDP cuts its matrices: set adamw, or use plain processes")
        if self.sharded and recipe.ema.decay:
            raise UserError("ema.decay: an average is not kept under FSDP: set ema.decay=0, or use plain processes")
        self.network = initial_network(recipe)
        self.average = _average(self.network, recipe.ema.decay)
        if self.average is not None:
            self.average.to(accelerator.device)
        self.compiled = compiles(recipe, accelerator.device)
        _configure(self.network, recipe, self.compiled)
        optimizer = _optimizer(self.network, recipe, accelerator.device, self.precision, self.ahead)
        # Of depth-wise convolutions' gradients, whose strides differ where a side is 1; they are a few kilobytes.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        # Of the optimiser, whose first steps of a shape run by single calls.
        warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
        self.model, self.optimizer = accelerator.prepare(self.network, optimizer)
        self.fresh = self.optimizer.state_dict()

    @property
    def result(self) -> nn.Module:
        """Network to validate; sharded networks only work as a whole."""
        if self.average is not None:
            return self.average.module
        return self.model if self.sharded else self.network

    def autocast(self) -> torch.autocast:
        """The run's precision."""
        half = self.precision == "bf16"
        # A graph would keep a cache's weights, cast in the step that was captured.
        cached = self.graph is None
        return torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16, enabled=half, cache_enabled=cached)

    @contextmanager
    def evaluating(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """What is validated, (1, c, h, w) -> (1, c', h, w), in the run's precision and without gradients.

        It runs as `restore` would run it: faster, and in less memory beside what training holds. A sharded network
        works only as a whole, and no part of it is compiled for pictures of many sizes.
        """
        network = self.result
        dtype = next(network.parameters()).dtype
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(tensor_float_32(False))
            if isinstance(network, Restormer) and dtype == torch.float32:
                run = self._restoring(network)
            elif isinstance(network, Restormer):
                run = StripNetwork(network, dtype).run
            else:
                run = network
                stack.callback(network.train, network.training)
                network.eval()
                stack.enter_context(self.autocast())
                if self.compiled:
                    stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield lambda picture: run(picture.to(dtype))

    def _restoring(self, network: Restormer) -> Callable[[Tensor], Tensor]:
        """The engine on this network: whole maps or strips, as memory allows; what overflows in bf16 is said."""
        backend = OwnBackend(network, self.accelerator.device, self.precision)

        def restored(picture: Tensor) -> Tensor:
            height, width = picture.shape[-2:]
            plan = backend.plan(height, width, tile=None, budget=None, base=held(backend.device))
            return backend.run(picture, plan, self._notes.append)

        return restored

    def step(self, micro_batches: Pairs, batch: int, rate: float, stop: bool) -> Outcome:
        """One step on this process's micro-batches of (degraded, clean) out of a global batch.

        Where the loss or the gradient is not finite it changes nothing. On a GPU it returns before it is done.
        """
        with tensor_float_32(False):  # fp32 is exact: cuDNN alone would round to TF32, as products do not
            if self.rate is not None:
                self.rate.fill_(rate)
            for group in self.optimizer.param_groups:
                group["lr"] = rate if self.rate is None else self.rate
            if self.graph is None:
                told = self._advance(micro_batches, batch, stop)
            else:
                told = self.graph.run(micro_batches, lambda pairs: self._advance(pairs, batch, False), key=batch)
            return Outcome(told, stop)

    def _advance(self, micro_batches: Pairs, batch: int, stop: bool) -> Tensor:
        """The step; where it runs ahead, nothing in it waits for the device. Returns what `Outcome` reads."""
        try:
            told, norm = self._descend(micro_batches, batch, stop)
            if self.ahead:
                taken = told[0].isfinite() & norm.isfinite()
                self._update_by_flag(taken)
            else:
                taken = torch.tensor(math.isfinite(float(told[0])) and math.isfinite(float(norm)), device=told.device)
                if taken:
                    self.optimizer.step()
                    if self.average is not None:
                        self.average.update_parameters(self.network)
        finally:
            self.optimizer.zero_grad(set_to_none=True)
        return torch.cat([told, taken.to(told.dtype)[None]])

    def _descend(self, micro_batches: Pairs, batch: int, stop: bool) -> tuple[Tensor, Tensor]:
        """Gradients, clipped: (2,), the global batch's mean loss and how many processes say `stop`; and their norm."""
        accelerator = self.accelerator
        loss = torch.zeros((), dtype=_exact(accelerator.device), device=accelerator.device)
        for number, (degraded, clean) in enumerate(micro_batches, start=1):
            # Only the last micro-batch's backward pass exchanges gradients.
            with nullcontext() if number == len(micro_batches) else accelerator.no_sync(self.model):
                part = self._loss(degraded, clean) * (len(clean) / batch)
                loss = loss + part.detach()
                # Processes' gradients are averaged, but each process has its share of one sum.
                accelerator.backward(part * accelerator.num_processes)
        norm = accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip or float("inf"))
        assert norm is not None  # only XLA has none
        told = torch.stack([loss, torch.full_like(loss, float(stop))])
        if accelerator.num_processes > 1:
            told = accelerator.reduce(told, "sum")
            assert isinstance(told, Tensor)
        return told, norm

    def _update_by_flag(self, taken: Tensor) -> None:
        """The optimiser's step and the average's, where `taken`, which only the device knows."""
        self.optimizer.optimizer.found_inf = (~taken).float()  # as gradient scalers tell it
        self.optimizer.step()
        if self.average is None:
            return
        counted = self.average.n_averaged
        share = torch.where(counted == 0, 1.0, 1 - self.recipe.ema.decay) * taken
        weights: list[Tensor] = list(self.network.parameters())
        averages: list[Tensor] = list(self.average.module.parameters())
        with torch.no_grad():  # few kernels, as PyTorch's own averages are made of
            steps = torch._foreach_sub(weights, averages)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_mul_(steps, share)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_add_(averages, steps)  # pyright: ignore[reportPrivateImportUsage]
        counted += taken

    def _loss(self, degraded: Tensor, clean: Tensor) -> Tensor:
        device, dtype = self.accelerator.device, next(self.model.parameters()).dtype
        with self.autocast():
            output = self.model(degraded.to(device, dtype, non_blocking=self.ahead))
        # Losses want more digits than bf16 has.
        return self.loss_of(output.to(dtype), clean.to(device, dtype, non_blocking=self.ahead))

    @property
    def unsettled(self) -> int:
        """Steps of a shape that take longer than those after them."""
        return 2 if self.graph is None else WARM_UP + 1

    def notes(self) -> list[str]:
        """What is to be said about the steps and validations up to now, once."""
        told: list[str] = []
        for notes in (self._notes, [] if self.graph is None else self.graph.notes):
            told += notes
            notes.clear()
        return told

    def state(self) -> dict[str, Any]:
        """Weights, optimiser and average, as tensors on the CPU or on the device; every process takes part."""
        if self.sharded:
            from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

            options = StateDictOptions(full_state_dict=True, cpu_offload=True)
            model, optimizer = get_state_dict(self.model, self.optimizer.optimizer, options=options)
            return {"model": model, "optimizer": optimizer}
        optimizer = self.optimizer.state_dict()
        for group in optimizer["param_groups"]:
            group["lr"] = float(group["lr"])
        state = {"model": self.network.state_dict(), "optimizer": optimizer}
        return state if self.average is None else state | {"average": self.average.state_dict()}

    def load(self, state: dict[str, Any] | None) -> None:
        """Take up a checkpoint's state; None starts afresh. Raises UserError where [model] is another."""
        if self.graph is not None:
            self.graph.forget()  # it has the optimiser's state, which is about to be other tensors
        if state is None:
            state = {"model": initial_network(self.recipe).state_dict(), "optimizer": self.fresh}
        try:
            self._load(state)
        except (RuntimeError, ValueError, KeyError, MemoryError) as error:
            if is_out_of_memory(error):
                raise Failed(f"not enough memory to take up the checkpoint on {self.accelerator.device}") from None
            raise UserError("the checkpoint is of another network than [model] describes: give another --out") from None

    def _load(self, state: dict[str, Any]) -> None:
        if self.sharded:
            from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

            options = StateDictOptions(full_state_dict=True)
            optimizer = state["optimizer"] if state["optimizer"] is not self.fresh else {}
            set_state_dict(
                self.model,
                self.optimizer.optimizer,
                model_state_dict=state["model"],
                optim_state_dict=optimizer,
                options=options,
            )
        else:
            self.network.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.recipe.optimizer.kind == "adamw":
                forget_matrices(self.optimizer.optimizer)
        # A checkpoint brings its own along, but the recipe is what counts: it may have been changed on purpose.
        for group in self.optimizer.param_groups:
            group["betas"], group["weight_decay"] = self.recipe.optimizer.betas, self.recipe.optimizer.weight_decay
            group["capturable"] = self.ahead and self.accelerator.device.type == "cuda"
        if self.average is None or self.sharded:
            return
        if "average" in state:
            self.average.load_state_dict(state["average"])
        else:  # none yet: it starts with the next step
            self.average.module.load_state_dict(state["model"])
            self.average.n_averaged.zero_()

    def network_of(self, state: dict[str, Any]) -> Restormer:
        """The network to be saved, whole, from `state()`."""
        if self.sharded:
            network = Restormer(self.recipe.model)
            network.load_state_dict(state["model"])
            return network
        network = self.network if self.average is None else self.average.module
        assert isinstance(network, Restormer)
        return network


def initial_network(recipe: Recipe) -> Restormer:
    """The network that training starts from: `init`, or random by the recipe's seed. Raises UserError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = load_weights(recipe.init).model if recipe.init else Restormer(recipe.model)
    if network.config != recipe.model:
        own = ", ".join(f"{key} = {json.dumps(value)}" for key, value in network.config.to_dict().items())
        raise UserError(
            f"init = {recipe.init}: is another network than [model] describes; its own: model = {{ {own} }}"
        )
    return network.to(torch.get_default_dtype()).train()


def _configure(network: Restormer, recipe: Recipe, compiled: bool) -> None:
    """Activation checkpointing and regional compilation."""
    for module in network.modules():
        if isinstance(module, Level):
            module.checkpointing = recipe.run.activation_checkpointing
        if isinstance(module, Block) and compiled:
            # One block per shape takes seconds, the whole network minutes; equal blocks share their code.
            module.compile(dynamic=False)
    if compiled:
        import torch._dynamo

        shapes = 8 * len(recipe.stage) * 2  # levels × patches × (training, a shorter last micro-batch)
        config = torch._dynamo.config
        limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # before torch 2.7
        setattr(config, limit, max(getattr(config, limit), shapes))


def _optimizer(
    network: Restormer, recipe: Recipe, device: torch.device, precision: str, ahead: bool
) -> torch.optim.AdamW:
    """The recipe's; `ahead`: for steps that a CUDA graph may hold."""
    wanted = recipe.optimizer
    keywords: dict[str, Any] = {
        "lr": wanted.lr,
        "betas": wanted.betas,
        "weight_decay": wanted.weight_decay,
        "fused": device.type in FUSED,
        "capturable": ahead and device.type == "cuda",
    }
    if wanted.kind == "adamw":
        return torch.optim.AdamW(network.parameters(), **keywords)
    dtype = torch.bfloat16 if precision == "bf16" and multiplies_bf16(device) else torch.float32
    return Muon(network.parameters(), dtype=dtype, **keywords)


def _average(network: Restormer, decay: float) -> AveragedModel | None:
    if not decay:
        return None
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))
    return average.requires_grad_(False)
