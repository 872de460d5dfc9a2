"""Weights by name: fetched once, checked, converted, with the licence told; and what is said when that cannot be."""

import io
import json
import logging
import os
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from restormer_cli.cli import app
from restormer_cli.errors import Failed, UserError
from restormer_cli.model import download as download_room
from restormer_cli.model import hub
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.weights import load_weights
from restormer_cli.model.weights_file import save_weights
from restormer_cli.recipe_files import read_recipe

FILE = "/motion_deblurring.pth"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, no proxy, and no waiting."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "RESTORMER_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("RESTORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download_room, "TRIES", 1)
    return tmp_path / "cache"


def pth(network: torch.nn.Module) -> bytes:
    stream = io.BytesIO()
    torch.save({"params": network.state_dict()}, stream)
    return stream.getvalue()


@pytest.fixture
def release(site, cache, tiny_network, monkeypatch):
    """A release whose motion-deblur is a tiny network."""
    network = tiny_network(seed=3, norm="with-bias")
    monkeypatch.setitem(hub.OFFICIAL, "motion-deblur", hub.Official(FILE[1:], network.config))
    monkeypatch.setenv("RESTORMER_MIRROR", site.url + "/")
    site.files[FILE] = pth(network)
    site.network = network
    return site


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- The paper's files ----------------------------------------------------------------------------------------


def test_the_thirteen_are_the_recipes_and_their_networks():
    assert len(hub.OFFICIAL) == len({official.file for official in hub.OFFICIAL.values()}) == 13
    sizes = {(3, "with-bias"): 26_126_644, (3, "bias-free"): 26_111_668, (6, "with-bias"): 26_132_548,
             (1, "bias-free"): 26_109_076}  # fmt: skip
    for official in hub.OFFICIAL.values():
        with torch.device("meta"):
            network = Restormer(official.config)
        count = sum(parameter.numel() for parameter in network.parameters())
        assert count == sizes[official.config.in_channels, official.config.norm]
    assert read_recipe("recipes/defocus.toml").model == hub.OFFICIAL["defocus"].config


def test_a_name_is_fetched_once_converted_and_used_by_restore(release, cache, tmp_path, write_png):
    write_png(tmp_path / "a.png")
    arguments = ["restore", "--device", "cpu", "--weights", "official/motion-deblur", str(tmp_path / "a.png")]
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "b.png")])
    assert result.exit_code == 0, result.output
    assert "licence: academic, non-commercial" in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert files(cache) == ["lock", "official/motion-deblur.safetensors", "records.json"]
    again = CliRunner().invoke(app, [*arguments, str(tmp_path / "c.png")])
    assert again.exit_code == 0
    assert "licence" not in again.stderr
    assert len(release.asked) == 1
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()
    weights = load_weights("official/motion-deblur")
    assert weights.task == "motion-deblur"
    assert "non-commercial" in weights.header["licence"]
    for key, value in release.network.state_dict().items():
        assert torch.equal(weights.model.state_dict()[key], value)


def test_python_tells_the_licence_in_the_log(release, caplog):
    with caplog.at_level(logging.WARNING):
        load_weights("official/motion-deblur")
    assert "non-commercial" in caplog.text


def test_progress_is_told(release):
    seen = []
    hub.fetch("official/motion-deblur", lambda text: None, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(release.files[FILE]),) * 2


def test_a_file_that_changed_is_refused_until_its_record_is_deleted(release, cache, tiny_network):
    path = hub.fetch("official/motion-deblur")
    path.unlink()
    release.files[FILE] = pth(tiny_network(seed=4, norm="with-bias"))
    with pytest.raises(
        Failed, match=r"not the file that came on 20.*delete official/motion-deblur from .*records.json"
    ):
        hub.fetch("official/motion-deblur")
    assert files(cache) == ["lock", "records.json"]
    (cache / "records.json").write_text("{}")
    assert hub.fetch("official/motion-deblur") == path


def test_a_damaged_copy_in_the_cache_is_fetched_again(release):
    path = hub.fetch("official/motion-deblur")
    data = path.read_bytes()
    path.write_bytes(data[:-5] + bytes(5))
    assert hub.fetch("official/motion-deblur") == path
    assert path.read_bytes()[-5:] == data[-5:] != bytes(5)
    assert len(release.asked) == 2


def test_damaged_records_are_told(release, cache):
    cache.mkdir()
    (cache / "records.json").write_text("{")
    with pytest.raises(Failed, match=r"records.json: is damaged: delete it"):
        hub.fetch("official/motion-deblur")


def test_a_truncated_file_is_resumed_later(release, cache):
    release.breaks = [1000, 0]
    with pytest.raises(Failed, match=r"1,000 of .* bytes are there"):
        hub.fetch("official/motion-deblur")
    assert "official/motion-deblur.safetensors" not in files(cache)
    assert hub.fetch("official/motion-deblur").is_file()
    assert release.asked[-1][2] == "bytes=1000-"


@pytest.mark.parametrize("content", ["<html>Sign in</html>", "other"])
def test_what_is_not_the_network_is_not_kept(release, cache, tiny_network, content):
    other = pth(tiny_network(seed=3, norm="bias-free"))
    release.files[FILE] = other if content == "other" else content.encode()
    with pytest.raises(Failed, match=r"not the network that the paper trained|is a web page, not weights"):
        hub.fetch("official/motion-deblur")
    assert files(cache) == ["lock"]


def test_a_missing_file_names_the_address_and_the_way_by_hand(release):
    del release.files[FILE]
    with pytest.raises(Failed, match=r"/motion_deblurring.pth: no such file there .*--weights motion_deblurring.pth"):
        hub.fetch("official/motion-deblur")


