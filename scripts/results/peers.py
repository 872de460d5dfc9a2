#!/usr/bin/env python3
"""Score bundled checkpoints against published learned peers on sharp photographs that nothing was trained or tuned on.

    python scripts/results/peers.py --photographs datasets/sharp/validate --peers FOLDER --out docs/results/peers.json

FOLDER holds FFDNet_color.npz (Zhang et al., TIP 2018; told σ) and CDnCNN_B.npz (TIP 2017; blind): the convolutions of
the published weights as NumPy arrays `w0, b0, w1, …`. They are not in this repository; without --peers ours stand
alone. Pictures are centre crops of --crop pixels. Gaussian noise is the published protocol's (seed 0, not clipped;
results clamped, not rounded), PSNR in RGB. The other rows are specs of the degradation language, seeded by the
picture's number. `--old FILE` adds a column of earlier weights of the same task, `--ensemble` one of ours by the mean
of its views, as `restormer restore --ensemble` takes them.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from maxim import maxim
from picture_kinds import CLEAN, KINDS
from torch import Tensor

from restormer_cli.degradations.operators import published_gaussian
from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.engine.adapter import restore_pixels
from restormer_cli.engine.restorer import Restorer
from restormer_cli.engine.strips import StripNetwork
from restormer_cli.images.io import read_picture
from restormer_cli.model.weights import load_weights

MORE = {"clean": CLEAN} | {name: kind.held_out for name, kind in KINDS.items()}
"""Rows beside the published Gaussian noise."""
STRENGTHS = (4, 8, 14, 22, 34)
"""σ that BM3D is told on a camera's noise, of 255; the best for each picture counts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, default=Path("datasets/sharp/validate"))
    parser.add_argument("--peers", type=Path, help="folder of the peers' weights")
    parser.add_argument("--maxim", type=Path, help="unpacked package of MAXIM's weights, as in maxim.py")
    parser.add_argument("--weights", default="denoise", help="a bundled name or a file")
    parser.add_argument("--old", type=Path, action="append", default=[], help="earlier weights, for a column")
    parser.add_argument("--ensemble", action="store_true", help="add the mean of our answers to several views")
    parser.add_argument("--every", type=int, default=1, help="take every N-th photograph")
    parser.add_argument("--crop", type=int, default=256, help="side of the centre crops; 0: whole photographs")
    parser.add_argument("--rows", default="15,25,50,sensor,gray,clean", help="σ of Gaussian noise, or kinds")
    parser.add_argument("--bm3d", action="store_true", help="add BM3D with the best of its strengths for each picture")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ways: dict[str, Callable[[Tensor, float | None], Tensor]] = {"ours": network(options.weights)}
    if options.ensemble:
        ways["ours, ensemble"] = ensemble(options.weights)
    for path in options.old:
        ways[path.stem] = network(str(path))
    if options.peers is not None:
        ways["FFDNet, told σ"] = ffdnet(options.peers / "FFDNet_color.npz")
        ways["DnCNN-B, blind"] = dncnn(options.peers / "CDnCNN_B.npz")
    if options.maxim is not None:
        ways["MAXIM"] = maxim(options.maxim, options.threads)
    pictures = {
        path.name: centre(read_picture(path).pixels, options.crop)
        for path in sorted(find(options.photographs))[:: options.every]
    }
    document: dict[str, object] = {"pictures": len(pictures), "crop": options.crop, "weights": str(options.weights)}
    for row in options.rows.split(","):
        scores: dict[str, list[float]] = {name: [] for name in ("input", *ways)}
        seconds = dict.fromkeys(ways, 0.0)
        megapixels = 0.0
        for number, clean in enumerate(pictures.values()):
            sigma = float(row) if row.isdecimal() else None
            if sigma is not None:
                degraded = published_gaussian(clean, sigma)
            else:
                degraded, clean = parse_degradation(MORE[row]).pair(
                    clean, np.random.default_rng(number * options.every)
                )
            x, target = tensor(degraded), tensor(clean)
            scores["input"].append(psnr(x, target))
            megapixels += clean.shape[0] * clean.shape[1] / 1e6
            for name, way in ways.items():
                if sigma is None and "told" in name:
                    continue
                begun = time.process_time()
                with torch.inference_mode():
                    result = way(x, sigma)
                seconds[name] += time.process_time() - begun
                scores[name].append(psnr(result, target))
            if options.bm3d:
                scores.setdefault("BM3D, best", []).append(max(psnr(bm3d_of(x, s), target) for s in STRENGTHS))
        document[row] = {
            name: {
                "psnr": float(np.mean(values)),
                "worst": float(np.min(values)),
                **({"processor seconds per megapixel": seconds[name] / megapixels} if name in seconds else {}),
            }
            for name, values in scores.items()
            if values
        }
        print(row, {name: round(float(np.mean(values)), 3) for name, values in scores.items() if values}, flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def bm3d_of(x: Tensor, sigma: float) -> Tensor:
    import bm3d

    restored = bm3d.bm3d_rgb(x[0].permute(1, 2, 0).double().numpy(), sigma / 255)
    return tensor(np.asarray(restored, np.float32))


def find(folder: Path) -> list[Path]:
    """Pictures of a folder."""
    return [path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".tif", ".avif")]


def centre(pixels: np.ndarray, crop: int) -> np.ndarray:
    """The middle of a picture, sides multiples of 8: (h, w, 3) float32."""
    h, w = (min(side, crop or side) // 8 * 8 for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - h) // 2, (pixels.shape[1] - w) // 2
    return np.ascontiguousarray(pixels[top : top + h, left : left + w, :3], np.float32)


def tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]


def psnr(result: Tensor, target: Tensor) -> float:
    """In dB; at most 100, what identical pictures get."""
    error = float((result.clamp(0, 1) - target).double().square().mean())
    return min(100.0, float(-10 * np.log10(max(error, 1e-12))))


def network(name: str) -> Callable[[Tensor, float | None], Tensor]:
    strips = StripNetwork(load_weights(name).model)
    return lambda x, sigma: strips.run(x)


def ensemble(name: str) -> Callable[[Tensor, float | None], Tensor]:
    restorer = Restorer(load_weights(name), "cpu", "fp32")
    return lambda x, sigma: tensor(restore_pixels(restorer, x[0].permute(1, 2, 0).numpy(), ensemble=True))


def layers(path: Path, count: int) -> list[tuple[Tensor, Tensor]]:
    with np.load(path) as arrays:
        return [(torch.from_numpy(arrays[f"w{n}"]), torch.from_numpy(arrays[f"b{n}"])) for n in range(count)]


def convolved(x: Tensor, stack: list[tuple[Tensor, Tensor]]) -> Tensor:
    for number, (weight, bias) in enumerate(stack):
        x = F.conv2d(x, weight, bias, padding=1)
        x = x.relu_() if number < len(stack) - 1 else x
    return x


def ffdnet(path: Path) -> Callable[[Tensor, float | None], Tensor]:
    """Twelve convolutions at half resolution, beside a plane of σ / 255."""
    stack = layers(path, 12)

    def restored(x: Tensor, sigma: float | None) -> Tensor:
        assert sigma is not None
        small = F.pixel_unshuffle(x, 2)
        plane = torch.full_like(small[:, :1], sigma / 255)
        return F.pixel_shuffle(convolved(torch.cat([small, plane], 1), stack), 2)

    return restored


def dncnn(path: Path) -> Callable[[Tensor, float | None], Tensor]:
    """Twenty convolutions that give the noise."""
    stack = layers(path, 20)
    return lambda x, sigma: x - convolved(x, stack)


if __name__ == "__main__":
    main()
