"""`export`: what is kept does what the network does; what does not leaves nothing behind."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from restormer_cli import files
from restormer_cli.cli import app
from restormer_cli.commands.export import run as module
from restormer_cli.commands.export.run import Finished, Request, Started, Verified, export
from restormer_cli.engine.runtimes import Exported
from restormer_cli.errors import CheckFailed, Failed, UserError
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.weights import load_weights
from restormer_cli.model.weights_file import save_weights

VARIANTS: dict[str, dict[str, Any]] = {
    "colour with-bias": {},
    "colour bias-free": {"norm": "bias-free"},
    "gray": {"norm": "bias-free", "in_channels": 1, "out_channels": 1},
    "dual-pixel": {"in_channels": 6, "dual_pixel": True},
}


def run(request: Request) -> tuple[Started, list[Verified], Finished]:
    started, *verified, finished = export(request)
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    return started, [event for event in verified if isinstance(event, Verified)], finished


def weights_file(folder: Path, spread: float = 0.05, **options: Any) -> Path:
    torch.manual_seed(5)
    small: dict[str, Any] = {"dim": 6, "blocks": (1, 1, 1, 1), "heads": (1, 3, 2, 4), "refinement": 0}
    network = Restormer(ModelConfig(**{**small, **options})).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * spread)
    path = folder / "in.safetensors"
    save_weights(path, network, {"task": "denoise", "licence": "CC0", "recipe": {"name": "x"}})
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """One ONNX file that several tests look at, of one block, with heads: each takes another four seconds to export."""
    pytest.importorskip("onnxruntime", reason="pip install 'restormer-cli[export]'")
    pytest.importorskip("onnxslim", reason="pip install 'restormer-cli[export]'")
    folder = tmp_path_factory.mktemp("onnx")
    weights = weights_file(folder, blocks=(0, 0, 0, 1))
    _, _, finished = run(Request(str(weights), folder / "out.onnx", any_size=True))
    return folder, finished


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_go_out_and_come_back_equal(tmp_path: Path, variant: str, suffix: str) -> None:
    source = weights_file(tmp_path, **VARIANTS[variant])
    target = tmp_path / f"out{suffix}"
    _, verified, finished = run(Request(str(source), target))
    assert len(verified) == 6
    assert finished.metadata["verified"]["maximum"] == 0
    before, after = load_weights(source), load_weights(target)
    assert suffix == ".pth" or after.config == before.config
    for key, value in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[key], value)


def test_weights_keep_what_their_file_said_and_tell_how_they_were_checked(tmp_path: Path) -> None:
    source = weights_file(tmp_path)
    run(Request(str(source), tmp_path / "out.safetensors", precision="fp16"))
    header = load_weights(tmp_path / "out.safetensors").header
    assert header["recipe"] == {"name": "x"}
    assert header["licence"] == "CC0"
    assert header["producer"].startswith("restormer-cli ")
    assert "multiples of 8" in header["sizes"]
    assert 0 < header["verified"]["maximum"] <= header["verified"]["limit"]
    with safe_open(tmp_path / "out.safetensors", framework="pt") as file:
        assert file.get_tensor("output.weight").dtype == torch.float16


def test_pth_is_the_official_layout_with_a_note_that_others_pass_over(tmp_path: Path) -> None:
    source = weights_file(tmp_path)
    run(Request(str(source), tmp_path / "out.pth"))
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    assert set(content) == {"params", "restormer_cli"}
    assert list(content["params"]) == list(load_weights(source).model.state_dict())
    assert json.loads(content["restormer_cli"])["verified"]["maximum"] == 0


def test_the_onnx_file_tells_what_it_is_and_runs_at_sizes_that_nobody_checked(exported) -> None:
    folder, finished = exported
    network = load_weights(folder / "in.safetensors").model
    loaded = Exported(folder / "out.onnx")
    assert loaded.config == network.config
    assert loaded.task == "denoise"
    assert loaded.header["licence"] == "CC0"
    assert loaded.header["verified"]["maximum"] < 0.05
    assert {row["name"].split()[0] for row in loaded.header["verified"]["inputs"]} == {"photograph", "random"}
    assert finished.bytes == (folder / "out.onnx").stat().st_size
    x = torch.rand(3, 3, 32, 88)
    with torch.inference_mode():
        assert (loaded.run(x) - network(x)).abs().max() < 0.01 / 255
    assert loaded.run(x[..., :1, :1]).shape == (3, 3, 1, 1)


def test_restore_runs_an_exported_file_with_the_same_answer_whole_and_in_tiles(exported, samples) -> None:
    from restormer_cli.engine.restorer import Restorer

    folder, _ = exported
    picture = samples(43, 70).astype("float32") / 255
    loaded, network = Exported(folder / "out.onnx"), load_weights(folder / "in.safetensors").model
    choices: tuple[dict[str, Any], ...] = ({}, {"tile": 32, "overlap": 8})
    for options in choices:
        ours, theirs = Restorer(network, **options), Restorer(loaded, **options)
        assert str(theirs.plan(43, 70)) == str(ours.plan(43, 70))
        assert abs(ours(picture) - theirs(picture)).max() < 0.01 / 255
    assert Restorer(loaded, memory="2GB").plan(4000, 6000).kind == "tiles"
    with pytest.raises(UserError, match="too little for"):
        Restorer(loaded, memory="1MB").plan(100, 100)
    wrongs: tuple[dict[str, Any], ...] = ({"window": 64}, {"compile": True}, {"precision": "bf16"}, {"device": "cuda"})
    for wrong in wrongs:
        with pytest.raises(UserError, match="is a finished graph"):
            Restorer(loaded, **wrong)


def test_restore_takes_an_exported_file_on_the_command_line(exported, tmp_path: Path, write_png) -> None:
    folder, _ = exported
    source = write_png(tmp_path / "in.png")
    answers = []
    for name in ("in.safetensors", "out.onnx"):
        target = tmp_path / f"{name}.png"
        result = CliRunner().invoke(app, ["restore", str(source), str(target), "--weights", str(folder / name)])
        assert result.exit_code == 0, result.output
        answers.append(target.read_bytes())
    assert answers[0] == answers[1]


def test_an_exported_derainer_knows_that_rain_falls(tmp_path: Path) -> None:
    from restormer_cli.engine.positions import ALL, UPRIGHT
    from restormer_cli.engine.restorer import Restorer

    config = ModelConfig(dim=4, blocks=(0, 1, 0, 1), refinement=0)
    for steps, positions in ((["rainfall:1-12"], UPRIGHT), (["gaussian:25"], ALL)):
        source, target = tmp_path / "w.safetensors", tmp_path / "w.pt2"
        save_weights(source, Restormer(config), {"recipe": {"degrade": {"steps": steps}}})
        list(export(Request(str(source), target, overwrite=True)))
        assert Restorer(Exported(target)).positions == positions


def test_two_channels_swapped_in_the_graph_are_caught(
    exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    import onnx
    from onnx import numpy_helper

    folder, _ = exported
    graph = onnx.load(folder / "out.onnx")
    depth = next(x for x in graph.graph.initializer if list(x.dims)[1:] == [1, 3, 3])
    values = np.array(numpy_helper.to_array(depth))
    values[[0, 1]] = values[[1, 0]]
    depth.CopyFrom(numpy_helper.from_array(values, depth.name))
    monkeypatch.setattr("restormer_cli.export.onnx_file.build_onnx", lambda *_: graph)
    events = export(Request(str(folder / "in.safetensors"), tmp_path / "broken.onnx", any_size=True))
    with pytest.raises(CheckFailed, match=r"broken\.onnx: not written: on .* differs from the network by") as error:
        list(events)
    assert error.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_swapped_channels_in_weights_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = weights_file(tmp_path)
    real = save_weights

    def swapping(path: Path, model: Restormer, *arguments: Any, **options: Any) -> None:
        state = {key: value.clone() for key, value in model.state_dict().items()}
        weight = state["down1_2.body.0.weight"]
        weight[[0, 1]] = weight[[1, 0]]
        other = Restormer(model.config)
        other.load_state_dict(state)
        real(path, other, *arguments, **options)

    monkeypatch.setattr("restormer_cli.model.weights_file.save_weights", swapping)
    with pytest.raises(CheckFailed, match="differs from the network"):
        list(export(Request(str(source), tmp_path / "out.pth")))
    assert not (tmp_path / "out.pth").exists()


def test_a_result_that_is_not_a_number_is_no_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = weights_file(tmp_path)
    monkeypatch.setattr(module, "_no_grad", lambda model: lambda x: torch.full_like(x, torch.nan))
    with pytest.raises(CheckFailed, match="inf/255"):
        list(export(Request(str(source), tmp_path / "out.pth")))


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_an_interruption_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    source = weights_file(tmp_path)

    def fail(descriptor: int) -> None:
        raise failure

    wanted = Failed if isinstance(failure, OSError) else KeyboardInterrupt
    calls = iter(range(10))
    real = files.os.fsync  # the scratch files come first: only the last writing is to fail
    monkeypatch.setattr(files.os, "fsync", lambda fd: fail(fd) if next(calls) >= 2 else real(fd))
    with pytest.raises(wanted):
        list(export(Request(str(source), tmp_path / "out.pth")))
    assert [path.name for path in tmp_path.iterdir()] == ["in.safetensors"]


def test_of_two_files_both_or_none_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, done = os.fsync, []

    def full(descriptor: int) -> None:
        done.append(descriptor)
        if len(done) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    for before in ({}, {"x.bin": b"old", "x.xml": b"old"}):
        done.clear()
        for name, data in before.items():
            (tmp_path / name).write_bytes(data)
        with pytest.raises(Failed, match="No space left on device"):
            module._write(tmp_path / "x.xml", {".bin": b"1", ".xml": b"2"})
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert module._write(tmp_path / "x.xml", {".bin": b"1", ".xml": b"2"}) == [tmp_path / "x.bin", tmp_path / "x.xml"]
    assert (tmp_path / "x.bin").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("x.tflite", {}, r"unknown format \.tflite; choose \.safetensors"),
        ("x", {}, "without an extension"),
        ("x.onnx", {"precision": "bf16"}, r"--precision bf16: \.onnx takes fp32, fp16"),
        ("x.pth", {"precision": "int8"}, r"--precision int8: \.pth takes"),
        ("x.onnx", {"compile": True}, r"--compile: makes a compiled \.pt2"),
        ("x.pth", {"any_size": True}, "holds weights, no graph"),
        ("in.safetensors", {}, "already there: --overwrite"),
        ("in.safetensors", {"overwrite": True}, "is the input"),
        ("none/x.pth", {}, "no such folder"),
    ],
)
def test_a_wrong_request_is_one_line_before_any_work(tmp_path: Path, name: str, options: dict, says: str) -> None:
    source = weights_file(tmp_path)
    with pytest.raises(UserError, match=says) as error:
        next(export(Request(str(source), tmp_path / name, **options)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("x.onnx", "onnxslim", "export"), ("x.xml", "openvino", "openvino")]
)
def test_a_missing_extra_is_one_line_with_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, extra: str
) -> None:
    from restormer_cli import extras

    def version(wanted: str) -> str:
        if wanted == package:
            raise extras.metadata.PackageNotFoundError(wanted)
        return "99.0"

    monkeypatch.setattr(extras.metadata, "version", version)
    with pytest.raises(UserError, match=rf"needs the package {package}: pip install 'restormer-cli\[{extra}\]'"):
        next(export(Request(str(weights_file(tmp_path)), tmp_path / name)))


def test_an_onnxscript_that_reorders_channels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from restormer_cli import extras

    monkeypatch.setattr(extras.metadata, "version", lambda name: "0.7.0")
    with pytest.raises(UserError, match=r"needs onnxscript 0\.7\.1 or newer, this is 0\.7\.0: pip install --upgrade"):
        next(export(Request(str(weights_file(tmp_path)), tmp_path / "x.onnx")))


def test_a_missing_compiler_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restormer_cli.export.graph.shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        list(export(Request(str(weights_file(tmp_path)), tmp_path / "x.pt2", compile=True)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, None),
        ({"expansion": 2.0}, None),
        ({"expansion": 2.53, "dim": 64, "heads": (1, 2, 4, 8)}, "expansion 2.53"),
        ({"attention": "mta"}, "attention = mta"),
        ({"feed_forward": "dfn", "concat": False}, "feed_forward = dfn, concat = False"),
    ],
)
def test_export_says_which_weights_spandrel_cannot_load(tmp_path: Path, options: dict, says: str | None) -> None:
    started = next(export(Request(str(weights_file(tmp_path, **options)), tmp_path / "x.pth")))
    assert isinstance(started, Started)
    assert (says is None) == (started.notes == ())
    assert says is None or says in started.notes[0]


def test_the_layout_that_other_tools_detect() -> None:
    """The contract that spandrel's detection rests on (docs/interoperation.md), without spandrel."""
    state = Restormer(ModelConfig()).state_dict()
    for key, shape in {
        "patch_embed.proj.weight": [48, 3, 3, 3],
        "encoder_level1.0.norm1.body.weight": [48],
        "encoder_level1.0.norm1.body.bias": [48],
        "encoder_level1.0.attn.temperature": [1, 1, 1],
        "encoder_level1.0.attn.qkv.weight": [144, 48, 1, 1],
        "encoder_level1.0.attn.qkv_dwconv.weight": [144, 1, 3, 3],
        "encoder_level1.0.attn.project_out.weight": [48, 48, 1, 1],
        "encoder_level1.0.ffn.project_in.weight": [254, 48, 1, 1],
        "encoder_level1.0.ffn.dwconv.weight": [254, 1, 3, 3],
        "encoder_level1.0.ffn.project_out.weight": [48, 127, 1, 1],
        "down1_2.body.0.weight": [24, 48, 3, 3],
        "down2_3.body.0.weight": [48, 96, 3, 3],
        "down3_4.body.0.weight": [96, 192, 3, 3],
        "latent.7.attn.temperature": [8, 1, 1],
        "up4_3.body.0.weight": [768, 384, 3, 3],
        "reduce_chan_level3.weight": [192, 384, 1, 1],
        "up3_2.body.0.weight": [384, 192, 3, 3],
        "reduce_chan_level2.weight": [96, 192, 1, 1],
        "up2_1.body.0.weight": [192, 96, 3, 3],
        "refinement.3.ffn.project_out.weight": [96, 255, 1, 1],
        "output.weight": [3, 96, 3, 3],
    }.items():
        assert list(state[key].shape) == shape, key


