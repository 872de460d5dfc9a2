"""A batch is a pure function of the iteration, and every crop is a real, aligned piece of the pictures."""

import itertools
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from restormer_cli.data import pictures as pictures_module
from restormer_cli.data.batches import TrainingBatches, prefetched, training_batches, validation_pictures
from restormer_cli.data.cache import PictureCache, decode
from restormer_cli.data.pairs import find_pairs
from restormer_cli.data.pictures import Note, Reading, as_picture, read_pictures
from restormer_cli.degradations import operators
from restormer_cli.errors import UserError
from restormer_cli.recipe import Pairs, Recipe, Stage


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


def finish(events: Generator[Any, None, Any]) -> tuple[Any, list[Any]]:
    """What a generator returns, and what it yielded."""
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            return end.value, seen


def recipe(
    pairs: Pairs,
    *,
    seed: int = 3,
    flips: bool = True,
    steps: Any = (),
    mixup: float = 0,
    balance: float = 0,
    shrink: float = 0,
    **data: Any,
) -> Recipe:
    values = {
        "task": "denoise",
        "seed": seed,
        "data": {"train": pairs.model_dump(), "cache": "memory", **data},
        "degrade": {"steps": steps},
        "augment": {"flips": flips, "mixup": mixup, "balance": balance, "shrink": shrink},
        "stage": [stage(16).model_dump()],
    }
    return Recipe.model_validate(values)


def batches(pairs: Pairs, **options: Any) -> TrainingBatches:
    return finish(training_batches(recipe(pairs, **options)))[0]


def stage(patch: int, batch: int = 8) -> Stage:
    return Stage(iterations=1, patch=patch, batch=batch)


@pytest.mark.parametrize("steps", [(), ("gaussian:0-50", "jpeg:30-90")])
def test_a_batch_is_a_pure_function_of_the_iteration(paired: Pairs, steps: tuple[str, ...]) -> None:
    pairs = paired if not steps else Pairs(clean=paired.clean)
    one, other = batches(pairs, steps=steps), batches(pairs, steps=steps)
    other.batch(99, stage(8), range(5))  # what was drawn before does not matter
    for iteration in (7, 1, 2):
        for ours, theirs in zip(
            one.batch(iteration, stage(16), range(4)), other.batch(iteration, stage(16), range(4)), strict=True
        ):
            assert ours.shape == (4, 16, 16, 3)
            assert ours.dtype == np.float32
            assert np.array_equal(ours, theirs)


def test_iterations_rows_and_seeds_differ(paired: Pairs) -> None:
    source = batches(paired)
    first = source.batch(1, stage(16), range(6))[1]
    assert not np.array_equal(first, source.batch(2, stage(16), range(6))[1])
    assert not np.array_equal(first, batches(paired, seed=4).batch(1, stage(16), range(6))[1])
    assert all(not np.array_equal(first[i], first[j]) for i in range(6) for j in range(i))


def test_degradations_differ_between_iterations_and_rows(tmp_path: Path) -> None:
    save(tmp_path / "gray.png", np.full((16, 16, 3), 128, np.uint8))  # one possible crop
    source = batches(Pairs(clean=str(tmp_path)), steps=("gaussian:25",), flips=False)
    degraded, clean = source.batch(1, stage(16), range(3))
    assert np.array_equal(clean[0], clean[1])
    assert not np.array_equal(degraded[0], degraded[1])
    assert not np.array_equal(degraded, source.batch(2, stage(16), range(3))[0])


@pytest.mark.parametrize("steps", [(), ("gaussian:0-50",)])
def test_rows_of_a_split_batch_are_those_of_the_global_batch(paired: Pairs, steps: tuple[str, ...]) -> None:
    source = batches(paired if not steps else Pairs(clean=paired.clean), steps=steps)
    whole = source.batch(5, stage(16), range(6))
    for first, last in ((0, 2), (2, 4), (4, 6)):
        for part, all_rows in zip(source.batch(5, stage(16), range(first, last)), whole, strict=True):
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
        degraded, clean = source.batch(iteration, stage(16), range(4))
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
    places = {find(crop, pixels)[0] for crop in source.batch(1, stage(16), range(80))[1]}
    assert places == {(0, top, left) for top in range(3) for left in range(2)}


