"""What checkpoints say about themselves, without torch, whatever their headers hold."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.model.cards import Card, bundled_cards, read_header
from restormer_cli.model.weights import bundled_tasks, load_weights

HEADER = {
    "task": "denoise",
    "licence": "Apache-2.0",
    "model": {"dim": 16, "blocks": [2, 2, 2, 4], "refinement": 2},
    "training": {"iterations": 1400, "validation": {"psnr": 36.961, "input_psnr": 20.18, "pictures": 13}},
    "recipe": {
        "degrade": {"steps": ["gaussian:0-50", "jpeg:70-95"]},
        "validation": {"degrade": ["gaussian:25"]},
        "stage": [{"patch": 64}, {"patch": 128}],
        "data": {"train": {"degraded": None, "clean": "photographs/train"}},
    },
}


def test_a_line_says_what_it_repairs_how_it_was_trained_and_what_it_scored():
    assert Card("denoise", Path(), HEADER).line() == (
        "noise (gaussian:0-50+jpeg:70-95); 1,400 iterations, patches up to 128²; "
        "36.96 dB from 20.18 on 13 photographs with gaussian:25"
    )


def test_a_page_adds_data_network_licence_and_file(tmp_path):
    (tmp_path / "x").write_bytes(b"0" * 1_500_000)
    page = Card("denoise", tmp_path / "x", {**HEADER, "repairs": "grain"}).page()
    assert page.splitlines()[0] == "denoise"
    for words in ("grain (gaussian", "photographs/train", "blocks 2-2-2-4", "Apache-2.0", "x (1.5 MB)"):
        assert words in page


@pytest.mark.parametrize("header", [{}, {"training": 3, "recipe": "x", "model": []}, {"recipe": {"stage": [1, {}]}}])
def test_what_is_not_recorded_is_said(tmp_path, header):
    line = Card("mystery", tmp_path, header).line()
    assert line == "mystery; training not recorded; no score recorded"
    assert "licence    not recorded" in Card("mystery", tmp_path, header).page()


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
