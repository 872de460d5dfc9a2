"""A recipe in, a run folder out; what is wrong with a recipe or its data is told at once, and nothing is left."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import imagecodecs
import pytest
from accelerate.state import AcceleratorState, PartialState
from typer.testing import CliRunner, Result

from restormer_cli.cli import app
from restormer_cli.model.weights import load_weights
from restormer_cli.recipe_files import read_recipe

SCRIPT = str(Path(sys.executable).parent / "restormer")
TINY = ("model.dim=2", "model.blocks=[0, 1, 0, 1]", "model.heads=[1, 1, 1, 1]", "model.refinement=1")
TWO_STAGES = "[{ iterations = 4, patch = 16, batch = 2 }, { iterations = 2, patch = 24, batch = 1 }]"  # 6 in all
SHORT = (*TINY, f"stage={TWO_STAGES}", "run.precision=fp32", "validation.every=4", "validation.crop=16")


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """accelerate remembers a process's first device and precision."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)
    PartialState._reset_state()


def train(*arguments: object, changes: tuple[str, ...] = ()) -> Result:
    sets = [part for change in changes for part in ("--set", change)]
    return CliRunner().invoke(app, ["train", "--device", "cpu", *map(str, arguments), *sets])


def refused(result: Result, code: int = 2) -> str:
    """The one line of a refusal, and nothing else before it but what will be trained."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    *before, line = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(words.startswith(("training ", "expected: ")) for words in before)
    return line


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def here(empty: Path, write_png) -> Path:
    """A folder to be in, with recipe.toml and clean pictures for it."""
    for name in ("a", "b"):
        write_png(empty / "clean" / f"{name}.png", 40, 48)
    changes = "".join(f"{change}\n" for change in TINY).replace("model.", "")
    (empty / "recipe.toml").write_text(
        f'task = "denoise"\n[model]\n{changes}[data]\ntrain = {{ clean = "clean" }}\nvalidate = {{ clean = "clean" }}\n'
        '[degrade]\nsteps = ["gaussian:25"]\n[optimizer]\nlr = 1e-2\n[validation]\nevery = 4\ncrop = 16\n'
        "[[stage]]\niterations = 4\npatch = 16\nbatch = 2\n[[stage]]\niterations = 2\npatch = 24\nbatch = 1\n"
    )
    return empty


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# --- The literal command --------------------------------------------------------------------------------------

COLD = """
import sys
sys.argv = ["restormer", *sys.argv[1:]]
from restormer_cli.cli import main
try:
    main()
finally:
    print("loaded:", *(name for name in ("torch", "accelerate") if name in sys.modules), file=sys.stderr)
