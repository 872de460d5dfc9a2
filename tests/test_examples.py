"""Every example of README and docs that can run offline runs here, as it stands, in a folder with some pictures.

A comment above a block says more: `<!-- run with NAME=value … -->` (flags can come from the environment, which keeps an
example short and its run shorter), `<!-- run small -->` (a tiny network, one step), `<!-- not run: why -->`.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SMALL = {
    "RESTORMER_SET": "model.dim=4 model.blocks=[1,1,1,1] model.heads=[1,1,2,2] model.refinement=1 stage.0.patch=16 "
    "stage.0.batch=8 augment.mixup_groups=1 validation.crop=32",
    "RESTORMER_STOP_AFTER": "1",
}
LAYOUTS = (
    *("DPDD/train/inputC", "DPDD/train/target", "DPDD/val/inputC", "DPDD/val/target"),
    *("photographs/train", "photographs/validate"),
)


class Example(NamedTuple):
    """A block, where it is, and the comment above it."""

    page: Path
    line: int
    kind: str
    body: str
    comment: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def examples() -> Iterator[Example]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(sh|python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            above = text[: match.start()].rstrip("\n").rpartition("\n")[2]
            comment = re.fullmatch(r"<!-- ((?:not )?run.*) -->", above)
            yield Example(
                page, text[: match.start()].count("\n") + 1, match[1], match[2], comment[1] if comment else ""
            )


EXAMPLES = list(examples())


def variables(example: Example) -> dict[str, str] | None:
    """The environment that the comment asks for; None where the block is not to be run."""
    comment = example.comment
    if comment.startswith("not run: "):
        return None
    if comment in ("", "run small"):
        return SMALL if comment else {}
    assert comment.startswith("run with "), f"{example}: {comment}"
    return dict(word.split("=", 1) for word in comment.removeprefix("run with ").split())


def test_most_examples_are_run_and_the_others_say_why_not() -> None:
    kept = [example for example in EXAMPLES if variables(example) is None]
    assert all(len(example.comment) > len("not run: ") + 5 for example in kept)
    assert len(EXAMPLES) - len(kept) > len(kept)
    assert len(EXAMPLES) > 30


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    """Two crops of a photograph, 48×64."""
    pixels = np.asarray(Image.open(ROOT / "docs/originals/chelsea.png"))
    return [pixels[100:148, 120:184], pixels[60:108, 200:264]]


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory, photographs: list[np.ndarray], tiny_network: Callable) -> Path:
    """A folder with what the examples speak of, all of it small."""
    from restormer_cli.model.weights_file import save_weights

    folder = tmp_path_factory.mktemp("examples")

    def fill(place: str, noise: float = 0) -> None:
        (folder / place).mkdir(parents=True, exist_ok=True)
        for number, clean in enumerate(photographs):
            noisy = clean + np.random.default_rng(number).normal(0, noise, clean.shape)
            Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / place / f"{number}.png")

    for place in ("in", "GoPro/input", "pairs/train/input", "pairs/validate/input"):
        fill(place, 25)
    for place in ("clean", "photos", "GoPro/target", "pairs/train/target", "pairs/validate/target"):
        fill(place)
    for place in LAYOUTS:
        fill(f"datasets/{place}")
    Image.open(folder / "in/0.png").save(folder / "photo.jpg", quality=95)
    _film(folder / "film.mp4", photographs)
    shutil.copy(folder / "film.mp4", folder / "film.mov")
    for name in ("my.safetensors", "scans.safetensors"):
        save_weights(folder / name, tiny_network(), {"task": "denoise"})
    save_weights(folder / "motion_deblurring.pth", tiny_network(), {})
    page = (ROOT / "docs/train-your-own.md").read_text(encoding="utf-8")
    recipe = re.search(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert recipe is not None
    (folder / "mine.toml").write_text(recipe[1], encoding="utf-8")
    return folder


def _film(path: Path, frames: list[np.ndarray]) -> None:
    av = pytest.importorskip("av", reason="pip install 'restormer-cli[video]'")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.slow
@pytest.mark.parametrize("example", [e for e in EXAMPLES if variables(e) is not None], ids=str)
def test_the_example_runs(example: Example, furnished: Path, tmp_path: Path) -> None:
    shutil.copytree(furnished, tmp_path, dirs_exist_ok=True)
    for place in ("docs", "recipes", "scripts"):
        (tmp_path / place).symlink_to(ROOT / place)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RESTORMER_TEST")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "RESTORMER_OFFLINE": "1",
        **(variables(example) or {}),
    }
    command = ["bash", "-euo", "pipefail", "-c"] if example.kind == "sh" else [sys.executable, "-c"]
    done = subprocess.run(
        [*command, example.body], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
