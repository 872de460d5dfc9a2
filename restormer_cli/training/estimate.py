"""Plan of a training run, without running it: `restormer train RECIPE --plan`."""

from dataclasses import dataclass
from functools import cache, partial

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from restormer_cli.engine.positions import positions_of
from restormer_cli.errors import UserError
from restormer_cli.hardware import choose_device
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.cost import count_operations, count_parameters, level_blocks, with_one_block
from restormer_cli.model.restormer import KERNELS, Level, Restormer
from restormer_cli.model.weights import load_weights
from restormer_cli.native.build import library, multiplies_pairs
from restormer_cli.recipe import Recipe, Stage
from restormer_cli.training.learner import choose_precision
from restormer_cli.training.schedule import Split, cosine_split, learning_rate, split_batch

BF16_ON_CUDA = 4 / 3
"""Where autocast keeps more copies than the count knows: estimates were a quarter too low."""
PROBE = 64
"""Side of the picture that stands for all sizes: work and activations are proportional to pixels."""


@dataclass(frozen=True)
class StagePlan:
    """One stage of progressive learning, as it will run."""

    stage: Stage
    last: int
    """Its last iteration."""
    split: Split
    megapixels: float
    """Per step, over all devices."""
    samples: int
    """Pictures seen by the end of the stage."""
    tflops: float
    """Per step, over all devices: forward and backward, a teacher's answers too, 10¹² operations."""
    memory: int
    """Estimated bytes on the busiest device."""


@dataclass(frozen=True)
class Plan:
    """A recipe worked out."""

    recipe: Recipe
    devices: int
    parameters: int
    gmacs: float
    """Convolutions' multiply-accumulates for 3 × 256², the paper's "FLOPs", and all operations likewise."""
    gflops: float
    stages: tuple[StagePlan, ...]
    rates: tuple[tuple[int, float], ...]
    """(iteration, learning rate) at the first one, at the knots of the schedule and where stages begin."""
    uneven: tuple[int, ...]
    """Stages whose batch splits unevenly, which the recipe allows."""


def make_plan(recipe: Recipe, devices: int) -> Plan:
    """Work a recipe out for so many devices.

    Raises UserError for batches that split unevenly, unless the recipe allows it, or that are too small.
    """
    stages: list[StagePlan] = []
    last = samples = 0
    splits = [split_batch(row.batch, devices, recipe.run.micro_batch, uneven=True) for row in recipe.stage]
    uneven = tuple(number for number, split in enumerate(splits) if not split.even)
    if uneven and not recipe.run.uneven:
        batches = ", ".join(f"{recipe.stage[number].batch} (stage.{number})" for number in uneven)
        raise UserError(
            f"batches that do not split evenly over {devices} devices: {batches}; make them multiples of {devices}, "
            "or let some devices wait for others with --set run.uneven=true"
        )
    taught, teacher_bytes = _teacher_costs(recipe)
    macs_per_pixel = count_operations(recipe.model, PROBE, PROBE).macs / PROBE**2
    fixed, per_pixel = memory_of(recipe)
    # Backward costs twice the forward pass; checkpointing repeats the forward pass.
    passes = 4 if recipe.run.activation_checkpointing else 3
    for stage, split in zip(recipe.stage, splits, strict=True):
        last += stage.iterations
        samples += stage.iterations * stage.batch
        pixels, largest = stage.patch**2, max(len(rows) for share in split.shares for rows in share)
        stages.append(
            StagePlan(
                stage,
                last,
                split,
                megapixels=stage.batch * pixels / 1e6,
                samples=samples,
                tflops=2 * (macs_per_pixel * passes + taught) * stage.batch * pixels / 1e12,
                memory=round(fixed + teacher_bytes + per_pixel * largest * pixels),
            )
        )
    whole = count_operations(recipe.model, 256, 256)
    knots = {1, cosine_split(recipe)[0] + 1, last, *(row.last + 1 for row in stages[:-1])}
    return Plan(
        recipe,
        devices,
        count_parameters(recipe.model),
        gmacs=whole.conv_macs / 1e9,
        gflops=whole.flops / 1e9,
        stages=tuple(stages),
        rates=tuple((iteration, learning_rate(iteration, recipe)) for iteration in sorted(knots) if iteration <= last),
        uneven=uneven,
    )


def _teacher_costs(recipe: Recipe) -> tuple[float, int]:
    """Multiply-accumulates of the teacher's answers, per pixel of a batch; and bytes of its weights, as they are and as
    the engine prepares them. Its maps are gone before the step needs its own, which are larger.
    """
    if recipe.teacher is None:
        return 0, 0
    weights = load_weights(recipe.teacher.weights)
    views = min(recipe.teacher.views, len(positions_of(weights.header.get("recipe"))))
    macs = count_operations(weights.config, PROBE, PROBE).macs / PROBE**2
    return views * macs, 2 * 4 * count_parameters(weights.config)


def memory_of(recipe: Recipe) -> tuple[float, float]:
    """Estimated bytes on a device: whatever the batch is, and per pixel of what is taken at once.

    Weights, gradients, two moments and the average; what the backward pass needs of the forward pass, counted by
    a forward pass without numbers; and four of the widest maps, gradients and copies at work. Compared with
    measurements in docs/training-data.md.
    """
    config, run = recipe.model, recipe.run
    copies = 4 + bool(recipe.ema.decay)
    device = choose_device("auto")
    half = choose_precision(recipe, device) == "bf16"
    # The kernels in C keep nothing wide; a CPU alone has them.
    kernels = device.type == "cpu" and (multiplies_pairs() if half else library() is not None)
    saved_bytes = partial(_saved_bytes, half=half, kernels=kernels)
    saved = saved_bytes(config, checkpointing=run.activation_checkpointing)
    if run.activation_checkpointing:  # one block at a time is computed again; the widest is at full size
        one = ModelConfig.from_dict(config.to_dict() | {"blocks": [1, 1, 1, 1], "refinement": 0})
        two = ModelConfig.from_dict(config.to_dict() | {"blocks": [1, 1, 1, 1], "refinement": 1})
        saved += saved_bytes(two) - saved_bytes(one)
    if half and device.type == "cuda":
        saved *= BF16_ON_CUDA
    channels = config.level1_channels if kernels else 2 * config.hidden(config.level1_channels)
    widest = channels * (2 if half and not kernels else 4) * PROBE**2
    return 4 * copies * count_parameters(config), (saved + 4 * widest) / PROBE**2


@cache
def _saved_bytes(config: ModelConfig, *, half: bool, kernels: bool, checkpointing: bool = False) -> int:
    """Bytes that autograd keeps of a forward pass over one picture of PROBE², without the weights.

    A level's blocks keep the same: one is counted, and stands for all of them.
    """
    kept: dict[int, tuple[torch.UntypedStorage, int]] = {}
    repetitions = 1

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault(storage._cdata, (storage, repetitions))  # kept alive, so that no other gets its address
        return tensor

    def repeat(count: int) -> None:
        nonlocal repetitions
        repetitions = count

    with FakeTensorMode():
        network = Restormer(with_one_block(config)).train()
        for name, count in level_blocks(config).items():
            level = network.get_submodule(name)
            assert isinstance(level, Level)
            level.checkpointing = checkpointing
            level.register_forward_pre_hook(lambda *_, count=count: repeat(count))
            level.register_forward_hook(lambda *_: repeat(1))
        picture = torch.zeros(1, config.in_channels, PROBE, PROBE)
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            before = KERNELS.set(kernels)
            network(picture)
            KERNELS.reset(before)
        weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    return sum(count * storage.nbytes() for address, (storage, count) in kept.items() if address not in weights)
