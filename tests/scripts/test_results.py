"""The comparisons can be run, are run once, and are told as they came out."""

import csv
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from restormer_cli.benchmark.classical import METHODS
from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.model.cards import bundled_cards
from restormer_cli.recipe_files import bundled_recipes, read_recipe

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "results"
sys.path.insert(0, str(SCRIPTS))
try:
    import bundle
    import result_pages
    import results
    import strengths
    import thresholds
finally:
    sys.path.remove(str(SCRIPTS))

ROWS = {row["key"]: row for row in strengths.read_rows()}


def document(**means: float | None) -> dict:
    """What bench would say: a contestant of each name with a mean PSNR; `input` is the degraded picture."""
    summaries = [
        {
            "group": None,
            "contestant": None
            if name == "input"
            else {"name": name, "kind": name.split("_")[0], "tile": 256 if "_" in name else None, "strength": 1.5},
            "measures": {"psnr": {"mean": mean, "deviation": 0.5}, "ssim": {"mean": 0.9, "deviation": 0.1}},
            "seconds_per_megapixel": None if name == "input" else 2.0 if name == "restormer" else 44.0,
        }
        for name, mean in means.items()
    ]
    machine = {"processor": "abacus", "instructions": "beads", "threads": 2, "libraries": {"torch": "1"}, "load": 0.1}
    return {"machine": machine, "quality": {"summaries": summaries, "failed": 0, "crop": 512}}


def measured(key: str, **means: float | None) -> result_pages.Measured:
    return result_pages.Measured(ROWS[key], ["restormer", "bench"], document(**means))


@pytest.mark.parametrize("row", ROWS.values(), ids=str)
def test_every_comparison_can_be_run_and_has_its_place_on_the_page(row):
    parse_degradation(row["degrade"])
    assert f"compact/{row['task']}" in bundled_recipes()
    assert set(row["against"]) <= METHODS.keys()
    assert row["than"] in (*row["against"], "input", "clean", "whole")
    text = result_pages.COMPARISONS.read_text(encoding="utf-8")
    assert text.count(f"<!-- {row['key']} -->") == text.count(f"<!-- /{row['key']} -->") == 1


def test_every_method_has_a_strength_that_was_tuned_on_training_photographs():
    found = json.loads(strengths.STRENGTHS.read_text())
    for row in ROWS.values():
        for name in row["against"]:
            assert found["strengths"][row["degrade"]][name] > 0
    listed = (SCRIPTS.parent / "photographs.csv").read_text(encoding="utf-8")
    for name in found["tuned_on"]["photographs"]:
        package = name.partition("--")[0]
        assert f"train,debian,{package}," in listed or f"train,pypi,{package}," in listed
        assert f"validate,debian,{package}," not in listed


