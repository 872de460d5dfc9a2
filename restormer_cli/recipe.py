"""A recipe: TOML in, a validated, frozen value out; no torch, so that mistakes are told at once.

A recipe lists only what differs from the paper's defaults (section 4); every default below is the paper's.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.errors import UserError
from restormer_cli.model.config import ModelConfig

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(Table):
    """One row of progressive learning: so many iterations at this patch and global batch."""

    iterations: Positive
    """How long; the stages follow one another."""
    patch: Annotated[int, Field(ge=8, multiple_of=8)]
    """Side of the square training patch, in pixels; a multiple of 8."""
    batch: Positive
    """Pictures per step, over all devices."""


PAPER_STAGES = tuple(
    Stage(iterations=iterations, patch=patch, batch=batch)
    for iterations, patch, batch in (
        (92_000, 128, 64),
        (64_000, 160, 40),
        (48_000, 192, 32),
        (36_000, 256, 16),
        (36_000, 320, 8),
        (24_000, 384, 8),
    )
)


class Optimizer(Table):
    """AdamW."""

    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3e-4
    """Learning rate at the start."""
    weight_decay: Rate = 1e-4
    """Share of each weight taken away per step, times the learning rate."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """How slowly the means of gradients and of their squares forget."""
    clip: Rate = 0.01
    """Largest gradient norm; 0 switches clipping off."""


class Schedule(Table):
    """Constant rate, then half a cosine down to lr_min; the default splits the total as the paper does, 92 : 208."""

    constant: Annotated[int, Field(ge=0)] | None = None
    """Iterations at the full rate."""
    cosine: Annotated[int, Field(ge=0)] | None = None
    """Iterations of the way down."""
    lr_min: Rate = 1e-6
    """Where it ends, and stays."""


class Loss(Table):
    """What is minimised: the mean of |e|, of sqrt(e² + ε²), |e| plus a share of the spectrum's |e|, or −PSNR."""

    kind: Literal["l1", "charbonnier", "fft", "psnr"] = "l1"
    """In the order of the line above."""


class Ema(Table):
    """Exponential moving average of the weights; 0 switches it off."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the average that each step keeps, such as 0.999."""


class Augment(Table):
    flips: bool = True
    """Mirror images and quarter turns, the 8 of them equally likely."""
    mixup: Rate = 0.0
    """Parameter a of the mixture's β(a, a), applied to every second group; the paper's is 1.2, 0 switches it off."""
    mixup_groups: Positive = 8
    """Equal groups of a global batch that are mixed within: the paper's 8 GPUs, so groups of 8, 5, 4, 2, 1, 1."""
    balance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Other light: each channel of a sample is darkened by its own share, at most a share drawn up to this one."""
    shrink: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the samples that are taken from pictures at half their size, where these are large enough."""


class Degrade(Table):
    """What is done to clean pictures to make the input; steps as in `degradations.spec`."""

    steps: tuple[str, ...] = ()
    """One after the other, such as ["defocus:1-3", "gaussian:0-10", "jpeg:70-95@0.5"]."""


class Pairs(Table):
    """Where pictures are: two folders with the same names, or clean ones that [degrade] spoils on the way in.

    Folders are searched with all below them. `package:skimage` names the photographs inside scikit-image.
    """

    degraded: str | None = None
    """Folder of the input pictures."""
    right: str | None = None
    """The second view of a dual-pixel camera, where `degraded` is the first."""
    clean: str
    """Folder of the pictures that they should become."""
    exclude: tuple[str, ...] = ()
    """Names (below the folder, without extension) to leave out."""
    only: tuple[str, ...] = ()
    """The only names to take."""
    match: Literal["name", "order"] = "name"
    """What makes a pair: the same name, or the same place in the natural order of names (as in DPDD)."""


class Cut(Table):
    """The crops that a published preparation cuts beforehand; here they are places to draw patches from."""

    side: Positive
    """Of the square crops, in pixels."""
    overlap: Annotated[int, Field(ge=0)] = 0
    """Pixels that neighbouring crops share; the last of a row is moved back to the border."""
    above: Annotated[int, Field(ge=0)] = 0
    """Pictures are cut where both sides exceed this, else taken whole, as one crop."""

    @model_validator(mode="after")
    def _advances(self) -> "Cut":
        if self.overlap >= self.side:
            raise ValueError(f"overlap = {self.overlap}: must be smaller than side = {self.side}")
        return self


