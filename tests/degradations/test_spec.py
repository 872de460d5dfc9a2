"""A spec says exactly what it means, and a mistake in it is named with its cure."""

import math
import pickle
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.degradations import operators
from restormer_cli.degradations import spec as degrade
from restormer_cli.degradations.spec import KINDS, Degradation, Operation, Span, Step, parse_degradation
from restormer_cli.errors import UserError


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def photograph(height: int = 53, width: int = 67) -> operators.Image:
    return generator(5).random((height, width, 3), np.float32)


# --- The spec language --------------------------------------------------------------------------------------


def test_a_range_is_drawn_uniformly_for_each_picture():
    degradation, rng = parse_degradation("gaussian:20-40"), generator()
    blank = np.zeros((64, 64, 1), np.float32)
    sigmas = np.array([degradation(blank, rng).std() * 255 for _ in range(400)])
    assert 19 < sigmas.min() < 22
    assert 38 < sigmas.max() < 42
    assert sigmas.mean() == pytest.approx(30, abs=1)
    assert sigmas.std() == pytest.approx(20 / math.sqrt(12), rel=0.1)


def test_whole_parameters_are_drawn_whole_with_both_ends(monkeypatch: pytest.MonkeyPatch):
    parameter = KINDS["jpeg"].parameters[0]
    drawn = {parameter.draw(Span(70, 73), rng) for rng in map(generator, range(60))}
    assert drawn == {70, 71, 72, 73}


def test_a_probability_is_the_share_of_pictures_and_leaves_the_others_alone():
    degradation, rng, image = parse_degradation("round8@0.25"), generator(), photograph(5, 7)
    same = [np.array_equal(degradation(image, rng), image) for _ in range(2000)]
    assert np.mean(same) == pytest.approx(0.75, abs=0.04)


def test_probabilities_0_and_1_are_never_and_always():
    image, rng = photograph(5, 7), generator()
    for _ in range(20):
        assert np.array_equal(parse_degradation("round8@0")(image, rng), image)
        assert not np.array_equal(parse_degradation("round8@1")(image, rng), image)


def test_photographers_files_can_be_said():
    """Noise of two kinds; a part of the inputs clipped and rounded, a part of them JPEG, of both samplings."""
    noise = "gaussian:0-50|gaussian:0-50|gaussian:0-50|poisson_gaussian:30-3000,read=0-10"
    spec = [noise, "round8@0.5", "jpeg:70-98|jpeg:70-98,subsampling=444@0.4"]
    files, shares = parse_degradation(spec), np.zeros(3)
    bright = np.full((16, 16, 3), 0.98, np.float32)
    for seed in range(400):
        noisy, result = parse_degradation(noise)(bright, generator(seed)), files(bright, generator(seed))
        assert np.array_equal(result, files(bright, generator(seed)))
        rounded = np.array_equal(result, operators.round8(noisy, generator()))
        shares += [np.array_equal(result, noisy), rounded, not rounded and result.max() <= 1]
    # Untouched 0.5 · 0.6; rounded and no more 0.5 · 0.6; compressed 0.4.
    np.testing.assert_allclose(shares / 400, [0.3, 0.3, 0.4], atol=0.07)


def test_one_of_the_alternatives_is_applied_each_equally_often():
    rng, half = generator(), np.full((5, 7, 1), 0.5, np.float32)
    degradation = parse_degradation("gaussian:0|gaussian:0|gaussian:255")
    same = [np.array_equal(degradation(half, rng), half) for _ in range(2000)]
    assert np.mean(same) == pytest.approx(2 / 3, abs=0.04)


def test_steps_are_applied_in_order():
    image = photograph()
    one, other = (parse_degradation(spec)(image, generator()) for spec in ("gaussian:50+clip", "clip+gaussian:50"))
    assert one.min() >= 0 > other.min()
    rng = generator()
    expected = operators.clip(operators.gaussian(image, rng, sigma=50), rng)
    assert np.array_equal(one, expected)


def test_a_list_a_joined_string_and_a_mixture_are_the_same():
    joined = parse_degradation("defocus:3+gaussian:2+clip")
    assert parse_degradation(["defocus:3", "gaussian:2", "clip"]) == joined
    assert parse_degradation(("defocus:3", "gaussian:2+clip")) == joined
    assert len(joined.steps) == 3


