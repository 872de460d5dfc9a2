"""The training loop: `fit` yields one log per step and draws nothing.

Everything random is a pure function of (seed, iteration), so a checkpoint is the weights, the optimiser, the
average and a number, and a resumed run ends with the bits of an uninterrupted one.
"""

import json
import platform
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from restormer_cli import __version__
from restormer_cli.atomic import write_atomically
from restormer_cli.data.dataset import Note, Reading, ahead, as_picture, training_batches, validation_pictures
from restormer_cli.engine.metrics import psnr
from restormer_cli.engine.schedule import learning_rate, stage_at
from restormer_cli.errors import Failed, UserError
from restormer_cli.model.restormer import Level, Restormer
from restormer_cli.model.weights import load_weights, save_weights
from restormer_cli.recipe import Recipe


@dataclass(frozen=True)
class StepLog:
    """One training iteration."""

    iteration: int
    stage: int
    patch: int
    batch: int
    loss: float
    lr: float
    seconds: float
    waited: float = 0.0
    """Seconds of `seconds` in which the batch was not there yet."""


@dataclass(frozen=True)
class ValidationLog:
    """The score on the validation pictures, beside that of the degraded input; dB, peak 1, mean over pictures."""

    iteration: int
    psnr: float
    input_psnr: float
    pictures: int


LOSSES = {
    "l1": F.l1_loss,
    "charbonnier": lambda output, target: ((output - target).square() + 1e-6).sqrt().mean(),
}


