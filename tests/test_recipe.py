"""A recipe says only what differs from the paper, and a mistake in it is named with its place and its cure."""

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from restormer_cli.errors import UserError
from restormer_cli.model.config import ModelConfig
from restormer_cli.recipe import Recipe
from restormer_cli.recipe_files import parse_recipe, read_recipe
from restormer_cli.training.schedule import cosine_split, learning_rate

RECIPES = Path(__file__).resolve().parent.parent / "recipes"

Read = Callable[..., Recipe]
MINIMAL = (Path(__file__).parent / "minimal.toml").read_text()

OPTIMIZER = {"kind": "adamw", "lr": 3e-4, "weight_decay": 1e-4, "betas": (0.9, 0.999), "clip": 0.01}
"""The paper's (section 4)."""


def test_defaults_are_the_papers(read: Read) -> None:
    recipe = read(MINIMAL)
    assert recipe.model == ModelConfig()
    assert recipe.model.to_dict() == {
        "in_channels": 3,
        "out_channels": 3,
        "dim": 48,
        "blocks": [4, 6, 6, 8],
        "refinement": 4,
        "heads": [1, 2, 4, 8],
        "expansion": 2.66,
        "norm": "with-bias",
        "bias": False,
        "dual_pixel": False,
        "attention": "mdta",
        "feed_forward": "gdfn",
        "concat": True,
    }
    assert recipe.seed == 100
    assert recipe.optimizer.model_dump() == OPTIMIZER
    assert recipe.schedule.lr_min == 1e-6
    assert recipe.loss.kind == "l1"
    assert recipe.ema.decay == 0
    assert recipe.augment.model_dump() == {"flips": True, "mixup": 0, "mixup_groups": 8, "balance": 0, "shrink": 0}
    assert (recipe.validation.every, recipe.validation.crop, recipe.checkpoint.every) == (4000, 256, 4000)
    assert recipe.run.precision == "fp32"
    assert (recipe.init, recipe.data.validate_) == (None, None)
    assert recipe.name == "mine"
    assert recipe.iterations == 150
    assert [(row.iterations, row.patch, row.batch) for row in recipe.stage] == [(100, 64, 4), (50, 128, 2)]


def test_without_stages_they_are_the_papers_and_their_rows_can_be_set(read: Read) -> None:
    start = MINIMAL.split("[[stage]]")[0]
    rows = read(start).stage
    assert [row.iterations for row in rows] == [92_000, 64_000, 48_000, 36_000, 36_000, 24_000]
    assert [row.patch for row in rows] == [128, 160, 192, 256, 320, 384]
    assert [row.batch for row in rows] == [64, 40, 32, 16, 8, 8]
    changed = read(start, "stage.5.patch=64")
    assert changed.stage[:5] == rows[:5]
    assert (changed.stage[5].patch, changed.stage[5].batch) == (64, 8)


