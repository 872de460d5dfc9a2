"""Pairs, crops and noise: the same picture gets the same degradation, and every mistake names its file."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from restormer_cli.benchmark import scoring
from restormer_cli.benchmark.methods import OURS, Method
from restormer_cli.benchmark.networks import find_network
from restormer_cli.benchmark.scoring import ImageScore, Source, evaluate, load, published_sigma
from restormer_cli.data.pairs import Pair, find_pairs
from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.errors import UserError
from restormer_cli.images.io import read_picture
from restormer_cli.metrics.protocols import PROTOCOLS
from restormer_cli.recipe import Pairs


def find_samples(clean: Path, degraded: Path | None, right: Path | None = None) -> tuple[Pair, ...]:
    """The pairs of folders, as `bench` asks for them."""
    others = {key: str(path) for key, path in (("degraded", degraded), ("right", right)) if path is not None}
    return tuple(find_pairs(Pairs.model_validate({"clean": str(clean), **others}), role="--clean", table=""))


@pytest.fixture
def folder(tmp_path, write_png):
    """`folder("name", "a.png", "b/c.png", height=…)` -> a folder with these pictures."""

    def make(name: str, *names: str, **shape: int) -> Path:
        for one in names:
            write_png(tmp_path / name / one, **shape)
        return tmp_path / name

    return make


# --- Pairs ----------------------------------------------------------------------------------------------------


def test_pairs_go_by_name_whatever_the_extension_in_folders_too(folder):
    clean = folder("clean", "b.png", "indoor/a.png", "a.png")
    degraded = folder("degraded", "a.png", "indoor/a.png", "b.png")
    (degraded / "b.png").rename(degraded / "b.PNG")
    samples = find_samples(clean, degraded)
    assert [(s.name, s.group) for s in samples] == [("a", ""), ("b", ""), ("indoor/a", "indoor")]
    assert all(s.degraded is not None and s.degraded.stem == s.clean.stem for s in samples)


def test_without_degraded_pictures_there_are_only_clean_ones(folder):
    assert [s.degraded for s in find_samples(folder("clean", "a.png"), None)] == [None]


@pytest.mark.parametrize(
    ("clean", "degraded", "words"),
    [
        (["a.png", "b.png", "c.png"], ["a.png"], r"^2 problems: --clean: b has no partner in .*/degraded; .*c has no"),
        (["a.png"], ["a.png", "x.png"], r"^--clean: x has no partner in .*/clean$"),
        (["a.png"], ["b/a.png"], "a has no partner"),
    ],
)
def test_a_picture_without_a_partner_is_named(folder, clean, degraded, words):
    with pytest.raises(UserError, match=words):
        find_samples(folder("clean", *clean), folder("degraded", *degraded))


def test_an_empty_side_is_named(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--clean: a has no partner in .*/empty"):
        find_samples(folder("clean", "a.png"), tmp_path / "empty")
    with pytest.raises(UserError, match=r"--clean: no pictures in .*empty"):
        find_samples(tmp_path / "empty", folder("degraded", "a.png"))


def test_two_clean_files_of_one_name_need_other_names_only_where_partners_are_sought(folder):
    clean = folder("clean", "a.png")
    (clean / "a.tif").write_bytes((clean / "a.png").read_bytes())
    assert [pair.name for pair in find_samples(clean, None)] == ["a.png", "a.tif"]
    with pytest.raises(UserError, match=r"a\.png and a\.tif share the name a"):
        find_samples(clean, folder("degraded", "a.png"))


def test_pairs_of_different_size_are_refused(folder):
    clean, degraded = folder("clean", "a.png", height=9, width=13), folder("degraded", "a.png", height=9, width=14)
    (sample,) = find_samples(clean, degraded)
    with pytest.raises(UserError, match=r"a\.png: 14×9×3, but its clean partner is 13×9×3"):
        load(Source((sample,)), sample)


# --- Degrading and cropping -----------------------------------------------------------------------------------


def test_published_noise_is_the_published_one_for_every_picture(folder):
    clean = folder("clean", "a.png", "b.png", height=16, width=24)
    source = Source(find_samples(clean, None), parse_degradation("gaussian:25"))
    for sample in source.samples:
        degraded, pixels, _ = load(source, sample)
        noise = np.random.RandomState(0).normal(0, 25 / 255, (16, 24, 3))
        assert np.array_equal(degraded, (pixels + noise).astype(np.float32))


def test_other_degradations_are_seeded_by_the_files_name(folder):
    clean = folder("clean", "a.png", "b.png", height=16, width=24)
    degradation = parse_degradation("poisson_gaussian:100")
    samples = find_samples(clean, None)
    results = [load(Source(samples, degradation), s)[0] for s in samples]
    assert not np.array_equal(results[0], results[1])  # same pixels, other names
    again = load(Source(samples[1:], degradation), samples[1])[0]
    assert np.array_equal(results[1], again)
    rng = np.random.default_rng([0, zlib.crc32(b"b.png")])  # as `restore --degrade` has it
    assert np.array_equal(again, degradation(read_picture(samples[1].clean).pixels, rng))
    assert not np.array_equal(load(Source(samples, degradation, seed=1), samples[1])[0], again)


@pytest.mark.parametrize(
    ("spec", "sigma"),
    [
        ("gaussian:25", 25),
        ("gaussian:0-50", None),
        ("gaussian:25@0.5", None),
        ("gaussian:25+clip", None),
        ("clip", None),
    ],
)
def test_what_counts_as_the_published_noise(spec, sigma):
    assert published_sigma(parse_degradation(spec)) == sigma


def test_the_crop_is_the_centre_of_both_before_degrading(folder):
    clean = folder("clean", "a.png", height=20, width=31)
    (sample,) = find_samples(clean, clean)
    degraded, pixels, _ = load(Source((sample,), crop=10), sample)
    whole = read_picture(sample.clean).pixels
    assert np.array_equal(pixels, whole[5:15, 10:20])
    assert np.array_equal(degraded, pixels)
    assert load(Source((sample,), crop=100), sample)[1].shape == (20, 31, 3)


# --- Judging --------------------------------------------------------------------------------------------------


def run(weights: Path, source: Source, *methods: Method, **options) -> list[ImageScore]:
    events = evaluate(methods, find_network(str(weights)), source, PROTOCOLS["plain"], threads=1, **options)
    return [event for event in events if isinstance(event, ImageScore)]


def test_every_picture_by_every_method_and_the_input_itself(folder, colour_weights):
    clean = folder("clean", "a.png", "b.png", height=24, width=32)
    source = Source(find_samples(clean, None), parse_degradation("gaussian:25"))
    ours, tiled = Method(OURS), Method(OURS, tile=16, overlap=8)
    rows = run(colour_weights, source, ours, tiled, Method("tv"), keep_views=True)
    kinds = [row.method and row.method.name for row in rows]
    assert kinds == 2 * [None, "restormer", "restormer tile 16", "tv"]
    assert all(row.error is None and row.scores is not None for row in rows)
    assert rows[0].scores is not None
    assert 19.5 < rows[0].scores.psnr < 21  # σ 25: 20.17 dB, a little more where clamping helps
    assert rows[3].method is not None
    assert rows[3].method.hints is not None
    assert rows[3].method.hints.strength is not None
    assert [row.views is not None for row in rows[:4]] == [False, True, False, False]


def test_gray_pictures_go_through_colour_weights(folder, colour_weights):
    clean = folder("clean", "a.png", height=16, width=24, channels=1)
    source = Source(find_samples(clean, None), parse_degradation("gaussian:25"))
    _, row = run(colour_weights, source, Method(OURS))
    assert row.error is None


def test_the_textbook_scores_as_we_do(folder, colour_weights):
    clean = folder("clean", "a.png", height=21, width=27)
    source = Source(find_samples(clean, None), parse_degradation("gaussian:25"))
    _, ours, textbook = run(colour_weights, source, Method(OURS), Method("textbook"))
    assert ours.scores is not None
    assert textbook.scores is not None
    assert ours.scores.psnr == pytest.approx(textbook.scores.psnr, abs=0.01)


def test_a_bad_picture_costs_that_picture_only(folder, colour_weights):
    clean = folder("clean", "a.png", "c.png", height=16, width=16)
    broken = np.full((16, 16, 3), 0.5, np.float32)
    broken[3, 4, 1] = np.nan
    tifffile.imwrite(clean / "b.tif", broken, photometric="rgb")
    source = Source(find_samples(clean, None), parse_degradation("gaussian:25"))
    rows = run(colour_weights, source, Method(OURS))
    assert [row.sample.name for row in rows] == ["a", "a", "b", "c", "c"]
    assert rows[2].error is not None
    assert "b.tif: 1 of its samples are no numbers" in rows[2].error


def test_two_views_for_dual_pixel_weights(folder, dual_pixel_weights):
    clean, left, right = (folder(name, "a.png", height=16, width=24) for name in ("clean", "left", "right"))
    (sample,) = find_samples(clean, left, right)
    assert sample == Pair("a", clean / "a.png", left / "a.png", right / "a.png")
    _, row = run(dual_pixel_weights, Source((sample,)), Method(OURS))
    assert row.error is None


def test_tuning_uses_crops_of_at_most_six_pictures(folder, monkeypatch):
    clean = folder("clean", *(f"{index}.png" for index in range(13)), height=150, width=140)
    seen = []
    monkeypatch.setattr(scoring, "tune", lambda name, hints, pairs, score: (seen.extend(pairs), (2.0, 30.0))[1])
    source = Source(find_samples(clean, None), parse_degradation("gaussian:25"))
    tuned = scoring.tune_method(Method("tv"), source, PROTOCOLS["plain"])
    assert [degraded.shape for degraded, _ in seen] == [(128, 128, 3)] * 6
    assert tuned.hints is not None
    assert (tuned.hints.strength, tuned.hints.sigma) == (2.0, 25 / 255)


def test_a_given_strength_is_taken_as_it_is(folder, monkeypatch):
    clean = folder("clean", "a.png")
    monkeypatch.setattr(scoring, "tune", lambda *_: pytest.fail("tuned"))
    source = Source(find_samples(clean, None), parse_degradation("defocus:3+gaussian:2"))
    given = scoring.tune_method(Method("wiener", strength=0.02), source, PROTOCOLS["plain"])
    assert given.hints is not None
    assert (given.hints.strength, given.hints.sigma) == (0.02, 2 / 255)
    assert given.hints.kernel is not None  # it is still told the blur
