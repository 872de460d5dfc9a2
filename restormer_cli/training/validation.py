"""Validation: score a network on pictures it was not trained on, and keep some of them to look at."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from restormer_cli.data.batches import prefetched, validation_pictures
from restormer_cli.data.pictures import as_picture
from restormer_cli.files import make_folder, write_atomically
from restormer_cli.images.formats.pillow import encode_8_bits
from restormer_cli.metrics.measures import luma8, psnr
from restormer_cli.pixels import round8
from restormer_cli.recipe import Recipe

SHOWN = 4
"""Pictures that are kept of every validation."""


@dataclass(frozen=True)
class ValidationLog:
    """The score on the validation pictures, beside that of the degraded input; dB, peak 1, mean over pictures."""

    iteration: int
    psnr: float
    input_psnr: float
    pictures: int


class Validation:
    """The pictures, shared out over the processes; each (degraded, clean) float32 (h, w, c) in [0, 1]."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator) -> None:
        self.pairs = validation_pictures(recipe)
        self.channel = recipe.validation.channel
        self.accelerator = accelerator

    def score(self, network: Callable[[Tensor], Tensor], iteration: int, folder: Path) -> ValidationLog:
        """Run the network over all pictures; `folder` receives a few, input, output and target side by side.

        `network`: (1, c, h, w) on the accelerator's device -> (1, c', h, w); the caller switches gradients off. One
        picture is restored and the next one is made meanwhile: no more are held. Every process takes part. Raises
        Failed where a picture cannot be written.
        """
        accelerator, count = self.accelerator, len(self.pairs)
        scores = torch.zeros(count, 2, dtype=torch.float64, device="cpu")
        mine = range(accelerator.process_index, count, accelerator.num_processes)
        # All processes go through equally many pictures: a sharded model talks to the others in each.
        rounds = -(-count // accelerator.num_processes)
        turns = [mine[turn] if turn < len(mine) else 0 for turn in range(rounds)]
        with closing(prefetched(lambda turn: self.pairs[turns[turn]], 0, rounds - 1, depth=1)) as pairs:
            for turn, (index, pair) in enumerate(zip(turns, pairs, strict=True)):
                output = self._restore(network, pair[0])
                if turn < len(mine):
                    scores[index] = self._psnr(pair, output)
                    if turn < SHOWN and accelerator.is_main_process:  # another machine may have no such folder
                        self._keep(folder / f"{iteration:08d}-{index}.png", pair, output)
        if accelerator.num_processes > 1:
            scores = accelerator.reduce(scores.to(accelerator.device), "sum")
            assert isinstance(scores, Tensor)
        ours, inputs = scores.mean(0).tolist()
        return ValidationLog(iteration, ours, inputs, count)

    def _restore(self, network: Callable[[Tensor], Tensor], degraded: np.ndarray) -> np.ndarray:
        picture = torch.from_numpy(degraded).permute(2, 0, 1)[None].to(self.accelerator.device)
        return network(picture)[0].float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()

    def _psnr(self, pair: tuple[np.ndarray, np.ndarray], output: np.ndarray) -> Tensor:
        degraded, clean = pair
        degraded = as_picture(degraded, clean.shape[2])
        if self.channel == "y" and clean.shape[2] == 3:
            degraded, clean, output = (luma8(round8(picture)) / 255 for picture in (degraded, clean, output))
        return torch.tensor([psnr(picture, clean, peak=1.0) for picture in (output, degraded)])

    def _keep(self, path: Path, pair: tuple[np.ndarray, np.ndarray], output: np.ndarray) -> None:
        degraded, clean = pair
        strip = np.concatenate([as_picture(degraded, clean.shape[2]), output, clean], axis=1)
        data = encode_8_bits(round8(strip), "PNG", compress_level=4)
        make_folder(path.parent)
        write_atomically(path, lambda stream: stream.write(data))
