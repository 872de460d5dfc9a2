"""What checkpoints say about themselves, without torch, whatever their headers hold."""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.model import cards
from restormer_cli.model.cards import Card, EarlierEntry, Header, TrainingEntry, bundled_cards, read_cards, read_header
from restormer_cli.model.weights import bundled_tasks, load_weights

HEADER = {
    "task": "denoise",
    "licence": "Apache-2.0",
    "model": {"dim": 16, "blocks": [2, 2, 2, 4], "refinement": 2},
    "training": {"iterations": 1400, "validation": {"psnr": 36.961, "input_psnr": 20.18, "pictures": 13}},
    "recipe": {
        "degrade": {"steps": ["gaussian:0-50", "jpeg:70-95"]},
        "validation": {"degrade": ["gaussian:25"], "crop": 256},
        "stage": [{"patch": 64}, {"patch": 128}],
        "data": {"train": {"degraded": None, "clean": "photographs/train", "match": "name"}},
    },
}


def test_a_line_says_what_it_repairs_how_it_was_trained_and_what_it_scored():
    assert Card("denoise", Path(), HEADER).line() == (
        "noise; 1,400 iterations, patches up to 128²; 36.96 dB from 20.18 on 13 photographs"
    )


def test_a_page_adds_data_network_licence_and_file(tmp_path):
    (tmp_path / "x").write_bytes(b"0" * 1_500_000)
    page = Card("denoise", tmp_path / "x", {**HEADER, "repairs": "grain"}).page()
    assert page.splitlines()[0] == "denoise"
    for words in (
        "grain",
        "gaussian:0-50 + jpeg:70-95",
        "on 13 photographs with gaussian:25, centre crops of 256²\n",
        "data        photographs/train\n",
        "blocks 2-2-2-4",
        "Apache-2.0",
        "x (1.5 MB)",
    ):
        assert words in page


def test_a_page_says_how_the_weights_came_about():
    training = {
        "iterations": 900,
        "hours": 5.26,
        "machines": ["an abacus, 2 threads"],
        "data": {"sha256": "abcdef0123456789" * 4},
        "earlier": [{"task": "denoise", "iterations": 1400}, {"task": "unknown"}],
    }
    page = Card("defocus", Path(__file__), {**HEADER, "training": training}).page()
    assert "900 iterations, patches up to 128², on an abacus, 2 threads; before it denoise (1,400 iterations)" in page
    assert "; 5.3 hours in all\n" in page
    assert "photographs/train (sha256 abcdef0123456789…)" in page


def test_legs_of_one_task_are_counted_together():
    legs = [("denoise", 1400), ("defocus", 300), ("defocus", 200)]
    training = {"iterations": 900, "earlier": [{"task": task, "iterations": n} for task, n in legs]}
    page = Card("defocus", Path(__file__), {**HEADER, "training": training}).page()
    assert "before it denoise (1,400 iterations) and defocus (2 legs, 500 iterations)" in page


@pytest.mark.parametrize(("precision", "words"), [("bf16", "256², in bf16\n"), ("fp32", "256²\n"), (None, "256²\n")])
def test_a_page_says_where_bf16_rounded_the_score(precision, words):
    training = HEADER["training"] | ({"precision": precision} if precision else {})
    assert f"centre crops of {words}" in Card("denoise", Path(__file__), {**HEADER, "training": training}).page()


def test_every_bundled_checkpoint_has_its_limits_and_failures_on_its_page():
    written = read_cards()
    for card in bundled_cards():
        page = card.page()
        for text in (*written[card.name]["limits"], *(failure["words"] for failure in written[card.name]["failures"])):
            assert text in page
        assert f"docs/cards/{card.name}.md" in page


def test_every_key_of_a_header_is_described():
    for card in bundled_cards():
        training = card.header["training"]
        assert card.header.keys() <= Header.__annotations__.keys()
        assert training.keys() <= TrainingEntry.__annotations__.keys()
        for phase in training.get("earlier", ()):
            assert phase.keys() <= EarlierEntry.__annotations__.keys()


def test_every_failure_case_can_be_made_from_a_shipped_sample():
    for card in read_cards().values():
        assert set(card) == {"repairs", "limits", "failures"}
        for failure in card["failures"]:
            parse_degradation(failure["degrade"])
            assert failure.get("photograph", "chelsea") in ("chelsea", "rocket")


def test_figures_are_shown_for_the_weights_that_were_measured_and_no_others(tmp_path, monkeypatch):
    (tmp_path / "denoise.safetensors").write_bytes(b"weights")
    figures = {"before": 20.04, "after": 20.16}
    line = "σ 25: 38.00 dB from 20.50 (bm3d 37.00)"
    document = {"results": [line], "failures": [figures, {**figures, "before": None}]}
    monkeypatch.setattr(cards, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(cards, "MEASURED", tmp_path / "measured.json")
    card = Card("denoise", tmp_path / "denoise.safetensors", HEADER)
    assert "reaches" not in card.page()
    for weights, shown in ((sha256(b"weights").hexdigest(), True), ("of others", False)):
        (tmp_path / "measured.json").write_text(json.dumps({"denoise": {"weights": weights, **document}}))
        assert (line in card.page()) == shown
        assert (": from 20.0 to 20.2 dB)" in card.page()) == shown
        assert (": to 20.2 dB)" in card.page()) == shown
        assert "limits" in card.page()


@pytest.mark.parametrize("header", [{}, {"training": 3, "recipe": "x", "model": []}, {"recipe": {"stage": [1, {}]}}])
def test_what_is_not_recorded_is_said(tmp_path, header):
    line = Card("mystery", tmp_path, header).line()
    assert line == "mystery; training not recorded; no score recorded"
    assert "licence     not recorded" in Card("mystery", tmp_path, header).page()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("abc 1"),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["recipe", "stage", "patch", "psnr", "x"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(HEADER)), JSON))
def test_no_header_upsets_a_card(header):
    card = Card("x", Path(__file__), header)
    assert card.line()
    assert card.page()


def test_headers_are_those_that_loading_gives():
    assert [card.name for card in bundled_cards()] == bundled_tasks()
    for card in bundled_cards():
        assert card.header == load_weights(card.name).header


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x02" + b"\0" * 7 + b"{}", b"\x04" + b"\0" * 7 + b"null"])
def test_a_file_without_a_header_has_an_empty_one(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    assert read_header(tmp_path / "x") == {}


def test_cards_need_no_torch():
    code = "import sys, restormer_cli.model.cards as c; c.bundled_cards(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr
