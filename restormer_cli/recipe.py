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
    """One stage of progressive learning: a number of iterations at one patch size and global batch size."""

    iterations: Positive
    """Number of steps of this stage; the stages follow one another."""
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
    """How gradients become steps."""

    kind: Literal["adamw", "muon"] = "adamw"
    """adamw: the paper's; muon: steps of convolutions that mix channels are made orthogonal, the rest is AdamW's, which
    compact networks learn faster by; a step takes a tenth longer on a CPU; not under FSDP."""
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3e-4
    """Initial learning rate."""
    weight_decay: Rate = 1e-4
    """Decoupled weight decay (AdamW)."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW's betas: decay rates of the two moment estimates, each in [0, 1)."""
    clip: Rate = 0.01
    """Maximum norm of the gradient; 0 switches clipping off."""


class Schedule(Table):
    """Constant learning rate, then cosine annealing to lr_min; by default the iterations are split 92 : 208."""

    constant: Annotated[int, Field(ge=0)] | None = None
    """Iterations at the initial learning rate."""
    cosine: Annotated[int, Field(ge=0)] | None = None
    """Iterations of the cosine annealing."""
    lr_min: Rate = 1e-6
    """Final learning rate."""


class Loss(Table):
    """The loss that is minimised."""

    kind: Literal["l1", "charbonnier", "fft", "psnr"] = "l1"
    """l1: mean absolute error; charbonnier: mean sqrt(e² + ε²), ε = 1e-3; fft: L1 plus 0.1 × L1 of the spectrum; psnr:
    negative PSNR, capped at 50 dB."""


class Teaching(Table):
    """Another network, whose answers take the place of a share of the photographs: what to learn is less noisy so."""

    weights: str
    """The network: a path, a bundled name, official/TASK or hf:org/repo/file; of the same channels as [model]."""
    views: Literal[1, 2, 4, 8] = 4
    """Turned and mirrored views of which the mean is taken, other ones every time; more are better and take longer."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Share of its answer in what is learnt, in (0, 1]; the rest is the photograph."""


class Ema(Table):
    """Exponential moving average of the weights; 0 switches it off."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the average per step, in [0, 1), such as 0.999."""


class Augment(Table):
    flips: bool = True
    """Random flips and quarter turns: the 8 positions, equally likely."""
    mixup: Rate = 0.0
    """MixUp: parameter a of Beta(a, a), applied to every second group; 1.2 in the paper, 0 switches it off."""
    mixup_groups: Positive = 8
    """MixUp: number of equal groups of a global batch, each mixed within itself (the paper's 8 GPUs)."""
    balance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """White balance, in [0, 1): each channel of a sample is darkened by a share of its own, up to this one."""
    shrink: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of samples, in [0, 1], taken from pictures at half their size, where these are large enough."""


class Degrade(Table):
    """Degradation of the clean pictures, which makes the input."""

    steps: tuple[str, ...] = ()
    """Operations in their order, such as ["defocus:1-3", "gaussian:0-10", "jpeg:70-95@0.5"]."""


class Pairs(Table):
    """Folders of pictures: degraded and clean ones of the same names, or clean ones that [degrade] degrades.

    Folders are searched with all below them. `package:skimage` names the photographs inside scikit-image.
    """

    degraded: str | None = None
    """Folder of the degraded pictures, the network's input."""
    right: str | None = None
    """Folder of a dual-pixel camera's second views, where `degraded` has the first."""
    clean: str
    """Folder of the clean pictures, the target."""
    exclude: tuple[str, ...] = ()
    """Names (below the folder, without extension) to leave out."""
    only: tuple[str, ...] = ()
    """The only names to take."""
    match: Literal["name", "order"] = "name"
    """How pairs are found: by the same name, or by the same position in the natural order of names (as in DPDD)."""


