"""Which picture becomes which file, and what is refused before any work."""

import os
from pathlib import Path

import pytest

from restormer_cli.commands.restore.earlier import record
from restormer_cli.commands.restore.jobs import Job, find_jobs, jobs_of_folder
from restormer_cli.commands.restore.types import Request
from restormer_cli.errors import UserError


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def targets(root: Path, **options) -> list[str]:
    return [str(job.target.relative_to(root / "out")) for job in find_jobs(root / "in", root / "out", **options)]


def test_extension_and_suffix_make_the_names(tmp_path):
    make(tmp_path / "in", "a.png", "deep/b.c.JPG")
    assert targets(tmp_path) == ["a.png", "deep/b.c.JPG"]
    assert targets(tmp_path, extension=".tif") == ["a.tif", "deep/b.c.tif"]
    assert targets(tmp_path, suffix="_x") == ["a_x.png", "deep/b.c_x.JPG"]
    assert targets(tmp_path, extension=".tif", suffix="_x") == ["a_x.tif", "deep/b.c_x.tif"]
    (job,) = find_jobs(tmp_path / "in" / "a.png", tmp_path / "out", extension=".webp", suffix="2")
    assert job.target == tmp_path / "out" / "a2.webp"


def test_two_pictures_that_would_become_one_are_refused(tmp_path):
    make(tmp_path / "in", "a.png", "a.jpg", "b.jpg", "deep/a.bmp")
    assert targets(tmp_path) == ["a.jpg", "a.png", "b.jpg", "deep/a.bmp"]
    with pytest.raises(UserError, match=r"in/a\.jpg and a\.png would both become .*out/a\.png: --ext same keeps"):
        targets(tmp_path, extension=".png")
    make(tmp_path / "out", "a.jpg")
    with pytest.raises(UserError, match=r"would both become .*: rename one, or restore them into two folders"):
        find_jobs([tmp_path / "in" / "a.jpg", tmp_path / "out" / "a.jpg"], tmp_path / "else", extension=".jpg")


def test_results_of_formats_that_are_not_written_stay_apart(tmp_path):
    make(tmp_path / "in", "a.avi", "a.mkv", "a.mov", "b.avi", "b.wmv", "c.avi", "d.nef", "d.CR2", "deep/c.mkv")
    wanted = [
        *("a.avi.mkv", "a.mkv", "a.mov", "b.avi.mkv", "b.wmv.mkv", "c.mkv"),
        *("d.CR2.dng", "d.nef.dng", "deep/c.mkv"),
    ]
    assert targets(tmp_path, videos=True) == wanted
    assert targets(tmp_path, videos=True, suffix="_x")[:2] == ["a_x.avi.mkv", "a_x.mkv"]
    request = Request(tmp_path / "in", tmp_path / "out")
    assert [str(job.target.relative_to(tmp_path / "out")) for job in jobs_of_folder(request)] == wanted
    with pytest.raises(UserError, match=r"a\.avi and a\.mkv would both become .*: --ext same keeps them apart"):
        targets(tmp_path, videos=True, video_extension=".mkv")


@pytest.mark.parametrize("options", [{"suffix": "_x"}, {"extension": ".png"}])
def test_a_named_file_is_not_renamed(tmp_path, options):
    make(tmp_path, "a.jpg")
    with pytest.raises(UserError, match="--ext and --suffix make names in a folder"):
        find_jobs(tmp_path / "a.jpg", tmp_path / "b.jpg", **options)
    (job,) = find_jobs(tmp_path / "a.jpg", tmp_path / "b.jpeg", extension=".jpg")
    assert job.target == tmp_path / "b.jpeg"


def test_results_by_suffix_in_their_own_folder_are_no_inputs(tmp_path):
    folder = tmp_path / "in"
    make(folder, "a.png", "b.jpg", "only_x.png", "deep/c.png")
    jobs = find_jobs(folder, folder, suffix="_x")
    record([job.target for job in jobs], [folder], folder)
    make(folder, "a_x.png", "deep/c_x.png")
    jobs = find_jobs(folder, folder, suffix="_x", may_exist=True)
    assert [job.source.name for job in jobs] == ["a.png", "b.jpg", "c.png", "only_x.png"]
    assert len(find_jobs(folder, folder, suffix="_y")) == 4  # those of another suffix are results as well
    with pytest.raises(UserError, match=r"in/a_x\.png and 1 more: already there: --overwrite replaces them"):
        find_jobs(folder, folder, suffix="_x")
    wanted = ["a_x.png", "b_x.jpg", "only_x_x.png", "deep/c_x.png"]
    assert sorted(targets(tmp_path, suffix="_x")) == sorted(wanted)  # also where OUT is elsewhere, or below
    assert [job.source.name for job in find_jobs(folder, folder / "out")] == ["a.png", "b.jpg", "c.png", "only_x.png"]
    watched = jobs_of_folder(Request(folder, tmp_path / "out"))
    assert [job.source.name for job in watched] == ["a.png", "b.jpg", "c.png", "only_x.png"]
    assert [job.source.name for job in find_jobs(folder / "a_x.png", tmp_path / "out")] == ["a_x.png"]  # by name
    for name in ("a.png", "b.jpg", "only_x.png", "deep/c.png"):
        (folder / name).unlink()
    with pytest.raises(UserError, match="nothing in it but results of earlier runs: name the files"):
        find_jobs(folder, tmp_path / "out")