class Data(Table):
    train: Pairs
    """What is learnt from."""
    validate_: Annotated[Pairs | None, Field(alias="validate")] = None
    """What is scored now and then, and never learnt from."""
    cut: Cut | None = None
    """Draw among these crops, all alike, and a patch within; without it, see `draw`."""
    sharpest: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the crops of `cut`, over all pictures, that is kept: the sharpest, judged by the clean picture."""
    draw: Literal["area", "pictures"] | None = None
    """Without `cut`: pictures in proportion to their area (the default), or all alike."""
    textured: bool = False
    """Draw patches in favour of texture: of two candidates, the one with the larger mean gradient."""
    cache: Literal["disk", "memory", "off"] = "disk"
    """Where decoded pictures are kept: in files that all processes share, in this process, or nowhere."""
    cache_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """The most that the cache may hold, in 10⁹ bytes (default: 100 on disk, 6 in memory)."""
    workers: Positive = 4
    """Threads that make batches, and decode pictures at the start."""
    prefetch: Positive = 4
    """Batches made ahead of the step that needs them."""


class Validation(Table):
    every: Positive = 4000
    """Iterations between two validations."""
    crop: Annotated[int, Field(ge=0, multiple_of=8)] = 256
    """Side of the centre crop that is scored; 0 scores whole pictures."""
    degrade: tuple[str, ...] = ()
    """Steps for validation where the data are clean (default: those of [degrade]); seeded per picture."""
    channel: Literal["rgb", "y"] = "rgb"
    """What is scored: all channels, or luma Y alone, as deraining is."""


class Checkpoint(Table):
    every: Positive = 4000
    """Iterations between two checkpoints."""
    keep: Positive = 2
    """So many of the newest stay."""


class Run(Table):
    """How it is computed; nothing here changes what is computed, but for rounding."""

    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """bf16 is autocast: weights and optimiser stay in fp32. auto: bf16 where the device multiplies in it, else fp32."""
    activation_checkpointing: bool = False
    """Keep only what enters each block and compute the rest again: far less memory, more time."""
    compile: bool = False
    """torch.compile, one block per shape."""
    micro_batch: Positive | None = None
    """The most pictures that a device takes at once; gradients accumulate (default: all of its share)."""
    uneven: bool = False
    """Let a batch split unevenly over the devices (some wait); without it such a recipe is refused."""
    non_finite_steps: Positive = 10
    """After so many steps in a row without a finite loss or gradient, go back to the last checkpoint."""
    track: Literal["tensorboard", "trackio", "wandb"] | None = None
    """Where else the metrics go."""


class Recipe(Table):
    """Everything that decides a training run."""

    name: str = ""
    """Of the run folder; the file's name unless told."""
    task: str
    """What the weights will be for; goes into their header."""
    seed: Annotated[int, Field(ge=0)] = 100
    """Of the initial weights and of everything that is drawn."""
    init: str | None = None
    """Weights to start from: a path, a bundled name, official/TASK or hf:org/repo/file."""
    expected: str | None = None
    """What the recipe should reach, in words."""
    licence: str | None = None
    """Licence of the weights, for their header."""
    model: ModelConfig = ModelConfig()
    data: Data
    stage: Annotated[tuple[Stage, ...], Field(min_length=1)] = PAPER_STAGES
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    ema: Ema = Ema()
    augment: Augment = Augment()
    degrade: Degrade = Degrade()
    validation: Validation = Validation()
    checkpoint: Checkpoint = Checkpoint()
    run: Run = Run()

    @model_validator(mode="after")
    def _steps_make_sense(self) -> "Recipe":
        for pairs in (self.data.train, self.data.validate_):
            if pairs is not None and pairs.degraded is None and not self.degrade.steps:
                raise ValueError("[data] has clean pictures only: name a `degraded` folder or give [degrade] steps")
        for steps in (self.degrade.steps, self.validation.degrade):
            if steps:
                try:
                    parse_degradation(steps)
                except UserError as error:
                    raise ValueError(str(error)) from None
        rows = [pairs for pairs in (self.data.train, self.data.validate_) if pairs is not None]
        if self.degrade.steps and all(pairs.degraded is not None for pairs in rows):
            raise ValueError("[degrade] steps are for clean pictures, but [data] names degraded ones: leave one out")
        if self.augment.shrink and self.data.train.degraded is not None:
            raise ValueError("augment.shrink is for clean pictures: what spoilt data.train.degraded would shrink too")
        return self

    @model_validator(mode="after")
    def _channels_fit(self) -> "Recipe":
        views, channels = (2, self.model.in_channels // 2) if self.model.dual_pixel else (1, self.model.in_channels)
        if channels not in (1, 3):
            raise ValueError(
                f"model.in_channels = {self.model.in_channels}: pictures have 3 channels (1 in gray), two views of a "
                "dual-pixel camera 6 together (model.dual_pixel = true, out_channels = 3)"
            )
        for role, pairs in (("train", self.data.train), ("validate", self.data.validate_)):
            if pairs is None:
                continue
            if views == 2 and (pairs.right is None or pairs.degraded is None):
                raise ValueError(
                    f"model.dual_pixel = true takes {self.model.in_channels} channels, but data.{role} gives "
                    f"{channels}: name the left views' folder as data.{role}.degraded, the right ones' as "
                    f"data.{role}.right"
                )
            if views == 1 and pairs.right is not None:
                raise ValueError(
                    f"data.{role}.right gives {2 * channels} channels, but the network takes "
                    f"{self.model.in_channels}: set model.dual_pixel = true and model.in_channels = {2 * channels}"
                )
        return self

    @model_validator(mode="after")
    def _patches_fit(self) -> "Recipe":
        cut = self.data.cut
        if cut is not None and self.data.draw is not None:
            raise ValueError("data.draw is without effect beside data.cut: leave one of them out")
        if cut is None and self.data.sharpest < 1:
            raise ValueError("data.sharpest chooses among crops: say how they are cut, data.cut = { side = 512, … }")
        for number, stage in enumerate(self.stage):
            if cut is not None and stage.patch > cut.side:
                raise ValueError(f"stage.{number}.patch = {stage.patch}: is larger than data.cut.side = {cut.side}")
            if self.augment.mixup and stage.batch % self.augment.mixup_groups:
                raise ValueError(
                    f"stage.{number}.batch = {stage.batch}: mixup needs a multiple of augment.mixup_groups = "
                    f"{self.augment.mixup_groups} (1: the whole batch is one group)"
                )
        return self

    @property
    def iterations(self) -> int:
        """Total number of training iterations."""
        return sum(stage.iterations for stage in self.stage)