class Cut(Table):
    """Crops as published preparations cut them beforehand; patches are drawn within these."""

    side: Positive
    """Side of the square crops, in pixels."""
    overlap: Annotated[int, Field(ge=0)] = 0
    """Overlap of neighbouring crops, in pixels; the last crop of a row ends at the border."""
    above: Annotated[int, Field(ge=0)] = 0
    """Pictures are cut where both sides exceed this many pixels; others are one crop."""

    @model_validator(mode="after")
    def _advances(self) -> "Cut":
        if self.overlap >= self.side:
            raise ValueError(f"overlap = {self.overlap}: must be smaller than side = {self.side}")
        return self


class Data(Table):
    train: Pairs
    """Training pictures."""
    validate_: Annotated[Pairs | None, Field(alias="validate")] = None
    """Validation pictures, never trained on."""
    cut: Cut | None = None
    """Draw one of these crops, each equally likely, and a patch within it; without `cut`, see `draw`."""
    sharpest: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the crops of `cut`, in (0, 1], that is kept: the sharpest of all pictures, judged by the clean one."""
    draw: Literal["area", "pictures"] | None = None
    """Without `cut`: draw pictures in proportion to their area (the default), or each equally likely."""
    textured: bool = False
    """Prefer patches with texture: of two candidates, take the one with the larger mean gradient."""
    cache: Literal["disk", "memory", "off"] = "disk"
    """Cache of decoded pictures: files that all processes share, the memory of this process, or none."""
    cache_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Maximum size of the cache, in 10⁹ bytes (default: 100 on disk, 6 in memory)."""
    workers: Positive = 4
    """Threads that make batches, and decode pictures at the start."""
    prefetch: Positive = 4
    """Number of batches prepared ahead."""


class Validation(Table):
    every: Positive = 4000
    """Iterations between two validations."""
    crop: Annotated[int, Field(ge=0, multiple_of=8)] = 256
    """Side of the centre crop that is scored; 0 scores whole pictures."""
    degrade: tuple[str, ...] = ()
    """Steps for validation where the data are clean (default: those of [degrade]); seeded per picture."""
    channel: Literal["rgb", "y"] = "rgb"
    """Channels that are scored: all, or luma Y alone (as for deraining)."""


class Checkpoint(Table):
    every: Positive = 4000
    """Iterations between two checkpoints."""
    keep: Positive = 2
    """Number of checkpoints that are kept, the newest."""


class Run(Table):
    """Execution; nothing here changes the result, but for rounding."""

    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """bf16 is autocast: weights and optimiser stay in fp32. auto: bf16 where the device multiplies in it, else fp32."""
    activation_checkpointing: bool = False
    """Store only the input of each block and compute the rest again in the backward pass: less memory, more time."""
    compile: Literal["auto"] | bool = "auto"
    """torch.compile, one block per shape. auto: on a GPU with Triton, if every stage has at least 4,000 iterations."""
    micro_batch: Positive | None = None
    """Maximum number of pictures per device at once; gradients accumulate (default: its share of the batch)."""
    uneven: bool = False
    """Allow batches that split unevenly over the devices (some wait); otherwise such a recipe is refused."""
    non_finite_steps: Positive = 10
    """Number of consecutive steps without a finite loss or gradient after which the last checkpoint is loaded."""
    track: Literal["tensorboard", "trackio", "wandb"] | None = None
    """Experiment tracker that receives the metrics too."""


class Recipe(Table):
    """All values of a training run."""

    name: str = ""
    """Name of the run folder (default: the file's name)."""
    task: str
    """Task of the weights, stored in their header."""
    seed: Annotated[int, Field(ge=0, lt=2**62)] = 100
    """Seed of the initial weights and of all random draws."""
    init: str | None = None
    """Initial weights: a path, a bundled name, official/TASK or hf:org/repo/file."""
    expected: str | None = None
    """Expected result, in words."""
    licence: str | None = None
    """Licence of the weights, stored in their header."""
    model: ModelConfig = ModelConfig()
    data: Data
    stage: Annotated[tuple[Stage, ...], Field(min_length=1)] = PAPER_STAGES
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    teacher: Teaching | None = None
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
        if views == 2 and self.teacher is not None and self.teacher.views > 1:
            raise ValueError(
                f"teacher.views = {self.teacher.views}: two views of a dual-pixel camera cannot be turned: 1"
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