def test_recipes_and_checkpoints_name_every_licence_of_the_photographs():
    for name, path in bundled_recipes().items():
        if name.startswith(("compact/", "gpu/")):
            sharp = "datasets/sharp" in path.read_text(encoding="utf-8")
            lists = "both" if name.endswith("denoise-fast") else "sharp" if sharp else "photographs"
            assert read_recipe(str(path)).licence == bundle.LICENCES[lists], name
            assert sharp or not name.startswith("gpu/")
    for card in bundled_cards():
        assert card.header["licence"] == bundle.LICENCES["both" if card.name == "denoise-fast" else "sharp"]
    for name, lists in (("photographs", "photographs"), ("sharp_photographs", "sharp")):
        licence = bundle.LICENCES[lists]
        assert licence.endswith(f"scripts/{name}.csv")
        with (SCRIPTS.parent / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
            found = " ".join({row["licence"] for row in csv.DictReader(stream) if row["role"] == "train"})
        for word in set(re.findall(r"LGPL|GPL|CC-BY-SA|CC-BY|CC0|MIT|GFDL|Pexels|Unsplash|Unlicense", found)):
            assert word in licence
            assert word in bundle.BOTH_LICENCE


def test_a_command_gives_the_tuned_strengths_and_the_protocol():
    strengths = {"gaussian:25": {"bm3d": 1.15}}
    command = " ".join(results.command_of(ROWS["denoise-25"], Path("photos"), 512, strengths))
    assert command.startswith("restormer bench denoise --clean photos --degrade gaussian:25 --crop 512")
    assert command.endswith("--against bm3d=1.15,nl-means,tv,wavelet,bilateral")
    assert "--protocol" not in command  # the published noise has its own
    assert "--protocol plain" in " ".join(results.command_of(ROWS["derain"], Path("photos"), 0, {}))
    samples = results.command_of(ROWS["sample-25"], Path("photos"), 512, strengths)
    assert samples[3:5] == ["--clean", "docs/originals"]
    assert "--crop" not in samples
    tiles = results.command_of(ROWS["denoise-tiles"], Path("photos"), 512, {})
    assert "--crop" not in tiles
    assert tiles[-2:] == ["--tile", "0,256,512"]


def test_a_comparison_is_measured_once_for_each_weights_and_command(tmp_path, monkeypatch):
    runs = []

    def run(command, **_):
        runs.append(command)
        return SimpleNamespace(returncode=0, stdout=json.dumps(document(input=20.0, restormer=30.0)))

    monkeypatch.setattr(results.subprocess, "run", run)
    monkeypatch.setattr(results, "weights_hash", lambda task: "one")
    row, kept = ROWS["denoise-25"], tmp_path / "results" / "denoise-25.json"
    for command, count in ((["a"], 1), (["a"], 1), (["b"], 2), (["b"], 2)):
        assert results.measure(row, command, kept, again=False).psnr("restormer") == 30
        assert len(runs) == count
    assert results.load(row, kept) is not None
    monkeypatch.setattr(results, "weights_hash", lambda task: "other")
    assert results.load(row, kept) is None
    results.measure(row, ["b"], kept, again=False)
    results.measure(row, ["b"], kept, again=True)
    assert len(runs) == 4


@pytest.mark.parametrize(
    ("key", "means", "words"),
    [
        ("denoise-25", {"input": 20, "restormer": 37.5, "bm3d": 36.7, "tv": 30}, "+0.80 dB | aim"),
        ("denoise-25", {"input": 20, "restormer": 37.2, "bm3d": 36.7}, "+0.50 dB | held"),
        ("denoise-25", {"input": 20, "restormer": 37.0, "bm3d": 36.7}, "+0.30 dB | **short**"),
        ("denoise-clean", {"input": None, "restormer": 43.0}, "43.0 dB | held"),
        ("denoise-clean", {"input": None, "restormer": 39.9}, "39.9 dB | **short**"),
        ("denoise-tiles", {"restormer": 37, "restormer_256": 37.04, "restormer_512": 37.01}, "+0.04 dB | held"),
        ("denoise-tiles", {"restormer": 37, "restormer_256": 37.14, "restormer_512": 36.9}, "**short**"),
        ("denoise-tiles", {"restormer": 37, "restormer_256": 37.054, "restormer_512": 37}, "+0.054 dB | **short**"),
        ("derain", {"input": 25, "restormer": 31.5, "opening": 28}, "+6.50 dB | held"),
        ("denoise-jpeg", {"input": 25, "restormer": 25, "bm3d": 28}, "+0.00 dB | held"),
    ],
)  # fmt: skip
def test_a_verdict_holds_what_was_measured_against_what_must_be(key, means, words):
    (line,) = result_pages.verdicts([ROWS[key]], {key: measured(key, **means)}).splitlines()[2:3]
    assert words in line


def test_speed_is_a_verdict_of_its_own_and_what_is_not_measured_is_said():
    lines = result_pages.verdicts([ROWS["denoise-25"]], {"denoise-25": measured("denoise-25", restormer=37, bm3d=36)})
    assert "| 10.0 × | 30.0 × | 22.0 × | held |" in lines
    assert "Not measured on these weights: Rain near and far." in result_pages.verdicts([ROWS["derain"]], {})


def test_a_table_has_the_input_the_best_rival_and_the_command():
    one = measured("denoise-25", input=20.25, restormer=37.5, bm3d=36.7, tv=30.0)
    text = result_pages.table(one)
    assert text.startswith("    restormer bench\n")
    assert "| input | 20.25 ± 0.50 |  | 0.9000 |  |" in text
    assert "| bm3d (strength 1.5) | 36.70 ± 0.50 | +16.45 | 0.9000 | 44 |" in text
    assert one.rival is not None
    assert one.rival["name"] == "bm3d"
    assert measured("denoise-clean", input=None, restormer=43).rival is None


def test_a_block_is_replaced_between_its_markers_and_nothing_else():
    text = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- xy -->\nstays\n<!-- /xy -->\n"
    once = result_pages.replace_block(text, "x", r"new \1")
    assert once == "a\n<!-- x -->\n\nnew \\1\n\n<!-- /x -->\nb\n<!-- xy -->\nstays\n<!-- /xy -->\n"
    assert result_pages.replace_block(once, "x", r"new \1") == once
    with pytest.raises(SystemExit, match="no place <!-- z -->"):
        result_pages.replace_block(text, "z", "")


def test_tables_on_the_pages_are_the_measured_ones():
    text = (result_pages.DOCS / "results.md").read_text(encoding="utf-8")
    assert result_pages.block(text, "tasks").strip() == result_pages.task_table()
    for card in bundled_cards():
        assert (result_pages.DOCS / "cards" / f"{card.name}.md").read_text(encoding="utf-8") == result_pages._card(card)


def test_rows_of_weights_that_have_not_changed_stay_as_they_were(tmp_path, monkeypatch):
    """Documents may be gone; the page, and the hash beside it, are not."""
    monkeypatch.setattr(result_pages, "MEASURED", tmp_path / "measured.json")
    monkeypatch.setattr(result_pages, "CHECKPOINTS", tmp_path)
    for task in ("derain", "defocus"):
        (tmp_path / f"{task}.safetensors").write_bytes(task.encode())
    rows = [ROWS["derain"], ROWS["defocus-3"]]
    both = {row["key"]: measured(row["key"], input=25, restormer=32, opening=28, wiener=30) for row in rows}
    result_pages.write_measured(rows, both, frozenset(), {"derain": [], "defocus": []})
    before = result_pages.verdicts(rows, both)
    (tmp_path / "defocus.safetensors").write_bytes(b"trained again")
    kept = result_pages.kept_rows(rows, {})
    assert kept == {"derain"}
    after = result_pages.verdicts(rows, {}, kept, before).splitlines()
    assert after[2] == before.splitlines()[2]
    assert after[-1].startswith("Not measured")
    assert after == result_pages.verdicts(rows, {}, kept, "\n".join(after)).splitlines()
    assert result_pages.conditions({}, kept, result_pages.conditions(both)).endswith("(derain).")
    result_pages.write_measured(rows, {}, kept, {"derain": [], "defocus": []})
    found = json.loads((tmp_path / "measured.json").read_text(encoding="utf-8"))
    assert [len(found[task]["results"]) for task in ("derain", "defocus")] == [1, 0]


def test_a_threshold_lets_no_clean_picture_pass_that_is_not_worth_it():
    rng = np.random.default_rng(0)
    defect = np.arange(400) < 100
    signs = rng.normal(0, 1, (400, 2))
    signs[:, 0] += 4 * defect
    weights = thresholds.regression(signs, defect, (1, -1))
    assert weights[0] > 2
    assert -1 < weights[1] <= 0
    assert thresholds.regression(signs, defect, (-1, 1))[0] == 0
    scores = signs @ weights[:-1] + weights[-1]
    at = thresholds.threshold(scores, defect)
    assert (scores[~defect] > at).sum() == 0
    assert (scores[defect] > at).mean() > 0.8
    assert thresholds.threshold(np.array([0.0, 1.0, 2.0, 9.0]), np.array([False, False, True, True])) == 1.5


def test_every_sign_of_a_detector_is_estimated():
    from restormer_cli.analysis import detectors

    pixels = np.random.default_rng(0).random((130, 130, 3), np.float32)
    found = {name: estimate(pixels) for name, estimate in thresholds.ESTIMATES.items()}
    for name, (estimate, signs, ways) in thresholds.DETECTORS.items():
        weights = getattr(detectors, name).weights
        assert {sign: np.sign(weight) for sign, weight in weights.items() if weight} == {
            sign: direction for sign, direction in signs.items() if weights[sign]
        }
        assert list(weights) == list(signs)
        assert set(signs) <= set(found[estimate].signs)
        assert set(ways) <= {way for way, *_ in (*thresholds.WAYS, *thresholds.MORE_NOISE)}
