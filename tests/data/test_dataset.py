"""A batch is a pure function of the iteration, and every crop is a real, aligned piece of the pictures."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from restormer_cli.data import dataset
from restormer_cli.data.dataset import Pair, Pictures, TrainingBatches, ahead, find_pairs, missing_folders
from restormer_cli.data.degrade import parse_degradation
from restormer_cli.errors import UserError
from restormer_cli.recipe import Pairs


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Every pixel differs from its neighbours, so that a crop is found in one place only."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def paired(tmp_path: Path) -> Pairs:
    """Two folders, degraded = 1 - clean; sizes are no multiples of anything."""
    for number, (height, width) in enumerate(((37, 53), (41, 29))):
        pixels = noise(height, width, number)
        save(tmp_path / "clean" / f"p{number}.png", pixels)
        save(tmp_path / "degraded" / f"p{number}.png", 255 - pixels)
    return Pairs(clean=str(tmp_path / "clean"), degraded=str(tmp_path / "degraded"))


def batches(
    pairs: Pairs, *, seed: int = 3, flips: bool = True, textured: bool = False, steps: Any = ()
) -> TrainingBatches:
    pictures = Pictures(find_pairs(pairs, role="train"), 3)
    degradation = parse_degradation(steps) if steps else None
    return TrainingBatches(pictures, degradation, seed=seed, flips=flips, textured=textured)


@pytest.mark.parametrize("steps", [(), ("gaussian:0-50", "jpeg:30-90")])
def test_a_batch_is_a_pure_function_of_the_iteration(paired: Pairs, steps: tuple[str, ...]) -> None:
    pairs = paired if not steps else Pairs(clean=paired.clean)
    one, other = batches(pairs, steps=steps), batches(pairs, steps=steps)
    other.batch(99, 8, range(5))  # what was drawn before does not matter
    for iteration in (7, 1, 2):
        for ours, theirs in zip(one.batch(iteration, 16, range(4)), other.batch(iteration, 16, range(4)), strict=True):
            assert ours.shape == (4, 16, 16, 3)
            assert ours.dtype == np.float32
            assert np.array_equal(ours, theirs)


def test_iterations_rows_and_seeds_differ(paired: Pairs) -> None:
    source = batches(paired)
    first = source.batch(1, 16, range(6))[1]
    assert not np.array_equal(first, source.batch(2, 16, range(6))[1])
    assert not np.array_equal(first, batches(paired, seed=4).batch(1, 16, range(6))[1])
    assert all(not np.array_equal(first[i], first[j]) for i in range(6) for j in range(i))


def test_degradations_differ_between_iterations_and_rows(tmp_path: Path) -> None:
    save(tmp_path / "gray.png", np.full((16, 16, 3), 128, np.uint8))  # one possible crop
    source = batches(Pairs(clean=str(tmp_path)), steps=("gaussian:25",), flips=False)
    degraded, clean = source.batch(1, 16, range(3))
    assert np.array_equal(clean[0], clean[1])
    assert not np.array_equal(degraded[0], degraded[1])
    assert not np.array_equal(degraded, source.batch(2, 16, range(3))[0])


@pytest.mark.parametrize("steps", [(), ("gaussian:0-50",)])
def test_rows_of_a_split_batch_are_those_of_the_global_batch(paired: Pairs, steps: tuple[str, ...]) -> None:
    source = batches(paired if not steps else Pairs(clean=paired.clean), steps=steps)
    whole = source.batch(5, 16, range(6))
    for first, last in ((0, 2), (2, 4), (4, 6)):
        for part, all_rows in zip(source.batch(5, 16, range(first, last)), whole, strict=True):
            assert np.array_equal(part, all_rows[first:last])


def turns(crop: np.ndarray) -> list[np.ndarray]:
    return [np.rot90(side, k) for side in (crop, crop[:, ::-1]) for k in range(4)]


def find(crop: np.ndarray, pixels: np.ndarray) -> list[tuple[int, int, int]]:
    """(turn, top, left) of every place where one of the 8 turns of a crop (float) lies in a picture (uint8)."""
    size = crop.shape[0]
    windows = sliding_window_view(pixels, (size, size), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    return [
        (number, int(top), int(left))
        for number, turned in enumerate(turns(np.rint(crop * 255).astype(np.uint8)))
        for top, left in np.argwhere((windows == turned).all(axis=(2, 3, 4)))
    ]


def test_crops_come_from_the_pictures_aligned_and_turned_alike(paired: Pairs) -> None:
    source = batches(paired)
    pixels = [source.pictures.clean(index) for index in range(2)]
    seen: set[int] = set()
    pictures: set[int] = set()
    for iteration in range(1, 16):
        degraded, clean = source.batch(iteration, 16, range(4))
        assert clean.min() >= 0
        assert clean.max() <= 1
        assert np.allclose(degraded, 1 - clean, atol=1e-6)
        for crop in clean:
            places = [(index, *place) for index in range(2) for place in find(crop, pixels[index])]
            assert len(places) == 1
            pictures.add(places[0][0])
            seen.add(places[0][1])
    assert pictures == {0, 1}
    assert seen == set(range(8))  # all 8 turns occur


def test_without_flips_nothing_is_turned_and_every_place_can_occur(tmp_path: Path) -> None:
    pixels = noise(18, 17)
    save(tmp_path / "a.png", pixels)
    source = batches(Pairs(clean=str(tmp_path)), flips=False, steps=("gaussian:0",))
    places = {find(crop, pixels)[0] for crop in source.batch(1, 16, range(80))[1]}
    assert places == {(0, top, left) for top in range(3) for left in range(2)}


def test_pictures_are_drawn_in_proportion_to_area(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    save(tmp_path / "b.png", np.full((96, 32, 3), 255, np.uint8))
    source = batches(Pairs(clean=str(tmp_path)), steps=("gaussian:0",))
    share = source.batch(1, 8, range(600))[1].mean()
    assert abs(share - 0.75) < 0.06


@pytest.mark.parametrize(("height", "width"), [(11, 40), (40, 11), (11, 13), (5, 5), (1, 3)])
def test_pictures_smaller_than_the_patch_are_reflected_right_and_bottom(
    tmp_path: Path, height: int, width: int
) -> None:
    pixels = noise(height, width)
    save(tmp_path / "a.png", pixels)
    source = batches(Pairs(clean=str(tmp_path)), flips=False, steps=("gaussian:0",), textured=True)
    crop = np.rint(source.batch(1, 16, range(1))[1][0] * 255).astype(np.uint8)

    def mirror(position: int, side: int) -> int:
        position %= max(1, 2 * side - 2)
        return position if position < side else 2 * side - 2 - position

    rows = [mirror(y, height) for y in range(16)]
    columns = [mirror(x, width) for x in range(16)]
    if height >= 16:
        starts = range(height - 15)
        assert any(np.array_equal(crop, pixels[top : top + 16][:, columns]) for top in starts)
    elif width >= 16:
        assert any(np.array_equal(crop, pixels[rows][:, left : left + 16]) for left in range(width - 15))
    else:
        assert np.array_equal(crop, pixels[rows][:, columns])


def test_textured_prefers_texture(tmp_path: Path) -> None:
    pixels = np.full((64, 256, 3), 128, np.uint8)
    pixels[:, 128:] = noise(64, 128)
    save(tmp_path / "a.png", pixels)
    shares = []
    for textured in (False, True):
        source = batches(Pairs(clean=str(tmp_path)), textured=textured, steps=("gaussian:0",))
        crops = source.batch(1, 16, range(200))[1]
        shares.append(float((crops.std(axis=(1, 2, 3)) > 0.02).mean()))
    assert abs(shares[0] - 0.5) < 0.15
    assert shares[1] > 0.66  # 3/4 expected: the better of two


def test_pictures_are_kept_in_memory_while_they_fit(paired: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []
    original = dataset.read_picture
    monkeypatch.setattr(dataset, "read_picture", lambda path: (decoded.append(path), original(path))[1])
    pictures = Pictures(find_pairs(paired, role="train"), 3)
    pictures.areas()
    pictures.areas()
    assert len(decoded) == 4
    monkeypatch.setattr(dataset, "CACHE_BYTES", 37 * 53 * 3)
    small = Pictures(find_pairs(paired, role="train"), 3)
    small.areas()
    small.areas()
    assert len(decoded) == 4 + 4 + 3
    assert np.array_equal(small.clean(1), pictures.clean(1))


def test_channels_follow_the_network(tmp_path: Path) -> None:
    colour = noise(9, 7)
    save(tmp_path / "colour.png", colour)
    save(tmp_path / "gray.png", colour[..., 0])
    pairs = find_pairs(Pairs(clean=str(tmp_path)), role="train")
    gray, rgb = Pictures(pairs, 1), Pictures(pairs, 3)
    luma = colour @ np.array([0.299, 0.587, 0.114])
    assert gray.clean(0).shape == (9, 7, 1)
    assert np.abs(gray.clean(0)[..., 0] - luma).max() <= 0.51
    assert np.array_equal(rgb.clean(0), colour)
    assert np.array_equal(rgb.clean(1), np.repeat(colour[..., :1], 3, axis=2))


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (8, 8), dtype=np.uint16)
    save(tmp_path / "deep.png", pixels)
    source = batches(Pairs(clean=str(tmp_path)), flips=False, steps=("gaussian:0",))
    assert source.pictures.clean(0).dtype == np.uint16
    clean = source.batch(1, 8, range(1))[1][0]
    assert np.array_equal(np.rint(clean[..., 0] * 65535).astype(np.uint16), pixels)


def test_pairs_are_by_name_in_natural_order(tmp_path: Path) -> None:
    for name in ("p10", "p2", "p1"):
        save(tmp_path / "clean" / f"{name}.png", noise(4, 4))
        save(tmp_path / "degraded" / f"{name}.jpg", noise(4, 4))
    where = Pairs(clean=str(tmp_path / "clean"), degraded=str(tmp_path / "degraded"))
    pairs = find_pairs(where, role="train")
    assert [pair.name for pair in pairs] == ["p1", "p2", "p10"]
    assert pairs[2] == Pair("p10", tmp_path / "clean" / "p10.png", tmp_path / "degraded" / "p10.jpg")
    chosen = find_pairs(where.model_copy(update={"only": ("p1", "p10"), "exclude": ("p1",)}), role="train")
    assert [pair.name for pair in chosen] == ["p10"]


def test_the_photographs_in_scikit_image() -> None:
    where = Pairs(clean="package:skimage", exclude=("chelsea", "rocket"))
    names = [pair.name for pair in find_pairs(where, role="train")]
    assert len(names) >= 6
    assert "coffee" in names
    assert not {"chelsea", "rocket"} & set(names)
    with pytest.raises(UserError, match="package:skimage"):
        find_pairs(Pairs(clean="package:scipy"), role="train")


def test_missing_folders_are_all_named(tmp_path: Path) -> None:
    where = Pairs(clean=str(tmp_path / "a"), degraded=str(tmp_path / "b"))
    assert missing_folders(where) == [str(tmp_path / "b"), str(tmp_path / "a")]
    with pytest.raises(UserError, match=r"\[data\] train: missing .*b, .*a$"):
        find_pairs(where, role="train")


def test_an_empty_folder_and_unknown_names_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\[data\] validate: no pictures in"):
        find_pairs(Pairs(clean=str(tmp_path)), role="validate")
    save(tmp_path / "a.png", noise(4, 4))
    for option in ("only", "exclude"):
        with pytest.raises(UserError, match="no picture named 'zebra'"):
            find_pairs(Pairs.model_validate({"clean": str(tmp_path), option: ["zebra"]}), role="train")
    with pytest.raises(UserError, match="no pictures"):
        find_pairs(Pairs(clean=str(tmp_path), exclude=("a",)), role="train")


def test_lonely_pictures_are_named_at_most_five(paired: Pairs) -> None:
    save(Path(paired.clean) / "only-clean.png", noise(4, 4))
    save(Path(str(paired.degraded)) / "only-degraded.png", noise(4, 4))
    with pytest.raises(UserError, match=r"train: 2 without a partner .*: only-clean.png, only-degraded.png$"):
        find_pairs(paired, role="train")
    for number in range(5):
        save(Path(paired.clean) / f"x{number}.png", noise(4, 4))
    with pytest.raises(UserError, match=r"7 without a partner .* …$") as error:
        find_pairs(paired, role="train")
    assert "x4" not in str(error.value)


def test_pairs_of_different_sizes_are_a_user_error(paired: Pairs) -> None:
    save(Path(str(paired.degraded)) / "p1.png", noise(41, 30))
    with pytest.raises(UserError, match=r"p1.png: 30×41, but .*p1.png is 29×41"):
        batches(paired)


def test_a_picture_that_cannot_be_read_is_a_user_error(paired: Pairs) -> None:
    (Path(paired.clean) / "p0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"p0\.png"):
        batches(paired)


def test_ahead_yields_in_order_and_not_too_far_ahead() -> None:
    made: list[int] = []
    threads: set[str] = set()

    def make(number: int) -> int:
        made.append(number)
        threads.add(threading.current_thread().name)
        return number * number

    source = ahead(make, 3, 12, depth=2, workers=3)
    assert next(source) == 9
    time.sleep(0.05)
    assert sorted(made) == [3, 4, 5]  # the one in use and two ahead
    assert list(source) == [number * number for number in range(4, 13)]
    assert sorted(made) == list(range(3, 13))
    assert all(name.startswith("batches") for name in threads)
    assert list(ahead(make, 5, 4, depth=2)) == []


def test_ahead_passes_errors_on_and_stops_when_closed() -> None:
    def make(number: int) -> int:
        if number == 3:
            raise UserError("the third")
        return number

    source = ahead(make, 1, 9, depth=4)
    assert [next(source), next(source)] == [1, 2]
    with pytest.raises(UserError, match="the third"):
        next(source)
    before = threading.active_count()
    closed = ahead(lambda number: number, 1, 10**9, depth=4)
    next(closed)
    closed.close()
    assert threading.active_count() <= before
