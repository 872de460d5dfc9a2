"""The verb: literally as written, resumable, on equal terms, and honest about what it found."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from typer.testing import CliRunner, Result

from restormer_cli.cli import app
from restormer_cli.commands.ablate import interleaved
from restormer_cli.commands.ablate.interleaved import fit_lengths
from restormer_cli.commands.ablate.measure import source_of
from restormer_cli.commands.ablate.plan import start
from restormer_cli.commands.ablate.types import InferenceCost, Request
from restormer_cli.data.batches import TrainingBatches
from restormer_cli.errors import UserError
from restormer_cli.model.weights import load_weights
from restormer_cli.training import trainer

SMALL = "model.blocks=[0, 1, 0, 1],model.heads=[1, 1, 1, 1],model.refinement=0,model.dim"
NARROW, WIDE = f"--arm=narrow:{SMALL}=4", f"--arm=wide:{SMALL}=6"
TWO = (NARROW, "vs", WIDE, "--any-budget")


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """accelerate remembers a process's first device and precision."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)
    PartialState._reset_state()


def made_up(started, arms) -> Iterator[InferenceCost]:
    yield from (InferenceCost(arm.name, 0.5 + index, 10**8, 512) for index, arm in enumerate(arms))


@pytest.fixture(autouse=True)
def prices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh processes for timing take seconds each; one slow test has them."""
    monkeypatch.setattr("restormer_cli.commands.ablate.ablation.price", made_up)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figure and page take as long as the trainings here; `ablation` has them."""
    for name in ("write_figure", "write_page"):
        monkeypatch.setattr(f"restormer_cli.commands.ablate.page.{name}", lambda *_: None)


def fill(folder: Path, write_png) -> Path:
    """A folder with photographs to train on and to score on."""
    for role, count in (("train", 2), ("validate", 3)):
        for number in range(count):
            write_png(folder / role / f"p{number}.png", 40 + 8 * number, 48)
    return folder


def write_recipe(folder: Path, name: str, dim: int = 4, scored: str = "validate", more: str = "") -> None:
    """A recipe of 20 iterations on the photographs of `fill`."""
    (folder / f"{name}.toml").write_text(
        f'task = "denoise"\n[model]\ndim = {dim}\nblocks = [0, 1, 0, 1]\nheads = [1, 1, 1, 1]\nrefinement = 0\n'
        f'[data]\ntrain = {{ clean = "train" }}\nvalidate = {{ clean = "{scored}" }}\n'
        '[degrade]\nsteps = ["gaussian:25"]\n[schedule]\nconstant = 10\n'
        f"[[stage]]\niterations = 20\npatch = 16\nbatch = 2\n{more}"
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_png) -> Path:
    """A folder to be in."""
    monkeypatch.chdir(tmp_path)
    return fill(tmp_path, write_png)


@dataclass(frozen=True)
class Ablation:
    """One that several tests look at."""

    folder: Path
    document: dict
    batches: list[tuple[int, dict[int, float]]]
    """A seed, and what was seen at each iteration, of every training."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, write_png) -> Ablation:
    """Two arms and two seeds with figure and page, the prices made up, and the batches watched."""
    folder = fill(tmp_path_factory.mktemp("ablation"), write_png)
    seen: dict[tuple[int, int], dict[int, float]] = {}
    batch = TrainingBatches.batch

    def watched(self, iteration, stage, rows):
        pair = batch(self, iteration, stage, rows)
        seen.setdefault((self.seed, id(self)), {})[iteration] = float(pair[0].sum() + 3 * pair[1].sum())
        kept.append(self)
        return pair

    kept: list[TrainingBatches] = []  # alive, so that no other has its id
    AcceleratorState._reset_state(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("restormer_cli.commands.ablate.ablation.price", made_up)
        patch.setattr(TrainingBatches, "batch", watched)
        document = answer(ablate(*TWO, "--json"))
    return Ablation(folder, document, [(seed, batches) for (seed, _), batches in seen.items()])


@pytest.fixture
def ablation(done: Ablation, monkeypatch: pytest.MonkeyPatch) -> Ablation:
    """The same, and one is in its folder."""
    monkeypatch.chdir(done.folder)
    return done


def ablate(*arguments: object, iterations: int = 4) -> Result:
    options = ["--data", "train", "--validate", "validate", "--device", "cpu", "--precision", "fp32"]
    options += ["--iterations", iterations, "--set", "stage.0.patch=16", "--set", "stage.0.batch=2", "--crop", 32]
    return CliRunner().invoke(app, ["ablate", *map(str, (*arguments, *options))])


def answer(result: Result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(result: Result) -> str:
    """The one line of a refusal."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    *_, line = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