def test_pictures_are_drawn_in_proportion_to_area(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    save(tmp_path / "b.png", np.full((96, 32, 3), 255, np.uint8))
    source = batches(Pairs(clean=str(tmp_path)), steps=("gaussian:0",))
    share = source.batch(1, stage(8), range(600))[1].mean()
    assert abs(share - 0.75) < 0.06


@pytest.mark.parametrize(("height", "width"), [(11, 40), (40, 11), (11, 13), (5, 5), (1, 3)])
def test_pictures_smaller_than_the_patch_are_reflected_right_and_bottom(
    tmp_path: Path, height: int, width: int
) -> None:
    pixels = noise(height, width)
    save(tmp_path / "a.png", pixels)
    source = batches(Pairs(clean=str(tmp_path)), flips=False, steps=("gaussian:0",), textured=True)
    crop = np.rint(source.batch(1, stage(16), range(1))[1][0] * 255).astype(np.uint8)

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


@pytest.mark.parametrize("flips", [False, True])
def test_a_blur_takes_light_from_outside_the_patch_and_mirrors_only_at_the_pictures_border(
    tmp_path: Path, flips: bool
) -> None:
    pixels = noise(26, 29)
    save(tmp_path / "a.png", pixels)
    source = batches(Pairs(clean=str(tmp_path)), flips=flips, steps=("defocus:3",))
    blurred = operators.defocus(pictures_module.to_float(pixels), np.random.default_rng(), radius=3)
    degraded, clean = source.batch(1, stage(16), range(40))
    tops = set()
    for part, crop in zip(degraded, clean, strict=True):
        turn, top, left = find(crop, pixels)[0]
        np.testing.assert_allclose(turns(part)[turn], blurred[top : top + 16, left : left + 16], atol=2e-6)
        tops.add(top)
    assert {0, 10} <= tops  # both borders occur


def test_a_blurred_picture_smaller_than_the_patch_is_mirrored(tmp_path: Path) -> None:
    save(tmp_path / "a.png", noise(5, 9))
    degraded, clean = batches(Pairs(clean=str(tmp_path)), steps=("motion:9",)).batch(1, stage(16), range(3))
    assert degraded.shape == clean.shape == (3, 16, 16, 3)
    assert np.isfinite(degraded).all()


def test_textured_prefers_texture(tmp_path: Path) -> None:
    pixels = np.full((64, 256, 3), 128, np.uint8)
    pixels[:, 128:] = noise(64, 128)
    save(tmp_path / "a.png", pixels)
    shares = []
    for textured in (False, True):
        source = batches(Pairs(clean=str(tmp_path)), textured=textured, steps=("gaussian:0",))
        crops = source.batch(1, stage(16), range(200))[1]
        shares.append(float((crops.std(axis=(1, 2, 3)) > 0.02).mean()))
    assert abs(shares[0] - 0.5) < 0.15
    assert shares[1] > 0.66  # 3/4 expected: the better of two


def test_texture_of_eight_and_of_sixteen_bits_is_compared_alike(tmp_path: Path) -> None:
    pixels = noise(64, 64)
    save(tmp_path / "a.png", pixels)
    save(tmp_path / "b.png", pixels[..., 0].astype(np.uint16) * 200)  # a little less of it than 8 bits are
    source = batches(Pairs(clean=str(tmp_path)), flips=False, steps=("gaussian:0",), textured=True)
    crops = source.batch(1, stage(16), range(200))[1]
    assert 0.15 < (crops.max(axis=(1, 2, 3)) < 0.8).mean() < 0.45  # 1/4 expected: only where both are the fainter one


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (8, 8), dtype=np.uint16)
    save(tmp_path / "deep.png", pixels)
    source = batches(Pairs(clean=str(tmp_path)), flips=False, steps=("gaussian:0",))
    assert source.pictures.clean(0).dtype == np.uint16
    clean = source.batch(1, stage(8), range(1))[1][0]
    assert np.array_equal(np.rint(clean[..., 0] * 65535).astype(np.uint16), pixels)


def test_pairs_of_different_sizes_are_a_user_error(paired: Pairs) -> None:
    save(Path(str(paired.degraded)) / "p1.png", noise(41, 30))
    with pytest.raises(UserError, match=r"p1.png is 30×41, but .*p1.png is 29×41"):
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

    source = prefetched(make, 3, 12, depth=2, workers=3)
    assert next(source) == 9
    time.sleep(0.05)
    assert sorted(made) == [3, 4, 5]  # the one in use and two ahead
    assert list(source) == [number * number for number in range(4, 13)]
    assert sorted(made) == list(range(3, 13))
    assert all(name.startswith("batches") for name in threads)
    assert list(prefetched(make, 5, 4, depth=2)) == []