"""


def test_the_literal_command_in_an_empty_folder(empty):
    """`restormer train recipes/defocus.toml`, as a person types it who does not have the data."""
    done = subprocess.run([SCRIPT, "train", "recipes/defocus.toml"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: recipe defocus: its data are not here; missing folders: ")
    for folder in ("train/inputC", "train/target", "val/inputC", "val/target"):
        assert f"datasets/DPDD/{folder}" in line
    assert line.endswith("restormer train recipes/quick/denoise.toml")
    assert "\x1b" not in line
    assert list(empty.iterdir()) == []


def test_missing_data_are_told_at_once_without_torch(empty):
    command = [sys.executable, "-c", COLD, "train", "recipes/defocus.toml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "loaded:"


def test_the_command_that_the_error_names_is_a_bundled_recipe(empty):
    """It gets as far as the run folder, which is in use."""
    (empty / "taken").mkdir()
    (empty / "taken" / "file").write_text("")
    line = refused(train("recipes/quick/denoise.toml", "--out", "taken"))
    assert line == "error: taken: is not empty: go on with --resume, or choose another --out"


# --- Recipes that are wrong -----------------------------------------------------------------------------------


def test_an_unknown_recipe_names_the_nearest(empty):
    line = refused(train("defocsu"))
    assert line.startswith("error: no recipe 'defocsu': did you mean defocus?")
    assert "quick/denoise" in line


@pytest.mark.parametrize("name", ["quick/denoise", "recipes/quick/denoise.toml", "./recipes/quick/denoise.toml"])
def test_a_recipe_that_is_not_here_is_the_bundled_one_of_its_name(empty, name):
    line = refused(train(name, "--out", "run", changes=("stage.0.patch=100",)))
    assert line.endswith("quick/denoise.toml: stage.0.patch = 100: must be a multiple of 8")


def test_a_recipe_that_is_here_comes_before_the_bundled_one(empty):
    (empty / "defocus").write_text("mistake = [")
    assert refused(train("defocus")).startswith("error: defocus: not valid TOML: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimiser.lr=1e-4", "unknown key optimiser; nearest: optimizer"),
        ("optimizer.rl=1e-4", "unknown key optimizer.rl; nearest: optimizer.lr"),
        ("stage.0.patches=64", "unknown key stage.0.patches; nearest: stage.0.patch"),
        ("model.dims=8", "unknown key model.dims; nearest: model.dim"),
        ("stage.0.patch=20", "stage.0.patch = 20: must be a multiple of 8"),
        ("stage.7.patch=16", "--set stage.7.patch=16: the recipe has no key stage.7.patch"),
        ("optimizer.lr", "--set optimizer.lr: write KEY=VALUE, as in --set optimizer.lr=1e-4"),
        ("optimizer.lr=fast", "optimizer.lr = 'fast': Input should be a valid number"),
        ("model.heads=[1, 1, 3, 1]", "heads = 3 at level 3 do not divide its 8 channels"),
        ('degrade.steps=["blur:2"]', "blur"),
        ("run.precision=fp16", "run.precision = 'fp16': Input should be 'auto', 'fp32' or 'bf16'"),
    ],
)
def test_a_mistake_in_the_recipe_is_one_line(here, change, message):
    assert message in refused(train("recipe.toml", "--out", "run", changes=(change,)))
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "toaster"), "--device toaster: unknown"),
        (("--device", "cuda:77"), "--device cuda:77: not on this machine"),
        (("--precision", "fp16"), "run.precision = 'fp16'"),
    ],
)
def test_options_that_cannot_be_met(here, arguments, message):
    assert message in refused(train("recipe.toml", "--out", "run", *arguments))
    assert not (here / "run").exists()


@pytest.mark.parametrize("option", [("--stop-after", "0"), ("--seed", "-1")])
def test_numbers_out_of_range_are_usage_errors(here, option):
    result = train("recipe.toml", *option)
    assert result.exit_code == 2
    assert option[0] in result.stderr


def test_data_that_are_no_pictures(here):
    (here / "clean" / "a.png").write_bytes(b"nothing of the kind")
    assert "clean/a.png: " in refused(train("recipe.toml", "--out", "run"))
    assert not (here / "run").exists()


def test_a_run_folder_below_a_file(here):
    line = refused(train("recipe.toml", "--out", "recipe.toml/run"))
    assert line == "error: recipe.toml/run: cannot hold a run: Not a directory"


# --- Runs -----------------------------------------------------------------------------------------------------


def test_a_run_leaves_weights_that_restore(here, write_png):
    result = train("recipe.toml", "--seed", "7")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "\x1b" not in result.stderr
    assert "training recipe (denoise) for 6 iterations into runs/recipe" in result.stderr
    assert "       4  validation " in result.stderr
    assert result.stderr.splitlines()[-1] == "weights: runs/recipe/weights.safetensors"
    run = here / "runs" / "recipe"
    assert [entry["iteration"] for entry in metrics(run) if "iteration" in entry] == [1, 2, 3, 4, 5, 6]
    assert [entry["validation"] for entry in metrics(run) if "validation" in entry] == [4, 6]
    assert read_recipe(str(run / "recipe.toml")).seed == 7
    assert [path.name for path in run.rglob("*.part")] == []

    source = write_png(here / "noisy.png", 13, 9)
    arguments = ["restore", str(source), "clean.png", "--weights", str(run / "weights.safetensors"), "--device", "cpu"]
    restored = CliRunner().invoke(app, arguments)
    assert restored.exit_code == 0, restored.output
    assert imagecodecs.png_decode((here / "clean.png").read_bytes()).shape == (13, 9, 3)
    assert load_weights(run / "weights.safetensors").task == "denoise"


def test_the_quick_recipe_cut_short_on_its_own_pictures(here):
    only = ("data.train.exclude=[]", 'data.train.only=["coffee"]', 'data.validate.only=["camera"]')
    result = train("quick/denoise", "--out", "run", changes=(*SHORT, *only))
    assert result.exit_code == 0, result.output
    weights = load_weights(here / "run" / "weights.safetensors")
    assert weights.config.dim == 2
    assert weights.header["training"]["iterations"] == 6


def test_stopping_and_going_on_ends_where_one_go_ends(here):
    assert train("recipe.toml", "--out", "whole").exit_code == 0
    stopped = train("recipe.toml", "--out", "parts", "--stop-after", "3")
    assert stopped.exit_code == 0, stopped.output
    assert [entry["iteration"] for entry in metrics(here / "parts") if "iteration" in entry] == [1, 2, 3]
    resumed = train("recipe.toml", "--out", "parts", "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert [entry["iteration"] for entry in metrics(here / "parts") if "iteration" in entry] == [1, 2, 3, 4, 5, 6]
    whole, parts = (load_weights(here / name / "weights.safetensors").model for name in ("whole", "parts"))
    for (key, a), b in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert a.equal(b), key

    again = train("recipe.toml", "--out", "parts", "--resume")  # finished already
    assert again.exit_code == 0, again.output
    assert len(metrics(here / "parts")) == len(metrics(here / "whole")) + 1  # the validation where it stopped


def test_a_run_folder_in_use_is_refused_and_left_alone(here):
    (here / "run").mkdir()
    (here / "run" / "precious.txt").write_text("mine")
    line = refused(train("recipe.toml", "--out", "run"))
    assert line == "error: run: is not empty: go on with --resume, or choose another --out"
    assert [path.name for path in (here / "run").iterdir()] == ["precious.txt"]


def test_another_recipe_does_not_go_on_with_a_run(here):
    assert train("recipe.toml", "--out", "run", "--stop-after", "1").exit_code == 0
    line = refused(train("recipe.toml", "--out", "run", "--resume", changes=("optimizer.lr=1e-3",)))
    assert line == (
        "error: run: was trained with another recipe: optimizer.lr 0.01 -> 0.001. "
        "Undo that, or go on with --accept-changes"
    )


def test_flags_override_the_recipe(here):
    result = train("recipe.toml", "--out", "run", "--seed", "3", "--precision", "bf16", "--stop-after", "1")
    assert result.exit_code == 0, result.output
    resolved = read_recipe(str(here / "run" / "recipe.toml"))
    assert (resolved.seed, resolved.run.precision) == (3, "bf16")
    assert json.loads((here / "run" / "environment.json").read_text())["device"] == "cpu"


# --- The plan -------------------------------------------------------------------------------------------------


def test_a_plan_is_printed_and_nothing_is_done(empty, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = train("defocus", "--plan", "--devices", "8")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("defocus (defocus): 300,000 iterations, 11,040,000 pictures, 8 devices, fp32\n")
    for part in ("26,126,644 parameters", "140.99 G", "= 5 × 8 × 1", "384²", "5,888,000", "1e-06 at 300,000", " GB\n"):
        assert part in result.stdout, part
    assert "not here yet: datasets/DPDD/train/inputC, " in result.stdout
    assert "= 32 × 2 × 1" in train("defocus", "--plan").stdout  # as many as it is launched on
    assert list(empty.iterdir()) == []


def test_a_plan_with_an_uneven_batch_stops_unless_told_otherwise(here):
    uneven = train("recipe.toml", "--plan", "--devices", "2")
    assert "1 device" not in uneven.stdout
    line = refused(uneven)
    assert "batch of 1 on 2 devices" in line
    changes = ("stage.1.batch=3",)
    line = refused(train("recipe.toml", "--plan", "--devices", "2", changes=changes))
    assert line.endswith(
        "3 (stage.1); make them multiples of 2, or let some devices wait for others with --set run.uneven=true"
    )
    allowed = train("recipe.toml", "--plan", "--devices", "2", changes=(*changes, "run.uneven=true"))
    assert allowed.exit_code == 0
    assert "warning: in stages 1 some of 2 devices wait for others" in allowed.stdout


def test_devices_belong_to_the_plan(here):
    assert "--devices belongs to --plan" in refused(train("recipe.toml", "--devices", "2"))


# --- Paired data ----------------------------------------------------------------------------------------------


@pytest.fixture
def dpdd(empty: Path, samples) -> Path:
    """Folders as the defocus recipe names them; a pair's photographs have different numbers, as in DPDD."""
    for role, count in (("train", 3), ("val", 1)):
        for number in range(count):
            sharp = samples(48 + 8 * number, 64)
            for folder, name, pixels in (
                ("target", f"1P{2 * number}", sharp),
                ("inputC", f"1P{2 * number + 1}", sharp // 2),
            ):
                path = empty / "datasets" / "DPDD" / role / folder / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(imagecodecs.png_encode(pixels))
    return empty / "datasets" / "DPDD"


def test_the_defocus_recipe_literally_cut_short_leaves_weights_that_restore(dpdd, empty, write_png):
    """`restormer train recipes/defocus.toml`, on a folder of its shape; only sizes and numbers are made small."""
    changes = (
        *(
            f"stage.{row}.{key}={value}"
            for row in range(6)
            for key, value in (("iterations", 1), ("patch", 16 + 8 * (row > 2)), ("batch", 2))
        ),
        *TINY,
    )
    done = train("recipes/defocus.toml", "--stop-after", "4", changes=changes)
    assert done.exit_code == 0, done.output
    assert "training defocus (defocus) for 6 iterations into runs/defocus" in done.stderr
    run = empty / "runs" / "defocus"
    lines = [entry for entry in metrics(run) if "iteration" in entry]
    assert [(entry["iteration"], entry["patch"], entry["batch"]) for entry in lines] == [
        (1, 16, 2), (2, 16, 2), (3, 16, 2), (4, 24, 2),
    ]  # fmt: skip
    source = write_png(empty / "blurred.png", 21, 13)
    restore = ["restore", str(source), "sharp.png", "--weights", str(run / "weights.safetensors"), "--device", "cpu"]
    result = CliRunner().invoke(app, restore)
    assert result.exit_code == 0, result.output
    assert imagecodecs.png_decode((empty / "sharp.png").read_bytes()).shape == (21, 13, 3)


def test_every_problem_with_the_pairs_is_told_at_once_and_without_torch(dpdd, empty):
    (dpdd / "train" / "inputC" / "1P9.png").write_bytes(b"")
    (dpdd / "val" / "target" / "1P8.png").write_bytes(b"")
    done = subprocess.run([sys.executable, "-c", COLD, "train", "defocus"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    line, loaded = done.stderr.splitlines()
    assert loaded == "loaded:"
    assert line.startswith("error: [data] 2 problems: train: datasets/DPDD/train/target has 3 pictures, ")
    assert "; validate: datasets/DPDD/val/target has 2 pictures, " in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("model.in_channels=6", "model.dual_pixel=true"), "takes 6 channels, but data.train gives 3: name the left"),
        (('data.train.right="datasets/DPDD/train/inputC"',), "train.right gives 6 channels, but the network takes 3"),
        (("data.train.match=name",), "train: 1P1 has no partner in datasets/DPDD/train/target"),
        (("data.train.only=['x']",), "no picture named 'x'"),
    ],
)  # fmt: skip
def test_data_that_do_not_fit_the_recipe_are_one_line(dpdd, empty, changes, message):
    assert message in refused(train("defocus", "--out", "run", changes=changes))
    assert not (empty / "run").exists()