@dataclass
class Run:
    """A run folder: `recipe.json`, `environment.json`, `metrics.jsonl`, `weights.safetensors`, `checkpoints/`."""

    folder: Path
    checkpoints: Path = field(init=False)
    metrics: Path = field(init=False)
    weights: Path = field(init=False)

    def __post_init__(self) -> None:
        self.checkpoints = self.folder / "checkpoints"
        self.metrics = self.folder / "metrics.jsonl"
        self.weights = self.folder / "weights.safetensors"

    def newest(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole, or None."""
        for path in sorted(self.checkpoints.glob("*.pt"), reverse=True):
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except Exception:  # torn, which torch.load meets with many kinds: fall back to the one before
                continue
        return None

    def write(self, name: str, text: str) -> None:
        """A small text file, atomically."""
        write_atomically(self.folder / name, lambda stream: stream.write(text.encode()))

    def save(self, state: dict[str, Any], keep: int) -> None:
        """A checkpoint, atomically; older ones beyond `keep` go, and torn later ones that it replaces."""
        try:
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            raise Failed(f"{self.checkpoints}: cannot be made: {error.strerror}") from None
        write_atomically(self.checkpoints / f"{state['iteration']:08d}.pt", lambda stream: torch.save(state, stream))
        numbers = sorted(int(path.stem) for path in self.checkpoints.glob("*.pt") if path.stem.isdigit())
        kept = [number for number in numbers if number <= state["iteration"]][-keep:]
        for number in set(numbers) - set(kept):
            (self.checkpoints / f"{number:08d}.pt").unlink(missing_ok=True)


def open_run(folder: Path, recipe: Recipe, *, resume: bool) -> tuple[Run, dict[str, Any] | None]:
    """The run folder and the checkpoint to go on from.

    Raises UserError for a folder in use without `resume`, or a recipe that differs from the checkpoint's.
    """
    run = Run(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        used = any(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot hold a run: {error.strerror}") from None
    if used and not resume:
        raise UserError(f"{folder}: is not empty: go on with --resume, or choose another --out")
    checkpoint = run.newest() if resume else None
    if checkpoint is not None:
        was, now = json.loads(checkpoint["recipe"]), json.loads(_resolved(recipe))
        changed = [key for key in now if was.get(key) != now[key]]
        if changed:
            raise UserError(f"{folder}: its checkpoint was made with another recipe (changed: {', '.join(changed)})")
    return run, checkpoint


def fit(
    recipe: Recipe, folder: Path, *, resume: bool = False, stop_after: int | None = None, device: str = "auto"
) -> Generator[StepLog | ValidationLog | Reading | Note, None, None]:
    """Train to the recipe's end (or for `stop_after` iterations), yielding logs; see `Run` for what is written.

    Raises UserError for data or folders that cannot be used, Failed where the loss is not finite or disk is full.
    """
    # Precision is ours, not Accelerate's: that one is fixed for the life of the process, and runs may follow runs.
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no")
    half = recipe.run.precision == "bf16"
    autocast = partial(torch.autocast, accelerator.device.type, dtype=torch.bfloat16, enabled=half)
    if recipe.stage and any(stage.batch % accelerator.num_processes for stage in recipe.stage):
        batches = [stage.batch for stage in recipe.stage]
        raise UserError(f"batches {batches} do not split evenly over {accelerator.num_processes} processes")
    training = yield from training_batches(recipe)
    validation = validation_pictures(recipe)
    run, checkpoint = open_run(folder, recipe, resume=resume)

    torch.manual_seed(recipe.seed)
    network = load_weights(recipe.init).model if recipe.init else Restormer(recipe.model)
    if network.config != recipe.model:
        raise UserError(f"init = {recipe.init}: is another network than [model] describes")
    network.train()
    for module in network.modules():
        if isinstance(module, Level):
            module.checkpointing = recipe.run.activation_checkpointing
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=recipe.optimizer.lr,
        betas=recipe.optimizer.betas,
        weight_decay=recipe.optimizer.weight_decay,
        fused=True,
    )
    average = _average(network, recipe.ema.decay)
    done = 0
    if checkpoint is not None:
        done = checkpoint["iteration"]
        network.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        if average is not None:
            average.load_state_dict(checkpoint["average"])
    if average is not None:
        average.to(accelerator.device)
    model, optimizer = accelerator.prepare(network, optimizer)
    result = network if average is None else average.module
    loss_of = LOSSES[recipe.loss.kind]

    if accelerator.is_main_process:
        run.write("recipe.json", _resolved(recipe))
        run.write("environment.json", json.dumps(environment(accelerator), indent=1))
        _truncate_metrics(run.metrics, done)

    def make(iteration: int) -> tuple[Tensor, Tensor]:
        stage = stage_at(iteration, recipe.stage)[1]
        share = stage.batch // accelerator.num_processes
        rows = range(accelerator.process_index * share, (accelerator.process_index + 1) * share)
        degraded, clean = training.batch(iteration, stage, rows)
        return _to_tensor(degraded), _to_tensor(clean)

    last = recipe.iterations if stop_after is None else min(recipe.iterations, done + stop_after)
    score: ValidationLog | None = None
    started = time.perf_counter()
    batches = ahead(make, done + 1, last, depth=recipe.data.prefetch, workers=recipe.data.workers)
    for iteration in range(done + 1, last + 1):
        begun = time.perf_counter()
        degraded, clean = next(batches)
        waited = time.perf_counter() - begun
        index, stage = stage_at(iteration, recipe.stage)
        rate = learning_rate(iteration, recipe)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with autocast():
            output = model(degraded.to(accelerator.device))
        loss = loss_of(output.float(), clean.to(accelerator.device))
        accelerator.backward(loss)
        if recipe.optimizer.clip:
            accelerator.clip_grad_norm_(model.parameters(), recipe.optimizer.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            average.update_parameters(network)
        value = float(accelerator.reduce(loss.detach(), "mean"))  # pyright: ignore[reportArgumentType]
        if not np.isfinite(value):
            raise Failed(f"the loss is not finite at iteration {iteration}: lower optimizer.lr, then --resume")
        log = StepLog(iteration, index, stage.patch, stage.batch, value, rate, time.perf_counter() - begun, waited)
        if accelerator.is_main_process:
            _append(run.metrics, log)
        yield log

        ending = iteration == last
        if validation and (iteration % recipe.validation.every == 0 or ending):
            with autocast():
                score = _validate(result, validation, iteration, accelerator.device)
            if accelerator.is_main_process:
                _append(run.metrics, score)
            yield score
        if (iteration % recipe.checkpoint.every == 0 or ending) and accelerator.is_main_process:
            state = {
                "iteration": iteration,
                "model": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "recipe": _resolved(recipe),
            }
            if average is not None:
                state["average"] = average.state_dict()
            run.save(state, recipe.checkpoint.keep)
            save_weights(run.weights, result, _header(recipe, iteration, score, time.perf_counter() - started))
    accelerator.wait_for_everyone()


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """What a run ran on."""
    return {
        "restormer_cli": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "machine": platform.platform(),
    }


def _validate(
    model: torch.nn.Module, pairs: list[tuple[np.ndarray, np.ndarray]], iteration: int, device: torch.device
) -> ValidationLog:
    was_training = model.training
    model.eval()
    scores, inputs = [], []
    with torch.inference_mode():
        for degraded, clean in pairs:
            output = model(_to_tensor(degraded[None]).to(device)).float()[0].clamp(0, 1)
            scores.append(psnr(output.permute(1, 2, 0).cpu().numpy(), clean, peak=1.0))
            inputs.append(psnr(as_picture(degraded, clean.shape[2]), clean, peak=1.0))
    model.train(was_training)
    return ValidationLog(iteration, float(np.mean(scores)), float(np.mean(inputs)), len(pairs))


def _average(network: Restormer, decay: float) -> AveragedModel | None:
    if not decay:
        return None
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))
    return average.requires_grad_(False)


def _header(recipe: Recipe, iteration: int, score: ValidationLog | None, seconds: float) -> dict[str, Any]:
    training: dict[str, Any] = {"iterations": iteration, "of": recipe.iterations, "seconds": round(seconds)}
    if score is not None:
        training["validation"] = {"psnr": score.psnr, "input_psnr": score.input_psnr, "pictures": score.pictures}
    header = {"task": recipe.task, "recipe": json.loads(_resolved(recipe)), "training": training}
    return header | ({"licence": recipe.licence} if recipe.licence else {})


def _resolved(recipe: Recipe) -> str:
    return recipe.model_dump_json(by_alias=True, indent=1)


def _to_tensor(pixels: np.ndarray) -> Tensor:
    """(b, h, w, c) -> (b, c, h, w), a view."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _append(path: Path, log: StepLog | ValidationLog) -> None:
    entry = asdict(log)
    if isinstance(log, ValidationLog):
        entry = {"validation": entry.pop("iteration"), **entry}
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise Failed(f"{path}: cannot be written: {error.strerror}") from None


def _truncate_metrics(path: Path, done: int) -> None:
    """Drop what was logged after the checkpoint that the run goes on from."""
    if not path.exists():
        return
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise Failed(f"{path}: cannot be read: {error.strerror}") from None
    kept = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # a line torn by a kill
            continue
        if entry.get("iteration", entry.get("validation", 0)) <= done:
            kept.append(line)
    write_atomically(path, lambda stream: stream.write("".join(f"{line}\n" for line in kept).encode()))
