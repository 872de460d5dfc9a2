"""Other people's networks by spandrel: told σ where they want it, whatever the channels, and never ours renamed."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from restormer_cli.benchmark import methods, peers
from restormer_cli.benchmark.methods import OURS, Method, check_kinds, prepare, read_kind
from restormer_cli.benchmark.networks import Network, find_network
from restormer_cli.benchmark.peers import about_peers, peer_name, prepare_peer
from restormer_cli.benchmark.scoring import ImageScore, Source, evaluate
from restormer_cli.cli import app
from restormer_cli.data.pairs import find_pairs
from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.errors import Failed, UserError
from restormer_cli.metrics.protocols import PROTOCOLS
from restormer_cli.model.textbook import TextbookRestormer
from restormer_cli.model.weights import bundled_tasks, load_weights
from restormer_cli.model.weights_file import infer_config
from restormer_cli.recipe import Pairs

# --- A stand-in for spandrel, which the tests' extra does not bring along: it needs torchvision ----------------


class Told(nn.Module):
    """Gives the picture plus its last plane; sides must be multiples of 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels + 1, channels, 1, bias=False)
        self.conv.weight.data = torch.eye(channels + 1)[:channels, :, None, None].clone()
        self.conv.weight.data[:, -1] = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2] % 4 == x.shape[3] % 4 == 0
        return self.conv(x)


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


class ImageModel:
    """What the stand-in gives for a file: by the words in it."""

    def __init__(self, words: str) -> None:
        architecture, channels, scale = words.split()
        self.model = Told(int(channels)) if architecture == "Told" else Doubled()
        self.architecture = SimpleNamespace(name=architecture)
        self.input_channels = self.output_channels = int(channels)
        self.scale, self.tags, self.supports_bfloat16 = int(scale), ["tiny"], architecture != "Told"
        self.size_requirements = SimpleNamespace(multiple_of=4)

    def __call__(self, picture: torch.Tensor) -> torch.Tensor:
        if picture.shape[2] == 13:
            raise torch.OutOfMemoryError("CUDA out of memory: tried to allocate\n…")
        return self.model(picture)


def load(path: Path) -> Any:
    words = Path(path).read_text()
    if words == "unknown":
        raise LookupError
    if words == "nonsense":
        raise ValueError("Unsupported\nmodel")
    return SimpleNamespace(architecture=SimpleNamespace(name="LaMa")) if words == "mask" else ImageModel(words)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(
        ModelLoader=lambda device: SimpleNamespace(load_from_file=load),
        ImageModelDescriptor=ImageModel,
        DuplicateArchitectureError=ValueError,
        UnsupportedModelError=LookupError,
    )
    monkeypatch.setattr(peers, "_import_torchvision", lambda: None)
    monkeypatch.setattr(peers, "require", lambda *_: None)
    monkeypatch.setitem(sys.modules, "spandrel", module)
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", SimpleNamespace(install=lambda: None))


def a_file(folder: Path, words: str, name: str = "peer.pth") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(words)
    return f"spandrel:{folder / name}"


@pytest.fixture
def network(colour_weights: Path) -> Network:
    return find_network(str(colour_weights))


def test_a_peer_that_wants_sigma_is_told_the_one_of_the_degradation(stand_in, tmp_path, write_png, network) -> None:
    """spandrel itself tells it 15/255, whatever the noise; sides that it cannot take are padded and cut."""
    write_png(tmp_path / "clean" / "a.png", 9, 14)
    samples = tuple(find_pairs(Pairs(clean=str(tmp_path / "clean")), role="--clean", table=""))
    peer = Method(a_file(tmp_path / "weights", "Told 3 1"))
    source = Source(samples, parse_degradation("gaussian:40"))
    rows = evaluate([peer], network, source, PROTOCOLS["plain"], threads=1)
    (score,) = [row for row in rows if isinstance(row, ImageScore) and row.method is not None]
    assert score.method is not None
    assert score.method.hints is not None
    assert score.method.hints.sigma == pytest.approx(40 / 255)
    picture = np.random.default_rng(0).random((9, 14, 3), np.float32)
    for sigma, expected in ((40 / 255, 40 / 255), (None, 25 / 255)):
        np.testing.assert_allclose(prepare_peer(peer.kind, sigma=sigma)(picture), picture + expected, atol=1e-6)
    np.testing.assert_allclose(prepare(score.method, network, 1)(picture), picture + 40 / 255, atol=1e-6)


def test_a_peer_that_wants_no_sigma_gets_the_picture(stand_in, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).random((9, 14, 3), np.float32)
    run = prepare_peer(a_file(tmp_path, "Doubled 3 1"), sigma=0.3)
    np.testing.assert_allclose(run(picture), 2 * picture, atol=1e-6)