def test_a_dual_pixel_recipe_trains_on_triples(dpdd, empty):
    for role in ("train", "val"):
        shutil.copytree(dpdd / role / "inputC", empty / "datasets" / "DPDD16" / role / "inputL")
        shutil.copytree(dpdd / role / "inputC", empty / "datasets" / "DPDD16" / role / "inputR")
        shutil.copytree(dpdd / role / "target", empty / "datasets" / "DPDD16" / role / "target")
    changes = (*TINY, "stage=[{ iterations = 1, patch = 16, batch = 2 }]")
    result = train("defocus-dual-pixel", "--out", "run", changes=changes)
    assert result.exit_code == 0, result.output
    assert load_weights(empty / "run" / "weights.safetensors").config.in_channels == 6


def test_pictures_and_pairs_that_cannot_be_used_are_all_listed(dpdd, empty, write_png):
    (dpdd / "train" / "inputC" / "1P1.png").write_bytes(b"nothing of the kind")
    write_png(dpdd / "train" / "target" / "1P4.png", 30, 64)
    line = refused(train("defocus", "--out", "run"))
    assert line.startswith("error: [data] 2 problems: train: ")
    assert "inputC/1P1.png: " in line
    assert "inputC/1P5.png is 64×64, but datasets/DPDD/train/target/1P4.png is 64×30" in line
    assert not (empty / "run").exists()