# --- The whole of it ------------------------------------------------------------------------------------------


def test_two_arms_end_in_two_finite_psnrs_a_verdict_a_figure_and_weights_that_restore(ablation, tmp_path):
    document, run = ablation.document, ablation.folder / "runs" / "narrow-vs-wide"
    assert [arm["name"] for arm in document["arms"]] == ["narrow", "wide"]
    assert all(np.isfinite(arm["psnr"]) for arm in document["arms"])
    assert document["schema"] == "restormer-ablate/1"
    assert "narrow" in document["verdict"]
    assert document["seeds"] == [100, 101]
    (difference,) = document["differences"]
    assert difference["low"] < difference["mean"] < difference["high"]
    assert document == json.loads((run / "result.json").read_text())
    assert (run / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "narrow" in (run / "report.html").read_text(encoding="utf-8")
    for arm in document["arms"]:
        for each in arm["runs"]:
            assert len(each["pictures"]) == 3
            assert each["curve"][-1][0] == each["iterations"] == 4
            assert load_weights(each["weights"]).config.to_dict() == arm["model"]
    weights, out = document["arms"][1]["runs"][0]["weights"], tmp_path / "out.png"
    done = CliRunner().invoke(app, ["restore", "validate/p0.png", str(out), "--weights", weights])
    assert done.exit_code == 0, done.output
    assert out.is_file()


def test_the_difference_is_that_of_the_pictures_paired_by_seed(ablation):
    document = ablation.document
    tables = [
        np.array([[picture["psnr"] for picture in run["pictures"]] for run in arm["runs"]]) for arm in document["arms"]
    ]
    assert tables[0].shape == (2, 3)
    assert document["differences"][0]["mean"] == pytest.approx((tables[0] - tables[1]).mean())


def test_arms_of_one_seed_see_the_same_patches_and_noise(ablation):
    for seed in (100, 101):
        first, second = (batches for own, batches in ablation.batches if own == seed)
        assert first == second
        assert sorted(first) == [1, 2, 3, 4]
    assert len({tuple(sorted(batches.items())) for _, batches in ablation.batches}) == 2


def test_equal_arms_learn_the_same_to_the_bit(here):
    """The same network under two names (another run.non_finite_steps changes nothing): equal weights, equal scores."""
    twin = f"--arm=twin:{SMALL}=4,run.non_finite_steps=7"
    document = answer(ablate(NARROW, "vs", twin, "--json", "--out", "run", "--seeds", 1))
    first, second = (load_weights(arm["runs"][0]["weights"]).model.state_dict() for arm in document["arms"])
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert document["differences"][0]["mean"] == 0
    assert "undecided" in document["verdict"]


def test_without_json_a_table_and_the_verdict_are_printed(here):
    result = ablate(*TWO, "--seeds", 1)
    assert result.exit_code == 0, result.output
    assert "| narrow" in result.stdout
    assert "Verdict: At compact scale, after 4 iterations, by 1 seed and 3 pictures: undecided" in result.stdout
    assert "One seed cannot tell" in result.stdout
    assert "0.5" in result.stdout


def test_named_arms_keep_their_order_and_the_papers_figures(here):
    sets = ("--set", "model.dim=4", "--set", "model.blocks=[0, 1, 0, 1]", "--set", "model.refinement=0")
    document = answer(ablate("--fn", "vs", "--gdfn", "vs", "--mdta", *sets, "--any-budget", "--json", "--seeds", 1))
    assert [arm["name"] for arm in document["arms"]] == ["fn", "gdfn", "mdta"]
    assert [arm["published"]["psnr"] for arm in document["arms"]] == [29.28, 29.54, 29.62]
    assert [arm["model"]["attention"] for arm in document["arms"]] == ["mta", "mta", "mdta"]
    assert len(document["differences"]) == 2


def test_global_and_local_share_their_training_and_differ_in_testing(here, monkeypatch):
    monkeypatch.setattr("restormer_cli.commands.ablate.plan.WINDOWS", {"compact": 16})
    sets = ("--set", "model.dim=4", "--set", "model.blocks=[0, 1, 0, 1]", "--set", "model.refinement=0")
    document = answer(ablate("--global", "vs", "--local", *sets, "--json", "--seeds", 1, "--out", "run"))
    assert [arm["window"] for arm in document["arms"]] == [None, 16]
    assert {arm["runs"][0]["weights"] for arm in document["arms"]} == {"run/global/seed-1/weights.safetensors"}
    assert document["arms"][0]["psnr"] != document["arms"][1]["psnr"]
    assert "trained once" in document["notes"][0]


def test_recipes_are_arms_and_the_first_ones_data_hold(here):
    write_recipe(here, "a")
    write_recipe(here, "b", 6, "train", '[teacher]\nweights = "denoise-fast"\nviews = 2\n')
    arguments = ["a.toml", "vs", "./b.toml", "--any-budget", "--json", "--seeds", "1", "--iterations", "4"]
    document = answer(CliRunner().invoke(app, ["ablate", *arguments, "--device", "cpu"]))
    assert [arm["name"] for arm in document["arms"]] == ["a", "b"]
    assert document["degradation"] == "gaussian:25"
    assert [run["iterations"] for arm in document["arms"] for run in arm["runs"]] == [4, 4]
    assert "b.toml: its [data] and [degrade] are not those of a.toml" in document["notes"][0]
    alone, resolved = ((here / "runs" / "a-vs-b" / arm / "seed-1" / "recipe.toml").read_text() for arm in "ab")
    assert "constant = 2" in resolved
    assert 'clean = "validate"' in resolved
    assert "[teacher]" in resolved
    assert "[teacher]" not in alone


def test_an_arm_that_learns_from_other_noise_is_scored_on_the_same(here):
    mild = 'mild:degrade.steps=["gaussian:5"]'
    for own, scored in (("", "gaussian:25"), ('[validation]\ndegrade = ["gaussian:50"]\n', "gaussian:50")):
        write_recipe(here, "b", more=own)
        base, arm = start(Request(("b.toml", "vs", "--arm", mild))).arms
        assert (base.recipe.degrade.steps, arm.recipe.degrade.steps) == (("gaussian:25",), ("gaussian:5",))
        assert str(source_of(base.recipe, 32).degradation) == str(source_of(arm.recipe, 32).degradation) == scored


def test_arms_keep_the_same_schedule_in_any_length(here):
    more = "[[stage]]\niterations = {0}\npatch = 32\nbatch = 1\n"
    write_recipe(here, "a", more=more.format(20))
    write_recipe(here, "b", more=more.format(60))  # twice as long, and its constant rate shorter by half
    words = ("a.toml", "vs", "--arm", "x:optimizer.lr=2e-3", "vs", "--progressive", "vs", "b.toml")
    for changes, total, constant in (((), None, 10), ((), 80, 20), (("schedule.constant=20",), 80, 40)):
        arms = start(Request(words, iterations=total, overrides=changes, any_budget=True)).arms
        assert {arm.recipe.iterations for arm in arms} == {total or 40}
        own = constant if changes else constant // 2
        assert [arm.recipe.schedule.constant for arm in arms] == [constant] * 3 + [own]
        assert arms[0].recipe.stage == arms[1].recipe.stage != arms[2].recipe.stage


def test_first_weights_of_another_network_are_refused_before_any_training(here):
    write_recipe(here, "a")
    (here / "b.toml").write_text('init = "denoise"\n' + (here / "a.toml").read_text())
    with pytest.raises(UserError, match=r"init = denoise: is another network than \[model\] describes"):
        start(Request(("a.toml", "vs", "b.toml")))


def test_only_the_papers_networks_have_its_figures(here):
    words = ("--deep-narrow", "vs", "--middle")
    assert [arm.published is None for arm in start(Request(words)).arms] == [False, False]
    for change in ('model.attention="mta"', "model.refinement=0"):
        plain = Request(words, overrides=(change,), any_budget=True)
        assert [arm.published is None for arm in start(plain).arms] == [True, True]


def test_plan_prints_budgets_and_does_nothing(here):
    result = ablate("--deep-narrow", "vs", "--wide-shallow", "--plan")
    assert result.exit_code == 0
    assert "1,741,360" in result.stdout
    assert "10.12" in result.stdout
    assert not (here / "runs").exists()


# --- Stopping and going on ------------------------------------------------------------------------------------


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """As if Ctrl-C came after so many steps, whoever takes them."""
    taken = 0
    step = interleaved.InterleavedTraining._tell

    def counting(self, lane, log):
        nonlocal taken
        yield from step(self, lane, log)
        taken += type(log).__name__ == "StepLog"
        if taken == after:
            self.stop.asked = True

    monkeypatch.setattr(interleaved.InterleavedTraining, "_tell", counting)


def test_a_stop_leaves_arms_at_equal_iterations_and_resume_ends_with_the_same_bits(here, monkeypatch):
    whole = answer(ablate(*TWO, "--json", "--out", "whole", "--seeds", 1, iterations=6))
    monkeypatch.setattr(interleaved, "TURN", 2)
    with monkeypatch.context() as patch:
        interrupted(patch, after=5)  # 2 and 2, then one of the first arm's third and fourth
        stopped = ablate(*TWO, "--json", "--out", "run", "--seeds", 1, iterations=6)
    assert stopped.exit_code == 130
    assert stopped.stdout == ""
    kept = {path.parent.parent.parent.name: int(path.stem) for path in (here / "run").rglob("checkpoints/*.pt")}
    assert kept == {"narrow": 4, "wide": 3}
    assert not (here / "run" / "result.json").exists()
    again = answer(ablate(*TWO, "--json", "--out", "run", "--seeds", 1, "--resume", iterations=6))
    for one, other in zip(whole["arms"], again["arms"], strict=True):
        for a, b in zip(one["runs"], other["runs"], strict=True):
            assert a["pictures"] == b["pictures"]
            assert a["curve"] == b["curve"]


def test_seeds_can_be_added_later_and_finished_ones_are_not_trained_again(here, monkeypatch):
    first = answer(ablate(*TWO, "--json", "--out", "run", "--seeds", 1))
    trained = []
    original = trainer.fit
    monkeypatch.setattr(
        interleaved, "fit", lambda recipe, *a, **k: trained.append(recipe.seed) or original(recipe, *a, **k)
    )
    second = answer(ablate(*TWO, "--json", "--out", "run", "--seeds", 2, "--resume"))
    assert trained == [101, 101]
    assert second["arms"][0]["runs"][0] == first["arms"][0]["runs"][0]
    assert second["seeds"] == [100, 101]


def test_arms_take_turns(here, monkeypatch):
    monkeypatch.setattr(interleaved, "TURN", 2)
    order = []
    tell = interleaved.InterleavedTraining._tell

    def watched(self, lane, log):
        if type(log).__name__ == "StepLog":
            order.append((lane.arm, log.iteration))
        yield from tell(self, lane, log)

    monkeypatch.setattr(interleaved.InterleavedTraining, "_tell", watched)
    answer(ablate(*TWO, "--json", "--seeds", 1))
    assert order == [
        ("narrow", 1),
        ("narrow", 2),
        ("wide", 1),
        ("wide", 2),
        ("narrow", 3),
        ("narrow", 4),
        ("wide", 3),
        ("wide", 4),
    ]


def test_a_folder_in_use_and_another_recipe_are_refused(ablation):
    assert "narrow-vs-wide: is not empty: go on with --resume, or choose another --out" in refused(ablate(*TWO))
    other = refused(ablate(*TWO, "--resume", "--set", "optimizer.lr=0.1"))
    assert "was trained with another recipe: optimizer.lr 0.001 -> 0.1. Undo that, or choose another --out" in other


# --- Equal time -----------------------------------------------------------------------------------------------


def test_equal_time_gives_the_cheaper_arm_more_iterations_and_keeps_that(here, monkeypatch):
    seconds = {4: 1.0, 6: 0.5}
    monkeypatch.setattr(interleaved, "_time_step", lambda learner, *_: seconds[learner.recipe.model.dim])
    document = answer(ablate(*TWO, "--json", "--out", "run", "--equal", "time", "--seeds", 1))
    assert [arm["runs"][0]["iterations"] for arm in document["arms"]] == [4, 8]
    assert "equal time" in document["verdict"]
    seconds[6] = 0.1  # a resumed run does not measure again: its schedule is under way
    again = answer(ablate(*TWO, "--json", "--out", "run", "--equal", "time", "--seeds", 2, "--resume"))
    assert [run["iterations"] for run in again["arms"][1]["runs"]] == [8, 8]


def test_a_teachers_answers_count_in_the_time(here, monkeypatch):
    now = 0.0

    class SlowTeacher:
        def __init__(self, *_):
            pass

        def targets(self, pairs, iteration):
            nonlocal now
            now += 5
            return pairs

    monkeypatch.setattr(interleaved, "Teacher", SlowTeacher)
    write_recipe(here, "a")
    started = start(Request(("a.toml", "vs", "--arm", "taught:teacher.weights=denoise"), iterations=4))
    seconds = interleaved.time_steps(started.trainings, Accelerator(cpu=True), lambda: now)
    assert seconds == {"a": 0, "taught": 5}


# --- Little time ----------------------------------------------------------------------------------------------


def test_a_slow_machine_shortens_every_training_alike_and_says_so(here, monkeypatch):
    seconds = {4: 6.0, 6: 4.0}
    monkeypatch.setattr(interleaved, "_time_step", lambda learner, *_: seconds[learner.recipe.model.dim])
    result = ablate(*TWO, "--json", "--out", "run", "--minutes", 1, iterations=8)
    document = answer(result)
    # Two seeds of 6 + 4 seconds an iteration: three iterations of each are a minute.
    assert [run["iterations"] for arm in document["arms"] for run in arm["runs"]] == [3] * 4
    assert [arm["stages"][0]["iterations"] for arm in document["arms"]] == [3, 3]
    assert document["iterations"] == 3
    assert "after 3 iterations" in document["verdict"]
    assert "shortened to 3 iterations: 8 would take about 2 min 40 s (--minutes 0" in result.stderr
    assert any("shortened from 8 to 3" in note for note in document["notes"])
    seconds[4] = 60.0  # a resumed run does not measure again
    again = answer(ablate(*TWO, "--json", "--out", "run", "--minutes", 1, "--seeds", 3, "--resume", iterations=8))
    assert [run["iterations"] for arm in again["arms"] for run in arm["runs"]] == [3] * 6


def test_what_was_shortened_goes_on_in_the_same_length_only(here, monkeypatch):
    monkeypatch.setattr(interleaved, "_time_step", lambda *_: 10.0)
    wanted = (*TWO, "--json", "--out", "run", "--seeds", 1)
    answer(ablate(*wanted, "--minutes", 1, iterations=8))
    for other in ((*wanted, "--minutes", 2), (*wanted, "--minutes", 0), (*wanted[:-1], 1, "--equal", "time")):
        line = refused(ablate(*other, "--resume", iterations=8))
        assert "by --equal iterations --minutes 1 for the arms narrow, wide: ask for the same again" in line
    also = ("--resume", "--set", "data.workers=2")  # which may differ
    again = answer(ablate(*wanted, "--minutes", 1, *also, iterations=8))
    assert [run["iterations"] for arm in again["arms"] for run in arm["runs"]] == [3] * 2


def test_only_what_nobody_chose_is_shortened(here, monkeypatch):
    monkeypatch.setattr(interleaved, "_time_step", lambda *_: 3600.0)
    document = answer(ablate(*TWO, "--json", "--seeds", 1))
    assert [run["iterations"] for arm in document["arms"] for run in arm["runs"]] == [4] * 2
    for words, minutes in (
        (("--deep-narrow", "vs", "--middle"), 13),
        (("--deep-narrow", "vs", "--middle", "--minutes", "0"), None),
        (("--deep-narrow", "vs", "quick/denoise", "--any-budget"), None),
    ):
        names = tuple(word for word in words if word not in ("--minutes", "0", "--any-budget"))
        request = Request(names, minutes=0 if "--minutes" in words else None, any_budget="--any-budget" in words)
        assert start(request).minutes == minutes


def test_lengths_share_the_time_out():
    seconds = {"deep": 3.0, "wide": 1.0}
    assert fit_lengths(100, seconds, equal="iterations", seeds=2, minutes=None).iterations == (
        ("deep", 100), ("wide", 100),
    )  # fmt: skip
    # Two seeds of 4 s: 8 s an iteration; ten minutes are 75.
    assert fit_lengths(100, seconds, equal="iterations", seeds=2, minutes=10).iterations == (("deep", 75), ("wide", 75))
    # In equal time both arms take what the first does: 12 s an iteration of its.
    found = fit_lengths(100, seconds, equal="time", seeds=2, minutes=10)
    assert (found.first, found.iterations, found.whole) == (50, (("deep", 50), ("wide", 150)), 1200)
    assert fit_lengths(100, seconds, equal="time", seeds=1, minutes=99).iterations == (("deep", 100), ("wide", 300))


# --- What is wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--deep-narrow"], "deep-narrow: is one arm only"),
        (["--deep-narrow", "--wide-shallow"], "one arm cannot be both"),
        (["--deep-narrow", "vs", "vs", "--wide-shallow"], "there is no arm between two vs"),
        (["--deep-narrow", "vs", "--deep-narrow"], "deep-narrow: is there twice"),
        (["--deep-narow", "vs", "--middle"], "did you mean --deep-narrow?"),
        (["--deep-narrow", "vs", "--refinement"], "deep-narrow and refinement: are the same arm here"),
        (["--mta", "vs", "--fn", "--scale", "huge"], "--scale huge: choose paper or compact"),
        (["--mta", "vs", "--fn", "--equal", "money"], "--equal money: choose iterations or time"),
        (["--mta", "vs", "--arm", "x:model.dims=3"], "unknown key model.dims; nearest: model.dim"),
        (["--mta", "vs", "--arm", "x:model.dim=3"], "dim = 3: must be even"),
        (
            ["--mta", "vs", "--arm", "x:seed=5"],
            "x: arms are scored alike, in seed too: change it for all, by --set",
        ),
        (["--mta", "vs", "--arm", "x:validation.channel=y"], "arms are scored alike, in validation too"),
        (["--mta", "vs", "--arm", 'x:data={train={clean="."},validate={clean="."}}'], "in data.validate too"),
        (["--mta", "vs", "--arm", "x:teacher.weights=nowhere.pth"], "nowhere.pth: no such weights file"),
        (["--mta", "vs", "--arm", "x:data.train.clean=nowhere"], "missing folders: nowhere"),
        (["--mta", "vs", "--fn", "--plan", "--json"], "--plan --json: the plan is a table"),
        (["--mta", "vs", "nowhere.toml"], "no recipe 'nowhere.toml'"),
        (["--mta", "vs", "--fn", "--data", "nowhere"], "missing folders: nowhere"),
        (["--mta", "vs", "--fn", "--crop", "13"], "--crop 13: a multiple of 8"),
        (["--mta", "vs", "--fn", "--device", "warp"], "--device warp: unknown"),
        (["--mta", "vs", "--fn", "--report", "page.pdf"], "--report page.pdf: is a web page"),
        (
            ["--deep-narrow", "vs", "--wide-shallow", "--scale", "paper"],
            "missing folders: datasets/DFWB, datasets/Urban100",
        ),
    ],
    ids=" ".join,
)
def test_mistakes_are_one_line_with_a_cure_and_leave_nothing(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(CliRunner().invoke(app, ["ablate", *arguments]))
    assert list(tmp_path.iterdir()) == []


def test_budgets_that_are_apart_are_refused_with_the_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(CliRunner().invoke(app, ["ablate", "--concat", "vs", "--no-concat"]))
    assert "the budgets differ by more than 10%: convolution GMACs: concat " in line
    assert line.endswith("--any-budget compares them nevertheless")
    for pair in (("--deep-narrow", "--wide-shallow"), ("--mdta", "--fn"), ("--gfn", "--dfn")):
        planned = CliRunner().invoke(app, ["ablate", pair[0], "vs", pair[1], "--plan"])
        assert planned.exit_code == 0, planned.output


def test_every_pair_of_the_papers_is_within_budget_at_both_scales(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3] / "scripts" / "measure"))
    from compact_arms import cost

    from restormer_cli.commands.ablate.arms import network
    from restormer_cli.model.config import ModelConfig

    for scale in ("paper", "compact"):
        for names in ("deep-narrow middle wide-shallow", "mdta mta", "gdfn gfn dfn fn", "with-bias bias-free"):
            costs = [cost(ModelConfig(**network([name], scale))) for name in names.split()]
            for column in ("parameters", "conv_macs", "macs"):
                values = [getattr(each, column) for each in costs]
                assert max(values) <= 1.1 * min(values), (scale, names, column)