@pytest.mark.parametrize(("peers_channels", "pictures_channels"), [(1, 3), (3, 1), (1, 1)])
def test_channels_of_picture_and_peer_may_differ(stand_in, tmp_path, peers_channels, pictures_channels) -> None:
    picture = np.random.default_rng(0).random((8, 12, pictures_channels), np.float32)
    result = prepare_peer(a_file(tmp_path, f"Told {peers_channels} 1"), sigma=0.1)(picture)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, picture + 0.1, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("Doubled 3 2", "Doubled enlarges pictures 2 times"),
        ("mask", "LaMa wants a mask"),
        ("nonsense", "spandrel cannot load it: Unsupported"),
        ("unknown", "an architecture that spandrel does not know"),
        ("Doubled 4 1", "takes 4 channels to 4;"),
    ],
)
def test_what_cannot_take_part_is_refused_in_a_line(stand_in, tmp_path, network, words, told) -> None:
    with pytest.raises(UserError, match=told) as caught:
        about_peers((a_file(tmp_path, words),), network)
    assert "\n" not in str(caught.value)


def test_precision_memory_and_names(stand_in, tmp_path, network) -> None:
    told, doubled = a_file(tmp_path, "Told 3 1"), a_file(tmp_path, "Doubled 3 1", "other.pth")
    with pytest.raises(UserError, match="Told does not run in bf16"):
        prepare_peer(told, precision="bf16")
    with pytest.raises(Failed, match=r"other \(spandrel\): not enough memory"):
        prepare_peer(doubled, precision="bf16")(np.zeros((13, 8, 3), np.float32))
    assert about_peers((OURS, told, doubled), network) == (
        "peer (spandrel): Told (tiny), 0.00 M parameters, told σ",
        "other (spandrel): Doubled (tiny), 0.00 M parameters, not told σ",
    )
    assert Method(told).name == peer_name(told) == "peer (spandrel)"
    with pytest.raises(UserError, match="two peers would be called peer"):
        about_peers((told, a_file(tmp_path / "more", "Told 3 1")), network)
    assert read_kind("spandrel:a=b.pth") == ("spandrel:a=b.pth", None)
    with pytest.raises(UserError, match="no such file"):
        check_kinds((f"spandrel:{tmp_path}/none.pth",))


@pytest.mark.parametrize("as_pth", [True, False])
def test_ours_under_another_name_is_refused(stand_in, tmp_path, monkeypatch, network, as_pth) -> None:
    kind = f"spandrel:{tmp_path}/{'stranger.pth' if as_pth else 'ours.safetensors'}"
    if as_pth:  # without our header, and any bundled one will do
        weights = load_weights(bundled_tasks()[0])
        torch.save({"params": weights.model.state_dict()}, tmp_path / "stranger.pth")
    else:
        (tmp_path / "ours.safetensors").write_bytes(Path(str(network.path)).read_bytes())
    found = ImageModel("Doubled 3 1")
    found.architecture.name = "Restormer"
    monkeypatch.setattr(
        sys.modules["spandrel"], "ModelLoader", lambda device: SimpleNamespace(load_from_file=lambda _: found)
    )
    with pytest.raises(
        UserError, match="would be measured against itself" if as_pth else "to measure it: restormer bench"
    ):
        about_peers((kind,), network)
    if as_pth:  # somebody else's Restormer may take part
        weights.model.output.weight.data += 0.01
        torch.save({"params": weights.model.state_dict()}, tmp_path / "stranger.pth")
        assert about_peers((kind,), network)[0].startswith("stranger (spandrel): Restormer")


# --- The real package, where it is installed ------------------------------------------------------------------


@pytest.fixture
def real() -> Any:
    if find_spec("spandrel_extra_arches") is None:  # imported below, with what it needs of torchvision
        pytest.skip("spandrel is not installed")
    return peers._spandrel("spandrel:test")


def saved(folder: Path, name: str, network: nn.Module) -> str:
    torch.save(network.state_dict(), folder / f"{name}.pth")
    return f"spandrel:{folder / name}.pth"