@pytest.mark.parametrize(
    ("spec", "canonical"),
    [
        ("gaussian", "gaussian:0-50"),
        ("gaussian:sigma=25", "gaussian:25"),
        (" gaussian : 25.0 + clip ", "gaussian:25+clip"),
        ("gaussian:0..50", "gaussian:0-50"),
        ("gaussian:.5 - 1e1", "gaussian:0.5-10"),
        ("gaussian:1e-3-2e-3", "gaussian:0.001-0.002"),
        ("gaussian:1e-7", "gaussian:1e-07"),
        ("gaussian:-0", "gaussian:0"),
        ("defocus:3,vary=0", "defocus:3"),
        ("motion:5-25,angle=-90..90", "motion:5-25"),
        ("motion:shake=1,angle=-30..-10,length=7", "motion:7,angle=-30..-10,shake=1"),
        ("motion:7,angle=-30", "motion:7,angle=-30"),
        ("jpeg:70-95@0.50", "jpeg:70-95@0.5"),
        ("jpeg:70 @ 1", "jpeg:70"),
        ("jpeg:subsampling=444", "jpeg:70-95,subsampling=444"),
        (
            "gaussian:0-50 | gaussian:0-50|poisson_gaussian:100@.2",
            "gaussian:0-50|gaussian:0-50|poisson_gaussian:100@0.2",
        ),
    ],
)
def test_spellings_have_one_canonical_form(spec: str, canonical: str):
    assert str(parse_degradation(spec)) == canonical
    assert str(parse_degradation(canonical)) == canonical


def numbers(lo: float, hi: float, whole: bool) -> st.SearchStrategy[float]:
    return st.integers(int(lo), int(hi)).map(float) if whole else st.floats(lo, hi)


def spans(parameter: degrade.Parameter) -> st.SearchStrategy[Span]:
    if parameter.choices:
        return st.sampled_from(parameter.choices).map(lambda x: Span(x, x))
    number = numbers(parameter.limits.lo, parameter.limits.hi, parameter.whole)
    return st.tuples(number, number).map(lambda pair: Span(min(pair), max(pair)))


operations = st.sampled_from(sorted(KINDS)).flatmap(
    lambda kind: st.builds(Operation, st.just(kind), st.tuples(*map(spans, KINDS[kind].parameters)))
)
steps = st.builds(Step, st.lists(operations, min_size=1, max_size=3).map(tuple), numbers(0, 1, False))
degradations = st.lists(steps, min_size=1, max_size=4).map(tuple).map(Degradation)


@given(degradations)
def test_a_degradation_reads_back_from_its_own_text(degradation: Degradation):
    back = parse_degradation(str(degradation))
    assert back == degradation
    assert hash(back) == hash(degradation)
    assert parse_degradation([str(step) for step in degradation.steps]) == degradation
    assert pickle.loads(pickle.dumps(degradation)) == degradation  # loaders send it to their workers


@given(st.text(st.sampled_from("gausinjpeg:=,.-+|@0123456789 \n"), max_size=20))
def test_any_text_is_a_degradation_or_one_line_of_error(text: str):
    try:
        degradation = parse_degradation(text)
    except UserError as error:
        outcome = str(error)
    else:
        outcome = str(degradation)
    assert "\n" not in outcome


def test_a_files_degradation_depends_on_its_name_and_the_seed_alone():
    degradation = parse_degradation("gaussian:25+jpeg:50-90")
    image = np.full((16, 16, 3), 0.5, np.float32)
    first = degradation.of_file(image, "a.png", 7)
    degradation.of_file(image, "b.png", 7)
    assert np.array_equal(degradation.of_file(image, "a.png", 7), first)
    assert np.array_equal(first, degradation(image, np.random.default_rng([7, zlib.crc32(b"a.png")])))
    assert not np.array_equal(degradation.of_file(image, "b.png", 7), first)
    assert not np.array_equal(degradation.of_file(image, "a.png", 8), first)


def test_degradations_are_frozen_and_tell_each_other_apart():
    degradation = parse_degradation("gaussian:25")
    with pytest.raises(AttributeError):
        degradation.steps = ()  # pyright: ignore[reportAttributeAccessIssue]
    assert len({degradation, parse_degradation("gaussian:sigma=25"), parse_degradation("gaussian:15")}) == 2