def test_without_a_network_it_is_one_line_with_a_cure(cache, monkeypatch, tmp_path, write_png):
    monkeypatch.setenv("RESTORMER_MIRROR", "http://127.0.0.1:9")  # nobody listens there
    source, target = write_png(tmp_path / "a.png"), tmp_path / "b.png"
    result = CliRunner().invoke(app, ["restore", str(source), str(target), "--weights", "official/motion-deblur"])
    assert result.exit_code == 1
    assert "cannot be reached" in result.stderr
    assert "--weights motion_deblurring.pth" in result.stderr
    assert "Traceback" not in result.stderr
    monkeypatch.setenv("RESTORMER_OFFLINE", "1")
    with pytest.raises(Failed, match="the network is switched off: unset RESTORMER_OFFLINE"):
        hub.fetch("official/motion-deblur")


def test_offline_is_no_matter_when_it_is_there(release, monkeypatch):
    path = hub.fetch("official/motion-deblur")
    monkeypatch.setenv("RESTORMER_OFFLINE", "1")
    assert hub.fetch("official/motion-deblur") == path


@pytest.mark.parametrize("name", ["", "motion", "../../etc/passwd", "derain/../derain", "derain.pth", "Derain"])
def test_a_name_that_is_none_of_the_thirteen_lists_them(cache, name):
    with pytest.raises(UserError, match=r"no such weights; the paper's are derain, motion-deblur"):
        load_weights(f"official/{name}")
    assert files(cache) in ([], ["lock"])


def test_a_file_of_that_name_comes_first(cache, tmp_path, monkeypatch, colour_weights):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "official").mkdir()
    (tmp_path / "official" / "mine.safetensors").write_bytes(colour_weights.read_bytes())
    assert load_weights("official/mine.safetensors").task == "denoise"


def test_a_cache_that_cannot_be_made_is_told(tmp_path, cache, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESTORMER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(Failed, match="cannot be written"):
        hub.fetch("official/derain")


# --- Hugging Face ---------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def face(site, cache, monkeypatch, tmp_path, tiny_network):
    """A Hugging Face with one repository, org/repo, of one weights file."""
    from huggingface_hub import constants, hf_api

    monkeypatch.setattr(constants, "ENDPOINT", site.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", site.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(hf_api.api, "endpoint", site.url)
    save_weights(tmp_path / "w.safetensors", tiny_network(seed=5), {"task": "denoise", "licence": "mine"})
    data = (tmp_path / "w.safetensors").read_bytes()

    def file(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.send_header("ETag", '"abc"')
        request.send_header("X-Repo-Commit", COMMIT)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(data)

    def card(request):
        body = json.dumps({"id": "org/repo", "sha": COMMIT, "cardData": {"license": "cc-by-4.0"}, "siblings": []})
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body.encode())

    def missing(request):
        request.send_response(404)
        request.send_header("X-Error-Code", "EntryNotFound")
        request.send_header("Content-Length", "0")
        request.end_headers()

    def nobody(request):
        request.send_response(401)
        request.send_header("X-Error-Code", "RepoNotFound")
        request.send_header("Content-Length", "0")
        request.end_headers()

    for revision in ("main", "v2"):
        site.answers[f"/org/repo/resolve/{revision}/sub/w.safetensors"] = file
    site.answers["/api/models/org/repo"] = card
    site.answers["/api/models/org/repo/revision/v2"] = card
    site.answers["/org/repo/resolve/main/none.pth"] = missing
    site.answers["/org/none/resolve/main/w.pth"] = nobody
    return site


def test_weights_from_hugging_face(face, cache):
    said, seen = [], []
    path = hub.fetch("hf:org/repo/sub/w.safetensors", said.append, lambda done, total: seen.append(done))
    assert said == ["hf:org/repo/sub/w.safetensors: licence cc-by-4.0 (https://huggingface.co/org/repo)"]
    assert path.parent == cache / "hf"
    header = load_weights(path).header
    assert (header["task"], header["licence"]) == ("denoise", "mine")
    assert header["source"]["repository"] == "org/repo"
    asked = len(face.asked)
    assert hub.fetch("hf:org/repo/sub/w.safetensors") == path
    assert len(face.asked) == asked
    assert hub.fetch("hf:org/repo@v2/sub/w.safetensors") != path
    assert seen


def test_what_hugging_face_lacks_is_told(face):
    with pytest.raises(Failed, match=r"org/repo has no file none.pth: look at https"):
        hub.fetch("hf:org/repo/none.pth")
    with pytest.raises(Failed, match=r"no such repository, or a private one"):
        hub.fetch("hf:org/none/w.pth")
    face.answers["/org/repo/resolve/main/sub/w.safetensors"] = lambda request: request.send_error(403)
    with pytest.raises(Failed, match=r"cannot be (fetched|reached)"):
        hub.fetch("hf:org/repo/sub/w.safetensors")


@pytest.mark.parametrize(
    "name",
    ["hf:", "hf:org", "hf:org/repo", "hf:org/repo/../../x.pth", "hf:org/repo/x.exe", "hf:a/b/c\n.pth", "hf:../a/b.pth"],
)
def test_a_name_that_is_no_address_is_refused(cache, name):
    with pytest.raises(UserError, match=r"write hf:organisation|weights are files"):
        hub.fetch(name)


def test_hugging_face_offline(face, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Failed, match="the network is switched off"):
        hub.fetch("hf:org/repo/sub/w.safetensors")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert face.asked == []