def test_help_lists_every_arm_with_a_line():
    from restormer_cli.commands.ablate.arms import CHOICES

    shown = CliRunner().invoke(app, ["ablate", "--help"]).stdout
    for choice in CHOICES.values():
        assert f"{choice.flag} " in shown
        assert choice.help in shown


# --- Several processes, and the real thing ----------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_give_the_scores_of_one(here):
    options = [*TWO, "--json", "--data", "train", "--validate", "validate", "--device", "cpu", "--precision", "fp32"]
    options += ["--iterations", "6", "--set", "stage.0.patch=16", "--set", "stage.0.batch=2", "--crop", "32"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    documents = []
    for launcher, out in ((["-m"], "one"), ([*torchrun[1:], "-m"], "two")):
        command = [sys.executable, *launcher, "restormer_cli", "ablate", *options, "--out", out]
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=280, env=os.environ)
        assert done.returncode == 0, done.stderr
        documents.append(json.loads(done.stdout))
    for one, two in zip(*(document["arms"] for document in documents), strict=True):
        assert two["psnr"] == pytest.approx(one["psnr"], abs=1e-3)
        assert two["seconds_per_megapixel"] > 0
        assert two["peak"] > 10**7
    assert [row["name"] for row in documents[1]["arms"]] == ["narrow", "wide"]
