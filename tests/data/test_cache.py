"""Decoded pictures are kept where the recipe says, by content, within bounds, and losing them loses nothing."""

import json
import multiprocessing
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restormer_cli.data import cache
from restormer_cli.data.cache import PictureCache, decode
from restormer_cli.errors import UserError
from restormer_cli.images import io as images_io


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESTORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are decoded, as it happens."""
    decoded: list[Path] = []
    original = images_io.read_picture
    monkeypatch.setattr(cache, "read_picture", lambda path: (decoded.append(path), original(path))[1])
    return decoded


def noise(seed: int = 0, height: int = 23, width: int = 31) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("pictures/*/*.npy"))


def test_channels_follow_the_network(tmp_path: Path) -> None:
    colour = noise(0, 9, 7)
    luma = colour @ np.array([0.299, 0.587, 0.114])
    save(tmp_path / "colour.png", colour)
    save(tmp_path / "gray.png", colour[..., 0])
    assert decode(tmp_path / "colour.png", 1).shape == (9, 7, 1)
    assert np.abs(decode(tmp_path / "colour.png", 1)[..., 0] - luma).max() <= 0.51
    assert np.array_equal(decode(tmp_path / "colour.png", 3), colour)
    assert np.array_equal(decode(tmp_path / "gray.png", 3), np.repeat(colour[..., :1], 3, axis=2))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_picture_is_decoded_once_and_then_mapped(
    tmp_path: Path, folder: Path, decodings: list[Path], write_png: Callable[..., Path], bits: int
) -> None:
    path = write_png(tmp_path / "a.png", 23, 31, bits=bits)
    expected = decode(path, 3)
    decodings.clear()
    for _ in range(2):  # a second run knows it from the index
        decoded = PictureCache(3, "disk")
        assert decoded.read(path) == (23, 31)
        assert decoded.size(path) == (23, 31)
        assert np.array_equal(decoded[path], expected)
        assert decoded[path].dtype == expected.dtype
        assert not decoded[path].flags.writeable
        assert decoded.close() is None
    assert decodings == [path]
    (entry,) = entries(folder)
    assert np.array_equal(np.load(entry), expected)  # an ordinary .npy file


def test_the_index_spares_hashing_and_contents_spare_decoding(
    tmp_path: Path, folder: Path, decodings: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    original = cache._hash
    monkeypatch.setattr(cache, "_hash", lambda path: (hashed.append(path), original(path))[1])
    path = save(tmp_path / "a.png", noise())

    def read(*paths: Path) -> None:
        decoded = PictureCache(3, "disk")
        for each in paths:
            decoded.read(each)
            assert np.array_equal(decoded[each], np.asarray(Image.open(each)))
        decoded.close()

    read(path)
    read(path)
    assert hashed == [path]
    copy = Path(shutil.copy(path, tmp_path / "copy.png"))
    read(path, copy)  # the same bytes elsewhere
    assert hashed == [path, copy]
    assert decodings == [path]
    assert len(entries(folder)) == 1
    save(path, noise(1))  # other bytes in the same place, and of the same size
    read(path)
    assert hashed == [path, copy, path]
    assert decodings == [path, path]
    assert len(entries(folder)) == 2


def test_gray_and_colour_of_one_file_are_two_entries(tmp_path: Path, folder: Path) -> None:
    path = save(tmp_path / "a.png", noise())
    for channels in (1, 3, 1):
        decoded = PictureCache(channels, "disk")
        decoded.read(path)
        assert decoded[path].shape == (23, 31, channels)
        decoded.close()
    assert len(entries(folder)) == 2


@pytest.mark.parametrize("damage", ["gone", "short", "empty", "all gone", "text"])
def test_a_damaged_or_removed_cache_is_made_again(tmp_path: Path, folder: Path, damage: str) -> None:
    path = save(tmp_path / "a.png", noise())
    running = PictureCache(3, "disk")  # one that has read and goes on while it happens
    running.read(path)
    running.close()
    (entry,) = entries(folder)
    if damage == "gone":
        entry.unlink()
    elif damage == "all gone":
        shutil.rmtree(folder)
    else:
        entry.write_bytes({"short": entry.read_bytes()[:-5], "empty": b"", "text": b"hello"}[damage])
    for decoded in (running, PictureCache(3, "disk")):
        decoded.read(path)
        assert np.array_equal(decoded[path], noise())
        assert decoded.close() is None
    assert np.array_equal(np.load(entries(folder)[0]), noise())


def test_an_index_that_is_none_is_ignored(tmp_path: Path, folder: Path) -> None:
    path = save(tmp_path / "a.png", noise())
    for text in ("no json", "[]", '{"files": {"a.png": 3}}', '{"files": {"a.png": [[1], 2, 3, 4]}}'):
        for index in [*folder.glob("index/*"), *([folder / "index"] if not folder.exists() else [])]:
            if index.is_file():
                index.write_text(text)
        decoded = PictureCache(3, "disk")
        assert decoded.read(path) == (23, 31)
        decoded.close()
        (index,) = folder.glob("index/*.json")
        assert list(json.loads(index.read_text())["files"]) == ["a.png"]


def test_what_was_used_longest_ago_goes_first(tmp_path: Path, folder: Path) -> None:
    paths = [save(tmp_path / f"{number}.png", noise(number)) for number in range(5)]
    room = 3 * (noise().nbytes + cache.HEADER) / cache.GB
    for age, path in zip((300, 100, 200), paths, strict=False):
        decoded = PictureCache(3, "disk", room)
        decoded.read(path)
        decoded.close()
        newest = max(entries(folder), key=lambda entry: entry.stat().st_mtime)
        then = newest.stat().st_mtime - 1000 * age
        os.utime(newest, (then, then))
    assert len(entries(folder)) == 3
    decoded = PictureCache(3, "disk", room)
    for path in (paths[3], paths[1]):  # a new one, and one that is there
        decoded.read(path)
    assert decoded.close() is None
    kept = [np.load(entry) for entry in entries(folder)]
    assert len(kept) == 3
    for number, there in ((0, False), (1, True), (2, True), (3, True)):
        assert any(np.array_equal(noise(number), pixels) for pixels in kept) == there, number


def test_a_run_larger_than_the_bound_keeps_what_fits_and_says_so(
    tmp_path: Path, folder: Path, decodings: list[Path]
) -> None:
    paths = [save(tmp_path / f"{number}.png", noise(number)) for number in range(5)]
    decoded = PictureCache(3, "disk", 2.5 * (noise().nbytes + cache.HEADER) / cache.GB)
    for path in paths:
        decoded.read(path)
    note = decoded.close()
    assert note == (
        "the cache is full: 3 pictures have no room in it and are decoded at every use, which is slow; "
        "raise data.cache_gb"
    )
    assert len(entries(folder)) == 2
    decodings.clear()
    for number, path in enumerate(paths):
        assert np.array_equal(decoded[path], noise(number))
    assert decodings == paths[2:]


def test_memory_keeps_what_fits(tmp_path: Path, folder: Path, decodings: list[Path]) -> None:
    paths = [save(tmp_path / f"{number}.png", noise(number)) for number in range(3)]
    decoded = PictureCache(3, "memory", 2 * noise().nbytes / cache.GB)
    for path in paths:
        decoded.read(path)
    assert "1 pictures have no room" in str(decoded.close())
    decodings.clear()
    for number, path in enumerate(paths):
        assert np.array_equal(decoded[path], noise(number))
    assert decodings == paths[2:]
    assert not folder.exists()


def test_off_keeps_nothing(tmp_path: Path, folder: Path, decodings: list[Path]) -> None:
    path = save(tmp_path / "a.png", noise())
    decoded = PictureCache(3, "off")
    decoded.read(path)
    assert decoded.close() is None
    assert np.array_equal(decoded[path], noise())
    assert decodings == [path, path]
    assert not folder.exists()


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path: Path, folder: Path, decodings: list[Path]) -> None:
    path = save(tmp_path / "a.png", noise())
    folder.write_text("a file in the way")
    decoded = PictureCache(3, "disk")
    decoded.read(path)
    note = str(decoded.close())
    assert note.startswith("the cache cannot be written (")
    assert note.endswith("RESTORMER_CACHE names another folder); pictures are kept in memory instead")
    assert np.array_equal(decoded[path], noise())
    assert decodings == [path]


def test_a_nearly_full_disk_is_left_alone(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, decodings: list[Path]
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage._replace(free=cache.SPARE))
    path = save(tmp_path / "a.png", noise())
    decoded = PictureCache(3, "disk")
    decoded.read(path)
    assert "is nearly full: 2 GB are left free; pictures are kept in memory" in str(decoded.close())
    assert np.array_equal(decoded[path], noise())
    assert decodings == [path]
    assert not entries(folder)


def test_what_a_killed_process_left_half_written_goes(tmp_path: Path, folder: Path) -> None:
    old, young = (folder / "pictures" / "ab" / f".{name}.npy.1234.part" for name in ("old", "young"))
    old.parent.mkdir(parents=True)
    for part in (old, young):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    decoded = PictureCache(3, "disk")
    decoded.read(save(tmp_path / "a.png", noise()))
    assert not old.exists()
    assert young.exists()


def test_entries_have_ordinary_permissions(tmp_path: Path, folder: Path) -> None:
    previous = os.umask(0o027)
    try:
        PictureCache(3, "disk").read(save(tmp_path / "a.png", noise()))
    finally:
        os.umask(previous)
    assert stat.S_IMODE(entries(folder)[0].stat().st_mode) == 0o640


def test_more_pictures_than_maps_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "OPEN_MAPS", 2)
    paths = [save(tmp_path / f"{number}.png", noise(number)) for number in range(5)]
    decoded = PictureCache(3, "disk")
    for path in paths:
        decoded.read(path)
    held = [decoded[path] for path in paths]
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    del held
    assert before - (len(os.listdir("/proc/self/fd")) if before else 0) in (0, 3)
    for number, path in [*enumerate(paths)] * 2:
        assert np.array_equal(decoded[path], noise(number))


def test_derived_values_are_kept_beside_the_picture(tmp_path: Path, folder: Path) -> None:
    path = save(tmp_path / "a.png", noise())
    made: list[int] = []

    def mean(pixels: np.ndarray) -> np.ndarray:
        made.append(1)
        return pixels.mean(axis=(0, 1))

    for kind, times in (("disk", 1), ("disk", 1), ("memory", 2), ("off", 3)):
        decoded = PictureCache(3, kind)  # pyright: ignore[reportArgumentType]
        decoded.read(path)
        assert np.array_equal(decoded.derived(path, "mean", mean), noise().mean(axis=(0, 1)))
        assert len(made) == times
        decoded.close()


def test_an_unreadable_picture_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    for kind in ("disk", "memory", "off"):
        with pytest.raises(UserError, match=r"a\.png: "):
            PictureCache(3, kind).read(tmp_path / "a.png")
        with pytest.raises(UserError, match=r"b\.png: "):
            PictureCache(3, kind).read(tmp_path / "b.png")


def _read_all(paths: list[Path], start: int, barrier: object) -> None:
    barrier.wait()  # pyright: ignore[reportAttributeAccessIssue]
    decoded = PictureCache(3, "disk")
    for path in [*paths[start:], *paths[:start]]:
        decoded.read(path)
        assert np.array_equal(decoded[path], noise(int(path.stem)))
    decoded.close()


def test_several_processes_may_fill_it_at_once(tmp_path: Path, folder: Path) -> None:
    paths = [save(tmp_path / f"{number}.png", noise(number)) for number in range(12)]
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_read_all, args=(paths, start, barrier)) for start in (0, 0, 6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(entries(folder)) == 12
    assert not list(folder.rglob("*.part"))
    for number in range(12):
        assert any(np.array_equal(np.load(entry), noise(number)) for entry in entries(folder))


def test_old_entries_go_where_the_disk_is_short(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, decodings: list[Path]
) -> None:
    """Within the cache's own bound, but the disk has no room for one more: what another run kept goes."""
    old, new = save(tmp_path / "old.png", noise(1)), save(tmp_path / "new.png", noise(2))
    before = PictureCache(3, "disk")
    before.read(old)
    before.close()
    usage, (kept,) = shutil.disk_usage(tmp_path), entries(folder)
    monkeypatch.setattr(
        cache.shutil, "disk_usage", lambda _: usage._replace(free=cache.SPARE + (0 if kept.exists() else 1 << 20))
    )
    after = PictureCache(3, "disk")
    after.read(new)
    assert after.close() is None
    assert not kept.exists()
    assert len(entries(folder)) == 1


def test_an_entry_of_another_version_is_not_used(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, decodings: list[Path]
) -> None:
    path = save(tmp_path / "a.png", noise())
    for version in (1, 2):
        monkeypatch.setattr(cache, "VERSION", version)
        decoded = PictureCache(3, "disk")
        decoded.read(path)
        decoded.close()
    assert decodings == [path, path]
