"""What an ablation shows: the same figures in the table, the page and the picture, and nothing that a name could do."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restormer_cli.commands.ablate.arms import Figure
from restormer_cli.commands.ablate.page import draw, write_figure, write_page
from restormer_cli.commands.ablate.tables import answer_lines, answer_table
from restormer_cli.commands.ablate.types import Arm, Finished, InferenceCost, Scored, Started, Step
from restormer_cli.commands.ablate.verdict import answer
from restormer_cli.commands.ablate.view import AblationView, started_lines
from restormer_cli.hardware import Machine
from restormer_cli.model.cost import Operations
from restormer_cli.recipe_files import read_recipe
from restormer_cli.report.tables import markdown

HOSTILE = "<script>document.title = 'owned'</script>"
MACHINE = Machine("a processor", "AVX", 2, 1, 2**33, None, "Linux", "3.11", {"torch": "2"}, 0.0)


def arm(name: str, figure: Figure | None) -> Arm:
    work = Operations(256, 256, 10_119_168_000, 868_220_928)
    return Arm(name, read_recipe("ablate/compact"), None, 1_741_360, work, figure, name)


def scored(name: str, repetition: int, psnr: float) -> Scored:
    pictures = ((HOSTILE, psnr), ("b", psnr + 1))
    return Scored(
        name, repetition, 400, 61.0, ((50, psnr - 2), (400, psnr)), pictures, (14.1, 14.2), Path("w.safetensors")
    )


def make(tmp_path: Path, seeds: int = 2) -> Finished:
    started = Started(
        arms=(arm("deep", Figure(29.71)), arm("wide", Figure(29.56, recalled=True))),
        seeds=(100, 101, 102),
        iterations=400,
        scale="compact",
        equal="iterations",
        minutes=None,
        folder=tmp_path / "run",
        degradation="gaussian:50",
        pictures=2,
        crop=512,
        data=HOSTILE,
        device="cpu",
        machine=MACHINE,
        notes=(HOSTILE,),
    )
    (tmp_path / "run").mkdir()
    rows = [scored(name, s, 27 + 0.01 * s + (name == "wide")) for name in ("deep", "wide") for s in range(seeds)]
    return answer(
        started,
        (InferenceCost("deep", 1.25, 2 * 10**8, 512), InferenceCost("wide", None, None, 512, "no")),
        tuple(rows),
    )


def test_the_table_has_every_figure_and_marks_what_is_only_recalled(tmp_path):
    finished = make(tmp_path)
    deep, wide = markdown(answer_table(finished)).splitlines()[-2:]
    assert re.sub(r"\s+", " ", deep).startswith("| deep | 1,741,360 | 10.12 | 21.97 | 61 | 1.25 | 0.20 GB | 27.51 ± ")
    assert "29.71 |" in deep
    assert " – " in wide
    assert "-1.00" in wide
    assert "29.56 *" in wide
    assert "* recalled" in answer_lines(finished)[-1]


def test_the_page_is_one_file_that_does_nothing_a_name_says(tmp_path):
    finished = make(tmp_path)
    write_page(finished, tmp_path / "pages" / "report.html")
    text = (tmp_path / "pages" / "report.html").read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "&lt;script&gt;document.title" in text
    assert "wide is better than deep" in text
    assert not re.search(r"(?:src|href)=\"https?:", text)
    assert text.count("<svg") == 1
    assert "seconds per megapixel" in text
    assert "27.51" in text


def test_the_picture_has_accuracy_against_speed_and_curves(tmp_path):
    finished = make(tmp_path)
    write_figure(finished, tmp_path / "figure.png")
    picture = Image.open(io.BytesIO((tmp_path / "figure.png").read_bytes()))
    assert picture.format == "PNG"
    speed, curves = draw(finished).axes
    assert (speed.get_xlabel(), curves.get_xlabel()) == ("seconds per megapixel", "iteration")
    assert [line.get_label() for line in curves.lines] == ["deep", "wide"]
    assert np.array_equal(curves.lines[0].get_xdata(), [50, 400])
    assert [handle.get_label() for handle in speed.containers] == ["deep, 27.51 dB"]  # wide could not be timed


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_seed_and_three_are_drawn_too(tmp_path, seeds):
    finished = make(tmp_path, seeds)
    write_page(finished, tmp_path / "report.html")
    assert ("none" in markdown(answer_table(finished))) == (seeds == 1)


def test_plain_lines_say_what_is_compared_and_where_it_is(tmp_path, capsys):
    started = make(tmp_path).started
    first, second, *table = started_lines(started)
    assert first == f"deep vs wide at compact scale: 400 iterations each, 3 seeds, into {tmp_path}/run"
    assert second.endswith("gaussian:50; scored on 2 pictures, centre crops of 512 pixels")
    assert any("1,741,360" in line for line in table)
    view = AblationView(started)
    assert view.line(Step("deep", 1, 20, 400, 0.0512, 0.4)) == "seed 2 of 3  deep  20 of 400  loss 0.0512"
    view.close()