def test_ahead_passes_errors_on_and_stops_when_closed() -> None:
    def make(number: int) -> int:
        if number == 3:
            raise UserError("the third")
        return number

    source = prefetched(make, 1, 9, depth=4)
    assert [next(source), next(source)] == [1, 2]
    with pytest.raises(UserError, match="the third"):
        next(source)
    before = threading.active_count()
    closed = prefetched(lambda number: number, 1, 10**9, depth=4)
    next(closed)
    closed.close()
    assert threading.active_count() <= before


# --- Places ---------------------------------------------------------------------------------------------------


def test_pictures_may_be_drawn_alike(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    save(tmp_path / "b.png", np.full((96, 32, 3), 255, np.uint8))
    source = batches(Pairs(clean=str(tmp_path)), steps=("gaussian:0",), draw="pictures")
    assert abs(source.batch(1, stage(8), range(600))[1].mean() - 0.5) < 0.06


def test_places_are_drawn_as_often_as_the_published_preparation_cuts_them(tmp_path: Path) -> None:
    """One picture of 2 crops and one of 6: shares 1/4 and 3/4, and patches stay inside their crops."""
    save(tmp_path / "a.png", np.zeros((32, 48, 3), np.uint8))
    save(tmp_path / "b.png", np.full((48, 64, 3), 255, np.uint8))
    source = batches(Pairs(clean=str(tmp_path)), steps=("gaussian:0",), cut={"side": 32, "overlap": 16})
    assert source.places.rectangles[:, 0].tolist() == [0] * 2 + [1] * 6
    assert abs(source.batch(1, stage(16), range(600))[1].mean() - 0.75) < 0.06
    rng = np.random.default_rng(0)
    spots = (source._spot(rng, 24) for _ in range(8000))
    drawn = [(spot.top, spot.left) for spot in spots if spot.picture == 0]
    lefts = {*range(9), *range(16, 25)}  # of patches inside the first crop, and inside the second
    assert set(drawn) == {(top, left) for top in range(9) for left in lefts}


def test_only_the_sharpest_crops_are_drawn(tmp_path: Path) -> None:
    pixels = np.full((64, 64, 3), 128, np.uint8)
    pixels[:, 32:] = noise(64, 32)
    save(tmp_path / "a.png", pixels)
    for cache in ("memory", "disk", "disk"):
        source = batches(Pairs(clean=str(tmp_path)), steps=("gaussian:0",), cut={"side": 32}, sharpest=0.5, cache=cache)
        assert source.places.rectangles.tolist() == [[0, 0, 32, 32, 32], [0, 32, 32, 32, 32]]
        assert (source.batch(1, stage(16), range(60))[1].std(axis=(1, 2, 3)) > 0.1).all()


# --- Dual pixels ----------------------------------------------------------------------------------------------


def test_two_views_are_one_picture_of_six_channels(tmp_path: Path, write_png: Callable[..., Path]) -> None:
    clean = np.asarray(decode(write_png(tmp_path / "c" / "a.png", 40, 48, bits=16), 3))
    for folder, pixels in (("l", clean // 2), ("r", clean // 4)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    row = {"clean": str(tmp_path / "c"), "degraded": str(tmp_path / "l"), "right": str(tmp_path / "r")}
    dual = Recipe.model_validate(
        {
            "task": "defocus",
            "model": {"in_channels": 6, "dual_pixel": True},
            "data": {"train": row, "validate": row},
            "validation": {"crop": 32},
            "stage": [stage(16).model_dump()],
        }
    )
    source, _ = finish(training_batches(dual))
    degraded, target = source.batch(1, stage(16), range(4))
    assert degraded.shape == (4, 16, 16, 6)
    assert target.shape == (4, 16, 16, 3)
    assert np.allclose(degraded[..., :3], target / 2, atol=2e-5)
    assert np.allclose(degraded[..., 3:], target / 4, atol=2e-5)
    ((degraded, target),) = validation_pictures(dual)
    assert degraded.shape == (32, 32, 6)
    assert np.allclose(as_picture(degraded, 3), target * 3 / 8, atol=2e-5)
    assert as_picture(target, 3) is target


# --- Light ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [(), ("gaussian:0",)])
def test_other_light_darkens_each_channel_by_its_own_share_on_both_sides(paired: Pairs, steps: tuple[str, ...]) -> None:
    pairs = paired if not steps else Pairs(clean=paired.clean)
    plain, lit = (batches(pairs, steps=steps, flips=False, balance=b) for b in (0, 0.6))
    factors = []
    for iteration in range(1, 30):
        before, after = plain.batch(iteration, stage(16), range(4)), lit.batch(iteration, stage(16), range(4))
        for row in range(4):
            light = after[1][row].max(axis=(0, 1)) / before[1][row].max(axis=(0, 1))
            factors.append(light)
            for side in (0, 1):
                assert np.allclose(after[side][row], before[side][row] * light, atol=1e-6)
    shares = 1 - np.array(factors)  # 0.6 · u · v, with u of the sample and v of the channel
    assert shares.min() >= -1e-6
    assert 0.5 < shares.max() <= 0.6
    assert abs(shares.mean() - 0.15) < 0.02
    assert np.ptp(shares, axis=1).mean() > 0.1  # the channels differ


def test_both_views_of_a_dual_pixel_camera_see_the_same_light(tmp_path: Path) -> None:
    pixels = noise(20, 24)
    for folder in ("clean", "left", "right"):
        save(tmp_path / folder / "a.png", pixels)
    pairs = Pairs(clean=str(tmp_path / "clean"), degraded=str(tmp_path / "left"), right=str(tmp_path / "right"))
    values = {
        "task": "defocus",
        "model": {"in_channels": 6, "dual_pixel": True},
        "data": {"train": pairs.model_dump(), "cache": "memory"},
        "augment": {"balance": 0.6},
        "stage": [stage(16).model_dump()],
    }
    source = finish(training_batches(Recipe.model_validate(values)))[0]
    degraded, clean = source.batch(1, stage(16), range(4))
    assert np.array_equal(degraded, np.concatenate((clean, clean), axis=3))


# --- Half the size --------------------------------------------------------------------------------------------


def halved(pixels: np.ndarray) -> np.ndarray:
    """The means of 2×2 pixels that begin at every pixel: (h, w, c) -> (h - 1, w - 1, c)."""
    return np.mean([pixels[i : i - 1 or None, j : j - 1 or None] / 255 for i in (0, 1) for j in (0, 1)], axis=0)


@pytest.mark.parametrize("patch", [8, 24])
def test_a_share_of_the_samples_is_cut_at_half_the_size_where_the_picture_is_large_enough(
    tmp_path: Path, patch: int
) -> None:
    pixels = noise(47, 53)
    save(tmp_path / "a.png", pixels)
    source = batches(Pairs(clean=str(tmp_path)), steps=("gaussian:0",), flips=False, shrink=0.5, textured=True)
    half, found = halved(pixels), 0
    for iteration in range(1, 40):
        for sample in source.batch(iteration, stage(patch), range(4))[1]:
            whole = np.abs(pixels[: 48 - patch, : 54 - patch] / 255 - sample[0, 0]).max(axis=2) < 1e-6
            if whole.any():
                ((top, left),) = np.argwhere(whole)
                assert np.allclose(pixels[top : top + patch, left : left + patch] / 255, sample, atol=1e-6)
                continue
            found += 1
            ((top, left),) = np.argwhere(np.abs(half - sample[0, 0]).max(axis=2) < 1e-6)
            assert np.allclose(half[top::2, left::2][:patch, :patch], sample, atol=1e-6)
    # Of two candidates the more textured one is taken, and means of noise are smoother than noise.
    assert found == 0 if patch == 24 else 30 < found < 110


# --- Mixup ----------------------------------------------------------------------------------------------------


def mixed(tmp_path: Path, batch: int, groups: int = 4) -> tuple[TrainingBatches, TrainingBatches]:
    """With and without mixup."""
    save(tmp_path / "a.png", noise(40, 40))
    pairs = Pairs(clean=str(tmp_path))
    plain, mixing = (batches(pairs, steps=("gaussian:25",), mixup=a) for a in (0, 1.2))
    mixing.augment = mixing.augment.model_copy(update={"mixup_groups": groups})
    return plain, mixing


def test_mixup_is_one_share_and_one_permutation_per_group_on_both_sides(tmp_path: Path) -> None:
    plain, mixing = mixed(tmp_path, 12)
    row = stage(16, 12)
    shares = []
    for iteration in range(1, 40):
        before, after = plain.batch(iteration, row, range(12)), mixing.batch(iteration, row, range(12))
        for group in range(4):
            rows = range(3 * group, 3 * group + 3)
            mixture = mixing._mixture(iteration, 12)
            if rows[0] not in mixture:
                for side in (0, 1):
                    assert np.array_equal(after[side][rows], before[side][rows])
                continue
            partners = [mixture[r][0] for r in rows]
            assert sorted(partners) == list(rows)
            (share,) = {mixture[r][1] for r in rows}
            shares.append(share)
            for side in (0, 1):
                expected = share * before[side][rows] + (1 - share) * before[side][partners]
                assert np.allclose(after[side][rows], expected, atol=1e-6)
    assert abs(len(shares) / (39 * 4) - 0.5) < 0.12  # every second group
    assert abs(np.mean(shares) - 0.5) < 0.1
    assert abs(np.var(shares) - 1 / (4 * (2 * 1.2 + 1))) < 0.03  # of β(1.2, 1.2)


def test_a_group_of_one_is_not_mixed(tmp_path: Path) -> None:
    """Stages 5 and 6 of the paper: a batch of 8, one picture on each of 8 GPUs."""
    plain, mixing = mixed(tmp_path, 8, groups=8)
    for iteration in range(1, 9):
        one, other = (b.batch(iteration, stage(16, 8), range(8)) for b in (plain, mixing))
        assert np.array_equal(one[0], other[0])


def test_rows_of_a_split_mixed_batch_are_those_of_the_global_batch(tmp_path: Path) -> None:
    _, mixing = mixed(tmp_path, 12)
    for iteration in range(1, 6):
        whole = mixing.batch(iteration, stage(16, 12), range(12))
        for rows in (range(0, 5), range(5, 6), range(6, 12)):
            for part, everything in zip(mixing.batch(iteration, stage(16, 12), rows), whole, strict=True):
                assert np.array_equal(part, everything[list(rows)])


# --- What is said ---------------------------------------------------------------------------------------------


def test_pictures_smaller_than_the_largest_patch_are_counted_once(tmp_path: Path) -> None:
    for number, side in enumerate((15, 16, 40, 9)):
        save(tmp_path / f"{number}.png", noise(side, 30))
    _, events = finish(training_batches(recipe(Pairs(clean=str(tmp_path)), steps=("gaussian:0",))))
    (note,) = (event.text for event in events if isinstance(event, Note))
    assert note.startswith("2 of 4 training pictures are smaller than the largest patch, 16: they are reflected")


def test_all_bad_pictures_and_pairs_are_listed(paired: Pairs) -> None:
    clean, degraded = Path(paired.clean), Path(str(paired.degraded))
    (clean / "p0.png").write_bytes(b"no picture")
    save(degraded / "p1.png", noise(41, 30))
    for folder in (clean, degraded):
        (folder / "p2.png").write_bytes(b"")
    for cache in ("disk", "memory", "off"):
        with pytest.raises(UserError, match=r"^\[data\] 4 problems: train: ") as error:
            batches(paired, cache=cache)
        for part in (f"{clean}/p0.png: ", f"{clean}/p2.png: ", f"{degraded}/p2.png: ", "p1.png is 30×41, but "):
            assert part in str(error.value)


def test_a_right_view_of_another_size_is_a_user_error(tmp_path: Path) -> None:
    sizes = {"c": (20, 24), "l": (20, 24), "r": (20, 23)}
    for folder, size in sizes.items():
        save(tmp_path / folder / "a.png", noise(*size))
    c, left, r = (str(tmp_path / folder) for folder in sizes)
    pairs = find_pairs(Pairs(clean=c, degraded=left, right=r), role="train")
    with pytest.raises(UserError, match=rf"^\[data\] train: {r}/a.png is 23×20, but {c}/a.png is 24×20$"):
        finish(read_pictures(pairs, PictureCache(3), role="train"))


def test_a_long_reading_is_told_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.png", noise(20, 20))
    ticks = itertools.count(0, 2)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))
    _, events = finish(training_batches(recipe(Pairs(clean=str(tmp_path)), steps=("gaussian:0",))))
    assert [event for event in events if isinstance(event, Reading)] == [Reading(n, 3) for n in (1, 2, 3)]


@pytest.mark.parametrize("cache", ["disk", "memory", "off"])
def test_batches_are_the_same_wherever_pictures_are_kept(paired: Pairs, cache: str) -> None:
    expected, got = batches(paired), batches(paired, cache=cache, workers=2)
    for ours, theirs in zip(expected.batch(3, stage(16), range(4)), got.batch(3, stage(16), range(4)), strict=True):
        assert np.array_equal(ours, theirs)