def test_real_networks_are_recognised_and_told(real, tmp_path: Path, network) -> None:
    from spandrel.architectures.DnCNN import DnCNN  # pyright: ignore[reportMissingImports]
    from spandrel.architectures.DRUNet import DRUNet  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    drunet = DRUNet(in_nc=4, out_nc=3, nc=[8, 8, 8, 8], nb=2).eval()
    dncnn = DnCNN(in_nc=3, out_nc=3, nc=8, nb=20, act_mode="R").eval()
    flexible = DnCNN(in_nc=2, out_nc=1, nc=8, nb=20, act_mode="R", mode="FDnCNN").eval()
    kinds = (saved(tmp_path, "drunet", drunet), saved(tmp_path, "dncnn", dncnn), saved(tmp_path, "fdncnn", flexible))
    lines = about_peers(kinds, network)
    assert [line.split(": ")[1].split(" ")[0] for line in lines] == ["DRUNet", "DnCNN", "DnCNN"]
    assert [line.endswith(", told σ") for line in lines] == [True, False, True]
    picture = np.random.default_rng(0).random((16, 24, 3), np.float32)
    planes = torch.from_numpy(picture).permute(2, 0, 1)[None]
    plane = torch.full_like(planes[:, :1], 50 / 255)
    with torch.no_grad():
        expected = (
            drunet(torch.cat([planes, plane], 1)),
            dncnn(planes).clamp(0, 1),
            torch.cat([flexible(torch.cat([planes[:, c : c + 1], plane], 1)) for c in range(3)], 1),
        )
    for kind, result in zip(kinds, expected, strict=True):
        restored = prepare_peer(kind, sigma=50 / 255)(picture)
        np.testing.assert_allclose(restored, result[0].permute(1, 2, 0).numpy(), atol=1e-5)


@pytest.mark.slow
def test_bench_has_a_row_of_quality_and_one_of_time_for_a_real_peer(real, tmp_path, write_png, colour_weights) -> None:
    from spandrel.architectures.DnCNN import DnCNN  # pyright: ignore[reportMissingImports]

    kind = saved(tmp_path, "dncnn", DnCNN(in_nc=3, out_nc=3, nc=8, nb=20, act_mode="R"))
    write_png(tmp_path / "clean" / "a.png", 24, 40)
    arguments = ["bench", colour_weights, "--device", "cpu", "--threads", 1, "--runs", 1, "--sizes", 16, "--json"]
    arguments += ["--clean", tmp_path / "clean", "--degrade", "gaussian:25", "--against", f"{kind},textbook"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert "dncnn (spandrel): DnCNN (8nc, 20nb), 0.01 M parameters, not told σ" in result.stderr
    document = json.loads(result.stdout)
    (cell,) = [cell for cell in document["cost"]["cells"] if cell["name"] == "dncnn (spandrel)"]
    assert cell["error"] is None
    assert cell["median"] > 0
    assert cell["difference"] is None  # another network: nothing to compare
    assert "dncnn (spandrel)" in json.dumps(document["quality"])


# --- The published code, and torch.compile as it is fastest ----------------------------------------------------


@pytest.fixture
def published_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The textbook network in the place of the published code."""

    class RestormerArch:
        def load(self, state: dict[str, torch.Tensor]) -> SimpleNamespace:
            model = TextbookRestormer(infer_config(state))
            model.load_state_dict(state)
            return SimpleNamespace(model=model)

    monkeypatch.setattr(peers, "_spandrel", lambda kind: None)
    stand_in = SimpleNamespace(RestormerArch=RestormerArch)
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches.architectures.Restormer", stand_in)


@pytest.mark.usefixtures("published_stand_in")
def test_the_published_code_runs_our_weights(colour_weights: Path) -> None:
    network, picture = find_network(str(colour_weights)), np.random.default_rng(0).random((24, 40, 3), np.float32)
    ours, theirs = (prepare(Method(kind), network, 1)(picture) for kind in (OURS, "published"))
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    rounded = prepare(Method("published", "bf16"), network, 1)(picture)
    assert 0 < np.abs(rounded - ours).max() < 0.1


def test_an_idle_block_is_told_of() -> None:
    (line,) = about_peers(("published",), find_network("denoise"))
    assert line.startswith("published: its code needs a block everywhere")
    assert about_peers(("published", "textbook"), find_network("paper")) == ()


def test_the_published_code_as_it_is(real, colour_weights: Path) -> None:
    network, picture = find_network(str(colour_weights)), np.random.default_rng(0).random((24, 40, 3), np.float32)
    ours, theirs = (prepare(Method(kind), network, 1)(picture) for kind in (OURS, "published"))
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_on_a_gpu_torch_compile_is_at_its_best(colour_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[nn.Module, str | None]] = []
    monkeypatch.setattr(torch, "compile", lambda model, *, dynamic, mode: given.append((model, mode)) or model)
    for device in ("cpu", "meta"):
        methods._plain(Method("compile", "bf16", device), find_network(str(colour_weights)))
    (on_cpu, plain), (on_gpu, best) = given
    assert (plain, best) == (None, "max-autotune")
    assert next(on_cpu.parameters()).dtype == torch.bfloat16
    assert next(on_gpu.parameters()).dtype == torch.float32  # under autocast
    kernel = next(weight for weight in on_gpu.parameters() if weight.ndim == 4 and min(weight.shape) > 1)
    assert kernel.is_contiguous(memory_format=torch.channels_last)
