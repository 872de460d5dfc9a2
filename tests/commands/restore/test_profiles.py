"""Profiles: flags under a name, validated, and weaker than the command line and the environment."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from restormer_cli.cli import app


@pytest.fixture
def profiles(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RESTORMER_CONFIG", str(tmp_path / "config"))
    folder = tmp_path / "config" / "profiles"
    folder.mkdir(parents=True)
    return folder


def restore(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["restore", "--device", "cpu", *map(str, arguments)])


def test_flag_before_environment_before_profile_before_default(
    tmp_path, profiles, write_png, colour_weights, monkeypatch
):
    picture = write_png(tmp_path / "a.png", 16, 24)
    (profiles / "mine.toml").write_text(
        f"weights = '{colour_weights}'\nluma = 0.25\nchroma = 0.5\ndetail = 1\n"
        "suffix = '_x'\ndry-run = true\nquality = 80\n"
    )
    monkeypatch.setenv("RESTORMER_CHROMA", "0.75")
    result = restore(picture, tmp_path, "--json", "--luma", 0.125, "--profile", "mine")
    assert result.exit_code == 0, result.output
    request = json.loads(result.stdout)["request"]
    found = {name: request[name] for name in ("luma", "chroma", "detail", "grain", "suffix", "dry_run", "quality")}
    assert found == {
        "luma": 0.125,
        "chroma": 0.75,
        "detail": 1.0,
        "grain": 0.0,
        "suffix": "_x",
        "dry_run": True,
        "quality": 80,
    }
    assert request["profile"] == "mine"
    assert not (tmp_path / "a_x.png").exists()


def test_a_profile_may_set_the_task(tmp_path, profiles, write_png):
    picture = write_png(tmp_path / "a.png", 16, 24)
    (tmp_path / "p.toml").write_text("task = 'derain'\n")
    result = restore(picture, tmp_path / "b.png", "--profile", tmp_path / "p.toml", "--dry-run", "--json")
    assert json.loads(result.stdout)["run"]["task"] == "derain"


def test_profiles_are_listed_with_what_they_set(profiles):
    assert "no profiles in" in restore("--profile", "help").stdout
    (profiles / "b.toml").write_text("luma = 0.5\noverwrite = true\n")
    (profiles / "a.toml").write_text("= nonsense")
    lines = restore("--profile", "help").stdout.splitlines()
    assert lines[0] == f"profiles in {profiles}:"
    assert lines[1].startswith("a: --profile a:")
    assert lines[2] == "b: --luma 0.5 --overwrite"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "sets nothing: write flags into it, such as luma = 0.7"),
        ("lume = 0.5", '"lume" is not a flag that a profile can set: did you mean "luma"?'),
        ("profile = 'x'", '"profile" is not a flag that a profile can set'),
        ("luma = 'much'", "luma = much: give a number"),
        ("overwrite = 1", "overwrite = 1: give true or false"),
        ("tile = 1.5", "tile = 1.5: give a whole number"),
        ("task = 3", "task = 3: give text in quotes"),
        ("luma = [", "is not valid TOML"),
        ("[luma]\na = 1", "give a number"),
    ],
)
def test_wrong_profiles_are_refused_in_a_line(tmp_path, profiles, write_png, text, words):
    (profiles / "mine.toml").write_text(text)
    result = restore(write_png(tmp_path / "a.png"), tmp_path / "b.png", "--profile", "mine")
    assert result.exit_code == 2
    errors = result.stderr.strip().splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: --profile mine: ")
    assert words in errors[0]


def test_values_out_of_range_are_refused_as_on_the_command_line(tmp_path, profiles, write_png):
    (profiles / "mine.toml").write_text("luma = 7.0")
    result = restore(write_png(tmp_path / "a.png"), tmp_path / "b.png", "--profile", "mine")
    assert result.exit_code == 2
    assert result.stderr == "error: --luma 7: is a share: give a number from 0 to 1; 7 % is 0.07\n"


def test_a_name_that_is_none_says_which_was_meant(tmp_path, profiles, write_png):
    (profiles / "portrait.toml").write_text("luma = 0.5")
    result = restore(write_png(tmp_path / "a.png"), tmp_path / "b.png", "--profile", "portrit")
    assert result.exit_code == 2
    assert 'did you mean "portrait"?' in result.stderr
