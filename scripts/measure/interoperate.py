#!/usr/bin/env python3
"""Do our files load in spandrel, with the same answer, and do files from elsewhere load here? With the real packages.

    python scripts/measure/interoperate.py               # the table of docs/interoperation.md
    python scripts/measure/interoperate.py --time 512    # our textbook page against the published network, in seconds

spandrel and spandrel-extra-arches go into an environment of their own (a temporary one, or --environment DIR to keep
it), since they want torchvision, which this project does not. It gets the torch that runs here. Exit 4: not equal.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

PACKAGES = ("spandrel==0.4.2", "spandrel-extra-arches==0.2.0", "torchvision")
PLAIN = ("numpy", "pillow", "safetensors", "einops", "typing_extensions")
LIMIT = 0.05
"""Largest error allowed, in 1/255."""
SMALL = {"dim": 12, "blocks": [2, 1, 1, 3], "refinement": 1, "heads": [1, 2, 4, 1]}
NETWORKS = {
    "colour, with-bias": SMALL,
    "colour, bias-free": {**SMALL, "norm": "bias-free"},
    "gray, bias-free": {**SMALL, "norm": "bias-free", "in_channels": 1, "out_channels": 1},
    "dual-pixel": {**SMALL, "in_channels": 6, "dual_pixel": True},
    "the paper's": {},
    "wide-shallow (expansion 2)": {"dim": 80, "blocks": [1, 2, 2, 2], "refinement": 3, "expansion": 2.0},
    "middle (expansion 2.53)": {"dim": 64, "blocks": [2, 3, 3, 4], "refinement": 3, "expansion": 2.53},
    "ablation: MTA + GDFN": {**SMALL, "attention": "mta"},
    "ablation: MDTA + FN": {**SMALL, "feed_forward": "fn"},
    "ablation: no concatenation": {**SMALL, "concat": False},
}
EXEMPT = ("middle", "ablation")
"""Networks that spandrel cannot tell from the weights alone; export says so."""


def main() -> None:
    arguments = _arguments()
    if arguments.child:
        sys.exit(_child(arguments.child, arguments.time, arguments.runs))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = _environment(arguments.environment or folder / "environment")
        if arguments.time:
            _write_timed(folder)
        else:
            _write_files(folder)
        options = ["--time", str(arguments.time), "--runs", str(arguments.runs)] if arguments.time else []
        subprocess.run([str(python), __file__, "--child", str(folder), *options], check=True)
        sys.exit(0 if arguments.time else _read_answers(folder))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, metavar="DIR", help="keep the environment here, and use it again")
    parser.add_argument("--time", type=int, metavar="SIDE", help="time both networks on a picture of SIDE² instead")
    parser.add_argument("--runs", type=int, default=1, help="timed runs of each network, alternately (default: 1)")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _environment(folder: Path) -> Path:
    """A virtual environment with spandrel in it -> its Python."""
    import torch

    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        version = torch.__version__.split("+")[0]
        subprocess.run([*install, f"torch=={version}", *PLAIN], check=True)
        # Without their dependencies: torchvision would bring the CUDA build of another torch along.
        subprocess.run([*install, "--no-deps", *PACKAGES], check=True)
    return python


# --- here ------------------------------------------------------------------------------------------------------------


def _network(options: dict):
    import torch

    from restormer_cli.model.config import ModelConfig
    from restormer_cli.model.restormer import Restormer

    torch.manual_seed(7)
    network = Restormer(ModelConfig.from_dict(options)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            # Away from ones and zeros, where mistakes hide, and no further: the answer has to stay a picture's size.
            parameter.add_(torch.randn_like(parameter) * 0.2 * parameter.abs().mean().clamp_min(0.05))
    return network


def _write_files(folder: Path) -> None:
    """Every network as .safetensors and .pth, by way of the verb itself; an input and our answer beside it."""
    import torch

    from restormer_cli.commands.export.run import Request, export
    from restormer_cli.model.weights_file import save_weights

    for number, (name, options) in enumerate(NETWORKS.items()):
        network = _network(options)
        save_weights(folder / "original.safetensors", network, {"task": "denoise"})
        for suffix in (".safetensors", ".pth"):
            for event in export(Request(str(folder / "original.safetensors"), folder / f"{number}{suffix}")):
                for note in getattr(event, "notes", ()):
                    print(f"{name}: {note}", file=sys.stderr)
        picture = torch.rand(1, network.config.in_channels, 48, 72)
        with torch.inference_mode():
            torch.save({"picture": picture, "answer": network(picture)}, folder / f"{number}.tensors")


def _write_timed(folder: Path) -> None:
    import torch

    from restormer_cli.model.weights_file import save_weights

    torch.set_num_threads(1)
    save_weights(folder / "timed.pth", _network({}), {})


def _read_answers(folder: Path) -> int:
    import torch

    from restormer_cli.model.weights import load_weights

    failed = False
    print("| network | file | spandrel says | largest difference, 1/255 |\n|---|---|---|---|")
    for row in json.loads((folder / "answers.json").read_text()):
        exempt = row["network"].startswith(EXEMPT)
        equal = row["error"] is None and row["difference"] <= LIMIT
        failed |= equal == exempt
        difference = "–" if row["error"] else f"{row['difference']:.2g}"
        print(f"| {row['network']} | {row['suffix']} | {row['error'] or row['found']} | {difference} |")
    print("\n| written by spandrel's network | loads here as | largest difference, 1/255 |\n|---|---|---|")
    for path in sorted(folder.glob("theirs-*.pth")):
        weights = load_weights(path)
        pair = torch.load(path.with_suffix(".tensors"))
        with torch.inference_mode():
            difference = (weights.model(pair["picture"]) - pair["answer"]).abs().max().item() * 255
        failed |= difference > LIMIT
        c = weights.config
        print(f"| {path.name} | dim {c.dim}, blocks {c.blocks}, {c.norm}, {c.in_channels} → {c.out_channels} "
              f"| {difference:.2g} |")  # fmt: skip
    print("\nnot as expected" if failed else "\nas expected: equal, except those that export says spandrel cannot load")
    return 4 if failed else 0


# --- there: in the other environment ----------------------------------------------------------------------------------


def _spandrel():
    """spandrel with its extra architectures.

    The torchvision of the package index is built for a CUDA torch, so on a CPU one its compiled operators are missing
    and importing it fails where it describes their shapes. Restormer uses none of them: they are declared, so that
    the import goes through, and not defined.
    """
    from torch import library

    operators = library.Library("torchvision", "DEF")
    for _ in range(50):
        try:
            import torchvision  # noqa: F401  # pyright: ignore[reportMissingImports]
        except RuntimeError as error:
            operator = str(error).split("torchvision::")[-1].split(" ")[0]
            if "does not exist" not in str(error):
                raise
            operators.define(f"{operator}(Tensor x) -> Tensor")
            for module in [name for name in sys.modules if name.startswith("torchvision")]:
                del sys.modules[module]
        else:
            break
    import spandrel  # pyright: ignore[reportMissingImports]
    import spandrel_extra_arches  # pyright: ignore[reportMissingImports]

    spandrel_extra_arches.install()
    return spandrel


def _child(folder: Path, side: int | None, runs: int) -> int:
    spandrel = _spandrel()
    if side:
        _time(folder, spandrel, side, runs)
    else:
        _answer(folder, spandrel)
    return 0


def _answer(folder: Path, spandrel) -> None:
    import torch

    rows = []
    for number, name in enumerate(NETWORKS):
        for suffix in (".safetensors", ".pth"):
            pair = torch.load(folder / f"{number}.tensors")
            row: dict = {"network": name, "suffix": suffix, "error": None}
            try:
                found = spandrel.ModelLoader(device="cpu").load_from_file(folder / f"{number}{suffix}")
                with torch.inference_mode():
                    answer = found.model(pair["picture"])
                row["found"] = found.architecture.name
                row["difference"] = (answer - pair["answer"]).abs().max().item() * 255
                if suffix == ".pth" and not name.startswith(EXEMPT):
                    _write_theirs(folder, number, found, pair["picture"])
            except Exception as error:  # whatever it says is the answer
                row["error"] = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])[:100]
            rows.append(row)
    (folder / "answers.json").write_text(json.dumps(rows))


def _write_theirs(folder: Path, number: int, found, picture) -> None:
    """New weights in their network, written in the official layout by a line that knows nothing of ours."""
    import torch

    torch.manual_seed(number)
    with torch.inference_mode():
        state = {key: value * (1 + 0.1 * torch.randn_like(value)) for key, value in found.model.state_dict().items()}
        found.model.load_state_dict(state)
        torch.save({"params": state}, folder / f"theirs-{number}.pth")
        torch.save({"picture": picture, "answer": found.model(picture)}, folder / f"theirs-{number}.tensors")


def _time(folder: Path, spandrel, side: int, runs: int) -> None:
    """Both in this process, with the same weights, eager, in float32, alternately, after a small warm-up."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import torch

    from restormer_cli.model.config import ModelConfig
    from restormer_cli.model.textbook import TextbookRestormer

    published = spandrel.ModelLoader(device="cpu").load_from_file(folder / "timed.pth").model.eval()
    textbook = TextbookRestormer(ModelConfig()).eval()
    textbook.load_state_dict(published.state_dict())
    seconds: dict[str, list[float]] = {"textbook": [], "published": []}
    picture = torch.rand(1, 3, side, side)
    with torch.inference_mode():
        difference = (textbook(picture[..., :64, :64]) - published(picture[..., :64, :64])).abs().max().item() * 255
        for _ in range(runs):
            for name, network in (("textbook", textbook), ("published", published)):
                begun = time.perf_counter()
                network(picture)
                seconds[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["textbook"] / medians["published"]
    print(f"{side}×{side}, fp32, {torch.get_num_threads()} threads, torch {torch.__version__}, {runs} runs each")
    print(f"textbook {medians['textbook']:.2f} s, published {medians['published']:.2f} s: ratio {ratio:.3f}")
    print(f"largest difference between them at 64×64: {difference:.2g}/255")


if __name__ == "__main__":
    main()