def test_a_recipe_is_frozen(read: Read) -> None:
    recipe = read(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_a_resolved_recipe_reads_back(read: Read) -> None:
    recipe = read(MINIMAL, "model.dim=16", "data.validate={ degraded = 'a', clean = 'b' }")
    assert Recipe.model_validate_json(recipe.model_dump_json(by_alias=True)) == recipe
    assert parse_recipe(recipe.model_dump(by_alias=True, mode="json"), where="again") == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sede = 3\n" + MINIMAL, "unknown key sede; nearest: seed"),
        (MINIMAL + "[modle]\ndim = 3", "unknown key modle; nearest: model"),
        (MINIMAL + "[model]\ndims = 48", r"unknown key model\.dims; nearest: model\.dim$"),
        (MINIMAL + "[model]\nfeedforward = 'fn'", r"nearest: model\.feed_forward$"),
        (MINIMAL + "[optimizer]\nlearning_rate = 1", r"unknown key optimizer\.learning_rate; nearest: optimizer\."),
        (MINIMAL + "[optimizer]\nweightdecay = 1", r"nearest: optimizer\.weight_decay$"),
        (MINIMAL + "patchs = 8", r"unknown key stage\.1\.patchs; nearest: stage\.1\.patch$"),
        (MINIMAL.replace("clean =", "cleen ="), r"data\.train\.clean is missing \(and 1 more\)"),
        (
            MINIMAL.replace('clean = "out"', 'clean = "out", onyl = []'),
            r"unknown key data\.train\.onyl; nearest: data\.train\.only$",
        ),
        (MINIMAL.replace("train =", "validat = { clean = 'x' }\ntrain ="), r"nearest: data\.validate$"),
        (
            MINIMAL.replace("train =", "validate = { clean = 'x', degrade = 'x' }\ntrain ="),
            r"unknown key data\.validate\.degrade; nearest: data\.validate\.degraded$",
        ),
        (MINIMAL + "[ema]\ndekay = 0.5", r"nearest: ema\.decay$"),
        (MINIMAL + "[run]\nprecison = 'bf16'", r"nearest: run\.precision$"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, read: Read, change: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read(change)
    assert str(tmp_path / "mine.toml") in str(error.value)
    assert "\n" not in str(error.value)


def test_the_nearest_learning_rate_key_is_lr_or_at_least_of_its_table(read: Read) -> None:
    with pytest.raises(UserError, match=r"nearest: optimizer\.(lr|weight_decay|betas|clip)$"):
        read(MINIMAL + "[optimizer]\nlr_rate = 1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (MINIMAL.replace("patch = 64", "patch = 100"), r"stage\.0\.patch = 100: must be a multiple of 8"),
        (MINIMAL.replace("patch = 64", "patch = 0"), r"stage\.0\.patch = 0"),
        (MINIMAL.replace("batch = 2", "batch = 0"), r"stage\.1\.batch = 0"),
        (MINIMAL.replace("iterations = 50", "iterations = -1"), r"stage\.1\.iterations = -1"),
        (MINIMAL.replace("iterations = 50", "iterations = 'x'"), r"stage\.1\.iterations = 'x'"),
        (MINIMAL.split("[[stage]]")[0].replace("[data]", "stage = []\n[data]"), "stage"),
        (MINIMAL.replace('task = "deblur"', ""), "task is missing"),
        (MINIMAL.replace("[data]", "[run]").replace("train =", "#"), "data is missing"),
        (MINIMAL.replace("train =", "#"), r"data\.train is missing"),
        (
            MINIMAL.replace('degraded = "in", ', ""),
            r"clean pictures only: name a `degraded` folder",
        ),
        (MINIMAL.replace("train =", "validate = { clean = 'x' }\ntrain ="), "clean pictures only"),
        (MINIMAL + "[degrade]\nsteps = ['gausian:25']", "gausian"),
        (MINIMAL + "[validation]\ndegrade = ['nothing:25']", "nothing"),
        (MINIMAL + "[validation]\ncrop = 100", r"validation\.crop = 100: must be a multiple of 8"),
        (MINIMAL + "[model]\ndim = 7", "model: dim = 7: must be even"),
        (MINIMAL + "[model]\nheads = [1, 2, 5, 8]", "heads = 5 at level 3"),
        (MINIMAL + "[model]\nnorm = 'batch'", r"model\.norm = 'batch'"),
        (MINIMAL + "[optimizer]\nlr = 0", r"optimizer\.lr = 0"),
        (MINIMAL + "[optimizer]\nlr = nan", r"optimizer\.lr = nan"),
        (MINIMAL + "[optimizer]\nbetas = [0.9, 1.0]", r"optimizer\.betas\.1 = 1\.0"),
        (MINIMAL + "[ema]\ndecay = 1.0", r"ema\.decay = 1\.0"),
        (MINIMAL + "[loss]\nkind = 'l2'", r"loss\.kind = 'l2'"),
        (MINIMAL + "[run]\nprecision = 'fp16'", r"run\.precision = 'fp16'"),
        (MINIMAL + "[model]\ndim = '48'", r"model\.dim = '48': Input should be a valid integer"),
        (MINIMAL + "[model]\ndim = 48.0", r"model\.dim = 48\.0"),
        (MINIMAL + "[model]\nrefinement = true", r"model\.refinement = True"),
        (MINIMAL + "[optimizer]\nlr = '1e-4'", r"optimizer\.lr = '1e-4'"),
        (MINIMAL + "[augment]\nflips = 1", r"augment\.flips = 1"),
        (MINIMAL + "[model]\nin_channels = 5\nout_channels = 5", r"in_channels = 5: pictures have 3 channels"),
        (MINIMAL + "[model]\nin_channels = 6\nout_channels = 6", r"in_channels = 6: pictures have 3 channels.*views"),
        (
            MINIMAL + "[model]\nin_channels = 6\ndual_pixel = true",
            r"dual_pixel = true takes 6 channels, but data\.train gives 3: .*data\.train\.right",
        ),
        (MINIMAL.replace("train = {", "train = { right = 'r',"), r"data\.train\.right gives 6 .*takes 3: set model\."),
        (MINIMAL.replace("train =", "sharpest = 0.7\ntrain ="), r"data\.sharpest .*data\.cut"),
        (MINIMAL.replace("train =", "cut = { side = 64, overlap = 64 }\ntrain ="), r"data\.cut: overlap = 64"),
        (MINIMAL.replace("train =", "cut = { side = 96 }\ntrain ="), r"stage\.1\.patch = 128: .*data\.cut\.side = 96"),
        (
            MINIMAL.replace("train =", "cut = { side = 512 }\ndraw = 'area'\ntrain ="),
            r"data\.draw is without effect beside data\.cut",
        ),
        (MINIMAL.replace("train =", "cache = 'tape'\ntrain ="), r"data\.cache = 'tape'"),
        (MINIMAL + "[augment]\nshrink = 0.5", r"augment\.shrink is for clean pictures"),
        (MINIMAL + "[augment]\nmixup = 1.2", r"stage\.0\.batch = 4: mixup needs a multiple of .* = 8 \(1: "),
        (MINIMAL + "[run]\nmicro_batch = 0", r"run\.micro_batch = 0"),
        (MINIMAL + "[run]\ntrack = 'notebook'", r"run\.track = 'notebook'"),
        ("task = ", "not valid TOML"),
        (MINIMAL + "[data]", "not valid TOML"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(tmp_path: Path, read: Read, change: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read(change)
    assert str(tmp_path / "mine.toml") in str(error.value)
    assert "\n" not in str(error.value)


PAPER = [(92_000, 128, 64), (64_000, 160, 40), (48_000, 192, 32), (36_000, 256, 16), (36_000, 320, 8), (24_000, 384, 8)]
DFWB_CUT = {"side": 512, "overlap": 96, "above": 800}
DPDD_CUT = {"side": 512, "overlap": 308, "above": 0}
# name: channels in and out, norm, mixup, noise in training and in validation, cut, share of crops, validation crop
OFFICIAL: dict[str, tuple[int, int, str, float, tuple[str, ...], tuple[str, ...], Any, float, int]] = {
    "derain": (3, 3, "with-bias", 0, (), (), None, 1, 0),
    "motion-deblur": (3, 3, "with-bias", 0, (), (), {"side": 512, "overlap": 256, "above": 0}, 1, 256),
    "defocus": (3, 3, "with-bias", 0, (), (), DPDD_CUT, 0.7, 256),
    "defocus-dual-pixel": (6, 3, "with-bias", 0, (), (), DPDD_CUT, 0.7, 256),
    "denoise-real": (3, 3, "bias-free", 1.2, (), (), {"side": 512, "overlap": 128, "above": 0}, 1, 256),
    "denoise-color": (3, 3, "bias-free", 1.2, ("gaussian:0-50",), ("gaussian:25",), DFWB_CUT, 1, 0),
    "denoise-color-15": (3, 3, "bias-free", 1.2, ("gaussian:15",), (), DFWB_CUT, 1, 0),
    "denoise-color-25": (3, 3, "bias-free", 1.2, ("gaussian:25",), (), DFWB_CUT, 1, 0),
    "denoise-color-50": (3, 3, "bias-free", 1.2, ("gaussian:50",), (), DFWB_CUT, 1, 0),
    "denoise-gray": (1, 1, "bias-free", 1.2, ("gaussian:0-50",), ("gaussian:25",), DFWB_CUT, 1, 0),
    "denoise-gray-15": (1, 1, "bias-free", 1.2, ("gaussian:15",), (), DFWB_CUT, 1, 0),
    "denoise-gray-25": (1, 1, "bias-free", 1.2, ("gaussian:25",), (), DFWB_CUT, 1, 0),
    "denoise-gray-50": (1, 1, "bias-free", 1.2, ("gaussian:50",), (), DFWB_CUT, 1, 0),
}


def test_the_official_recipes_are_the_thirteen() -> None:
    assert {path.stem for path in RECIPES.glob("*.toml")} == set(OFFICIAL)
    assert len(OFFICIAL) == 13


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_official_recipe_is_the_papers(name: str) -> None:
    channels_in, channels_out, norm, mixup, noise, validation_noise, cut, sharpest, crop = OFFICIAL[name]
    recipe = read_recipe(name)
    assert [(row.iterations, row.patch, row.batch) for row in recipe.stage] == PAPER
    assert cosine_split(recipe) == (92_000, 208_000)
    knots = {1: 3e-4, 92_001: 3e-4, 196_001: (3e-4 + 1e-6) / 2, 300_001: 1e-6}
    assert {t: learning_rate(t, recipe) for t in knots} == pytest.approx(knots)
    assert recipe.model == ModelConfig(
        in_channels=channels_in,
        out_channels=channels_out,
        norm=norm,  # pyright: ignore[reportArgumentType]
        dual_pixel=channels_in == 6,
    )
    assert recipe.optimizer.model_dump() == OPTIMIZER
    assert (recipe.loss.kind, recipe.ema.decay, recipe.seed) == ("l1", 0, 100)
    assert recipe.augment.model_dump() == {"flips": True, "mixup": mixup, "mixup_groups": 8, "balance": 0, "shrink": 0}
    if mixup:
        assert [row.batch // recipe.augment.mixup_groups for row in recipe.stage] == [8, 5, 4, 2, 1, 1]
    assert recipe.degrade.steps == noise
    assert (recipe.data.train.degraded is None) == bool(noise)
    assert recipe.data.validate_ is not None
    assert (recipe.data.validate_.degraded is None) == bool(noise)
    assert [bool(row.right) for row in (recipe.data.train, recipe.data.validate_)] == [channels_in == 6] * 2
    assert (recipe.data.cut and recipe.data.cut.model_dump()) == cut
    assert (recipe.data.sharpest, recipe.data.draw) == (sharpest, "pictures" if name == "derain" else None)
    assert recipe.validation.model_dump() == {
        "every": 4000, "crop": crop, "degrade": validation_noise, "channel": "y" if name == "derain" else "rgb",
    }  # fmt: skip
    assert recipe.checkpoint.every == 4000
    assert (recipe.task, recipe.name) == (name, name)
    assert recipe.expected
    assert "dB" in recipe.expected


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_official_recipe_says_only_what_differs_and_explains_itself(name: str) -> None:
    text = (RECIPES / f"{name}.toml").read_text(encoding="utf-8")
    recipe = read_recipe(name)
    plain = Recipe.model_validate({"task": "x", "data": {"train": {"clean": "c", "degraded": "d"}}})

    def leaves(values: dict[str, Any], *place: str) -> Iterator[tuple[str, ...]]:
        for key, value in values.items():
            yield from leaves(value, *place, key) if isinstance(value, dict) else [(*place, key)]

    default, said = plain.model_dump(by_alias=True), tomllib.loads(text)
    for place in leaves(said):
        if place[:2] not in (("data", "train"), ("data", "validate"), ("data", "cut")):
            standard, ours = default, recipe.model_dump(by_alias=True)
            standard["model"], ours["model"] = plain.model.to_dict(), recipe.model.to_dict()
            for part in place:
                standard, ours = standard[part], ours[part]
            assert ours != standard, place
    head = text.split("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"restormer train recipes/{name}.toml" in head
    assert "# Expected" in head
    for row in (recipe.data.train, recipe.data.validate_):
        for folder in (row.clean, row.degraded, row.right) if row else ():
            assert folder is None or folder in head, folder