def test_a_picture_named_like_a_result_is_not_overwritten(tmp_path):
    folder = tmp_path / "in"
    make(folder, "a.png", "a_x.png")  # the user's own
    with pytest.raises(
        UserError, match=r"in/a_x\.png: is an input, which is never overwritten: choose another --suffix"
    ):
        find_jobs(folder, folder, suffix="_x", may_exist=True)
    assert [job.target.name for job in find_jobs(folder, folder, suffix="_y")] == ["a_y.png", "a_x_y.png"]


def test_several_inputs_as_shells_give_them(tmp_path):
    make(tmp_path, "a.jpg", "b.png", "holiday/c.png", "holiday/deep/d.png", "empty/readme.txt")
    names = ("a.jpg", "holiday", "b.png", "empty")
    jobs = find_jobs([tmp_path / name for name in names], tmp_path / "out", extension=".png", suffix="_x")
    assert [str(job.target.relative_to(tmp_path / "out")) for job in jobs] == [
        "a_x.png", "holiday/c_x.png", "holiday/deep/d_x.png", "b_x.png",
    ]  # fmt: skip
    make(tmp_path, "other/a.jpg")
    with pytest.raises(UserError, match="would both become"):
        find_jobs([tmp_path / "a.jpg", tmp_path / "other" / "a.jpg"], tmp_path / "out")


@pytest.mark.parametrize("last", ["b.png", "new.png", "out.heci", "-"])
def test_several_inputs_need_a_folder_at_the_end(tmp_path, monkeypatch, last):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "a.jpg", "b.png", "c.png")
    with pytest.raises(UserError) as error:
        find_jobs([Path("a.jpg"), Path("c.png")], Path(last), may_exist=True)
    assert "\n" not in str(error.value)
    assert any(cure in str(error.value) for cure in ("end the line with a folder", "cannot write", "name it alone"))


def test_comparisons_are_no_inputs(tmp_path):
    make(tmp_path / "in", "a.png", "a.compare.png", "alone.compare.png")
    assert targets(tmp_path) == ["a.png", "alone.compare.png"]


@pytest.mark.parametrize("name", ["out.heci", "out.pgn", "out.gif", "out.mp4", "out.jpge"])
def test_a_mistyped_file_is_not_a_folder(tmp_path, name):
    make(tmp_path, "a.png")
    with pytest.raises(UserError, match=r'cannot write "\.[a-z0-9]+"; .*make it first'):
        find_jobs(tmp_path / "a.png", tmp_path / name)
    (tmp_path / name).mkdir()
    assert find_jobs(tmp_path / "a.png", tmp_path / name)[0].target == tmp_path / name / "a.png"


@pytest.mark.parametrize("name", ["out", "v1.2", "2024.restored"])
def test_other_names_are_folders(tmp_path, name):
    make(tmp_path, "a.png")
    assert find_jobs(tmp_path / "a.png", tmp_path / name)[0].target == tmp_path / name / "a.png"


def test_no_input_is_overwritten_through_a_link(tmp_path):
    make(tmp_path, "in/a.png", "in/b.png", "out/b.png")
    (tmp_path / "out" / "a.png").symlink_to(tmp_path / "in" / "a.png")  # the result would land in the input
    with pytest.raises(UserError, match=r"out/a\.png: is an input, which is never overwritten"):
        find_jobs(tmp_path / "in", tmp_path / "out", may_exist=True)
    (tmp_path / "out" / "a.png").unlink()
    (tmp_path / "in" / "c.png").symlink_to(tmp_path / "out" / "b.png")  # the input lies where a result goes
    with pytest.raises(UserError, match=r"out/b\.png: is an input, which is never overwritten"):
        find_jobs(tmp_path / "in", tmp_path / "out", may_exist=True)