def test_the_command_prints_its_report_and_the_metadata(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(weights_file(tmp_path)), str(tmp_path / "o.pth"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["verified"]["maximum"] == 0
    assert "photograph astronaut" in result.stderr
    assert "within 0.05/255" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.onnx", {}),
        ("x.onnx", {"any_size": True}),
        ("x.pt2", {}),
        ("x.pt2", {"any_size": True}),
        ("x.pt2", {"precision": "bf16"}),
        ("x.pt2", {"precision": "fp16", "any_size": True}),
        ("x.xml", {"any_size": True}),
        ("x.xml", {"precision": "fp16"}),
    ],
)
def test_every_format_takes_every_network(tmp_path: Path, variant: str, name: str, options: dict) -> None:
    for package in {"x.onnx": ("onnxslim",), "x.xml": ("onnxslim", "openvino")}.get(name, ()):
        pytest.importorskip(package, reason="pip install 'restormer-cli[export,openvino]'")
    # The bias-free norm divides by a σ that is tiny where a picture is flat: with wild random weights bf16's rounding
    # becomes 16.2/255 there (gray, mean 0.9), and is refused, rightly. So bf16 has the weights as they are initialised.
    spread = 0.0 if options.get("precision") == "bf16" else 0.05
    source = weights_file(tmp_path, spread, **VARIANTS[variant])
    _, verified, _ = run(Request(str(source), tmp_path / name, **options))
    assert len(verified) == (8 if options.get("any_size") else 6)
    loaded, network = Exported(tmp_path / name), load_weights(source).model
    x = torch.rand(1, network.config.in_channels, 104, 16)
    with torch.inference_mode():
        assert (loaded.run(x) - network(x)).abs().max() * 255 < loaded.header["verified"]["limit"]


@pytest.mark.slow
@pytest.mark.parametrize("any_size", [False, True])
def test_a_compiled_package_runs(tmp_path: Path, any_size: bool) -> None:
    source = weights_file(tmp_path)
    _, verified, _ = run(Request(str(source), tmp_path / "x.pt2", compile=True, any_size=any_size))
    assert len(verified) == (8 if any_size else 6)
    assert Exported(tmp_path / "x.pt2").task == "denoise"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.onnx", "x.pt2"])
@pytest.mark.parametrize("options", [{"attention": "mta", "feed_forward": "fn"}, {"feed_forward": "gfn", "bias": True}])
def test_ablation_variants_export_too(tmp_path: Path, name: str, options: dict) -> None:
    if name == "x.onnx":
        pytest.importorskip("onnxslim", reason="pip install 'restormer-cli[export]'")
    run(Request(str(weights_file(tmp_path, **options, concat=False)), tmp_path / name))