# --- The catalogue ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_every_example_and_every_default_parses_and_runs(name: str):
    for spec in (name, KINDS[name].example):
        out = parse_degradation(spec)(photograph(), generator())
        assert np.isfinite(out).all()


@pytest.mark.parametrize("name", KINDS)
def test_every_default_is_what_saying_it_gives(name: str):
    said = ",".join(f"{p.name}={p.default}" for p in KINDS[name].parameters)
    assert parse_degradation(f"{name}:{said}" if said else name) == parse_degradation(name)


@pytest.mark.parametrize("name", KINDS)
def test_every_docstring_names_its_parameters(name: str):
    for parameter in KINDS[name].parameters:
        assert f"`{parameter.name}`" in (KINDS[name].apply.__doc__ or "")


# --- Errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("", ["empty", "gaussian:25"]),
        ([], ["empty"]),
        ("gausian:25", ['"gausian:25"', 'did you mean "gaussian"?', "for example gaussian:0-50"]),
        ("poisson:25", ['did you mean "poisson_gaussian"?']),
        ("xyz", ["known are gaussian, poisson_gaussian, defocus", "for example gaussian:25"]),
        ("gaussian:25++clip", ["names no kind"]),
        ("gaussian:25+", ["names no kind"]),
        ("gaussian:25|", ["names no kind"]),
        (":25", ['":25"', "names no kind"]),
        ("gaussian:", ['sigma "" is neither a number nor a range']),
        ("gaussian:loud", ['sigma "loud" is neither', "for example gaussian:0-50"]),
        ("gaussian:nan", ['sigma "nan" is neither']),
        ("gaussian:inf", ['sigma "inf" is neither']),
        ("gaussian:1e999", ["is neither"]),
        ("gaussian:0-nan", ["is neither"]),
        ("gaussian:1..2..3", ["is neither"]),
        ("gaussian:50-0", ["sigma 50-0 runs backwards"]),
        ("gaussian:-5", ["sigma -5 is outside what is possible, 0 to 255 / 255"]),
        ("gaussian:-5..5", ["outside"]),
        ("gaussian:0-300", ["outside"]),
        ("poisson_gaussian:0", ["peak 0 is outside", "0.1 to 10000000 photons at white"]),
        ("gaussian:sgima=5", ['gaussian has no "sgima"; did you mean "sigma"?']),
        ("motion:5,blurriness=5", ['motion has no "blurriness"; known are length, angle, shake']),
        ("motion:5,30", ['"30" has no name; motion takes length, angle, shake']),
        ("motion:5,angle=-90-90", ["a range such as 1-2 or -1..2"]),
        ("motion:5,length=6", ["length is given twice"]),
        ("defocus:-1", ["radius -1 is outside"]),
        ("defocus:3,vary=1.5", ["vary 1.5 is outside what is possible, 0 to 1"]),
        ("jpeg:0", ["quality 0 is outside what is possible, 1 to 100"]),
        ("jpeg:101", ["quality 101 is outside"]),
        ("jpeg:70.5", ["quality 70.5 is not whole"]),
        ("jpeg:70,subsampling=411", ["subsampling 411 is not one of 420, 422, 444"]),
        ("jpeg:70,subsampling=420-444", ["subsampling 420-444 is not one of"]),
        ("clip:3", ["clip takes no value"]),
        ("jpeg:70@2", ['probability "2" is not a number from 0 to 1', "jpeg:70-95@0.5"]),
        ("jpeg:70@-0.1", ['probability "-0.1"']),
        ("jpeg:70@nan", ['probability "nan"']),
        ("jpeg:70@", ['probability ""']),
        ("gaussian@0.5|clip@0.5", ["one probability, at its end"]),
        ("gaussian@0.5|clip", ['probability "0.5|clip"']),
        (["clip", "gaussian:loud"], ['"gaussian:loud"']),
    ],
)
def test_a_mistake_is_one_line_that_names_it_and_the_cure(spec: str | list[str], parts: list[str]):
    with pytest.raises(UserError) as caught:
        parse_degradation(spec)
    message = str(caught.value)
    assert "\n" not in message
    assert "for example" in message
    for part in parts:
        assert part in message