def test_a_folder_that_cannot_be_listed_costs_what_is_in_it(tmp_path, monkeypatch):
    make(tmp_path / "in", "a.png", "secret/b.png", "z/c.png")
    listdir = os.listdir

    def denied(path):
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", denied)
    jobs = find_jobs(tmp_path / "in", tmp_path / "out")
    assert [job.source.name for job in jobs] == ["a.png", "c.png", "secret"]
    assert [job.trouble and job.trouble.partition(": ")[2] for job in jobs] == [
        None,
        None,
        "cannot be listed (Permission denied); check its permissions",
    ]


def test_a_read_only_file_system_is_refused_before_the_work(tmp_path, monkeypatch):
    make(tmp_path, "a.png")
    real = os.statvfs(tmp_path)
    values = list(real)
    values[8] |= os.ST_RDONLY
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(values))
    with pytest.raises(UserError, match="is on a read-only file system"):
        find_jobs(tmp_path / "a.png", tmp_path / "out")


# --- Standard input and output --------------------------------------------------------------------------------


def test_standard_input_and_output(tmp_path):
    make(tmp_path, "a.png")
    dash = Path("-")
    assert find_jobs(dash, dash) == [Job(dash, dash)]
    assert find_jobs(dash, dash, extension=".jpg") == [Job(dash, dash)]
    assert find_jobs(dash, tmp_path / "b.png") == [Job(dash, tmp_path / "b.png")]
    assert find_jobs(tmp_path / "a.png", dash) == [Job(tmp_path / "a.png", dash)]


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        (".", "-", {}, "only one picture fits through standard output"),
        ("nowhere.png", "-", {}, "no such file or folder"),
        ("-", "folder", {}, "a picture from standard input has no name: name a file"),
        ("-", ".", {}, "a picture from standard input has no name: name a file"),
        ("-", "-", {"suffix": "_x"}, "--ext and --suffix make names"),
        ("-", "b.png", {"extension": ".png"}, "--ext and --suffix make names"),
        ("-", "-", {"right": "_L=_R"}, "--right: standard input is one picture"),
    ],
)
def test_what_standard_streams_cannot_do(tmp_path, monkeypatch, source, target, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        find_jobs(Path(source), Path(target), **options)


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("photo.png", "did you mean phot.png?"),
        ("in/deep/photo.png", "/in is there, but nothing of that name in it"),
        ("xyz", "name a picture, a folder of them, a video, or -"),
    ],
)
def test_a_path_that_leads_nowhere_names_what_was_meant(tmp_path, monkeypatch, source, hint):
    make(tmp_path, "phot.png")
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        find_jobs(Path(source), Path("out"))
    assert str(error.value).startswith(f"{source}: no such file or folder: ")
    assert hint in str(error.value)


# --- Second views ---------------------------------------------------------------------------------------------


def test_second_views_in_a_folder_of_their_own(tmp_path):
    make(tmp_path / "in", "a.png", "deep/b.png", "c.png")
    make(tmp_path / "right", "a.png", "deep/b.png")
    jobs = find_jobs(tmp_path / "in", tmp_path / "out", right=str(tmp_path / "right"))
    assert [job.right and str(job.right.relative_to(tmp_path)) for job in jobs] == [
        "right/a.png",
        None,
        "right/deep/b.png",
    ]
    assert str(jobs[1].trouble).endswith(f"c.png: there is no second view {tmp_path}/right/c.png")


def test_second_views_by_their_names(tmp_path):
    make(tmp_path / "in", "a_L.png", "a_R.png", "L_L_1.png", "L_R_1.png", "odd.png", "b_L.png")
    jobs = find_jobs(tmp_path / "in", tmp_path / "out", right="_L=_R")
    assert [(job.source.name, job.right and job.right.name) for job in jobs] == [
        ("a_L.png", "a_R.png"),
        ("b_L.png", None),
        ("L_L_1.png", "L_R_1.png"),
        ("odd.png", None),
    ]
    assert str(jobs[1].trouble).endswith("there is no second view " + str(tmp_path / "in" / "b_R.png"))
    assert str(jobs[3].trouble).endswith('odd.png: there is no second view: "_L" is not in its name')


def test_one_picture_and_its_second_view(tmp_path):
    make(tmp_path, "l.png", "r.png")
    (job,) = find_jobs(tmp_path / "l.png", tmp_path / "out.png", right=str(tmp_path / "r.png"))
    assert job.right == tmp_path / "r.png"
    with pytest.raises(UserError, match=r"r\.png: is an input, which is never overwritten"):
        find_jobs(tmp_path / "l.png", tmp_path / "r.png", right=str(tmp_path / "r.png"), may_exist=True)


@pytest.mark.parametrize("right", ["nowhere", "=R", "_L=_L"])
def test_second_views_that_cannot_be_meant(tmp_path, right):
    make(tmp_path, "a.png")
    with pytest.raises(UserError, match=f"--right {right}: "):
        find_jobs(tmp_path / "a.png", tmp_path / "out", right=right)
