"""Where a training leg's samples come from: cut from tiles of photographs and degraded, on the device or by processes.

White noise and a camera's are made on the device that trains (`NoisySamples`): a dozen processor cores would starve it.
Every other degradation is the recipe's own, made by one process a core (`MadeByProcesses`), and used about as often as
the device is faster than they are, each time turned and mirrored anew.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restormer_cli.data.batches import TrainingBatches
from restormer_cli.data.cache import PictureCache
from restormer_cli.data.pairs import Pair
from restormer_cli.data.patches import Places
from restormer_cli.data.pictures import Pictures
from restormer_cli.degradations.on_device import MARGIN, Mixture, noisy_batch
from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.recipe import Recipe, Stage

Samples = Callable[[], tuple[Tensor, Tensor]]
"""The next batch: degraded and clean, each (batch, 3, patch, patch) float32."""


class NoisySamples:
    """Cut, turned and made noisy on the device; some at half their size. A CUDA graph can hold all of it."""

    def __init__(self, tiles: Tensor, stage: Stage, recipe: Recipe) -> None:
        self.tiles, self.batch, self.recipe = tiles, stage.batch, recipe
        self.side = stage.patch + 2 * MARGIN
        self.mixture = Mixture()
        share = recipe.augment.shrink if 2 * self.side <= tiles.shape[1] else 0.0
        device, batch = tiles.device, stage.batch
        # Spread over the batch, since places in the batch decide what kind of noise a sample gets.
        halved = (torch.arange(batch) * share).floor().diff(append=torch.tensor([batch * share]).floor()) > 0
        halved = halved[torch.from_numpy(np.random.default_rng(recipe.seed).permutation(batch))]
        self.places = halved.nonzero()[:, 0].to(device), (~halved).nonzero()[:, 0].to(device)

    def __call__(self) -> tuple[Tensor, Tensor]:
        halved, whole = self.places
        around = torch.empty((self.batch, 3, self.side, self.side), device=self.tiles.device)
        if len(halved):
            around[halved] = torch.nn.functional.avg_pool2d(self._cut(len(halved), 2 * self.side), 2)
        around[whole] = self._cut(len(whole), self.side)
        strength = self.recipe.augment.balance or 0.0
        if strength:
            light = torch.rand((self.batch, 1, 1, 1), device=around.device) * strength
            around *= 1 - light * torch.rand((self.batch, 3, 1, 1), device=around.device)
        return noisy_batch(around, self.mixture)

    def _cut(self, count: int, side: int) -> Tensor:
        device, (number, height, width, _) = self.tiles.device, self.tiles.shape
        tile = torch.randint(number, (count, 1, 1), device=device)
        steps = torch.arange(side, device=device)
        lines = []
        for length in (height, width):
            start = torch.randint(length - side + 1, (count, 1), device=device)
            turned = torch.randint(2, (count, 1), device=device)
            lines.append(start + torch.where(turned > 0, side - 1 - steps, steps))
        patches = self.tiles[tile, lines[0][:, :, None], lines[1][:, None, :]]
        mirrored = torch.randint(2, (count, 1, 1, 1), device=device) > 0
        patches = torch.where(mirrored, patches.transpose(1, 2), patches)
        return patches.permute(0, 3, 1, 2).float() / 255


class MadeByProcesses:
    """Pairs as `restormer train` makes them, rounded to 8 bits, from processes that go on while the device works.

    The device holds the latest pairs; a batch is drawn from them. `refresh`, between two steps, takes over what was
    made since. Blocks of pairs lie in memory that the processes share, each with a flag that says whose turn it is.
    """

    BLOCK = 8
    """Pairs that are taken over together."""
    BLOCKS = 4
    """Blocks of a process."""
    LEAST = 256
    """Pairs to begin with."""

    def __init__(self, tiles: np.ndarray, stage: Stage, recipe: Recipe, processes: int, held: int) -> None:
        """Start the processes: before this one uses a GPU, since they are forked."""
        self.stage, self.made, self.held = stage, 0, held // self.BLOCK * self.BLOCK
        shape = (processes * self.BLOCKS, self.BLOCK, 2, stage.patch, stage.patch, 3)
        # Anonymous and shared: /dev/shm may be small.
        self.blocks = np.frombuffer(mmap.mmap(-1, int(np.prod(shape))), np.uint8).reshape(shape)
        self.full = np.frombuffer(mmap.mmap(-1, shape[0]), np.uint8)
        batches = TrainingBatches(
            TilePictures(tiles),
            places(tiles),
            parse_degradation(recipe.degrade.steps),
            seed=recipe.seed,
            augment=recipe.augment,
            textured=recipe.data.textured,
        )
        context = multiprocessing.get_context("fork")
        self.processes = [
            context.Process(target=self._work, args=(number, processes, batches), daemon=True)
            for number in range(processes)
        ]
        for process in self.processes:
            process.start()

    def _work(self, number: int, processes: int, batches: TrainingBatches) -> None:
        parent, mine = os.getppid(), range(number * self.BLOCKS, (number + 1) * self.BLOCKS)
        torch.set_num_threads(1)
        turn = 0
        while os.getppid() == parent:
            block = mine[turn % self.BLOCKS]
            if self.full[block]:
                time.sleep(0.005)
                continue
            pairs = batches.batch(1 + turn * processes + number, self.stage, range(self.BLOCK))
            for side, pixels in enumerate(pairs):
                self.blocks[block, :, side] = (pixels.clip(0, 1) * 255).round()
            self.full[block] = 1
            turn += 1

    def to(self, device: torch.device) -> None:
        """Make room on the device, and wait for the first pairs."""
        patch = self.stage.patch
        self.pool = torch.empty((self.held, 2, patch, patch, 3), dtype=torch.uint8, device=device)
        self.filled = torch.zeros((), device=device)
        while self.made < min(self.LEAST, self.held):
            self.refresh()
            if not all(process.is_alive() for process in self.processes):
                sys.exit("a process that makes samples died")
            time.sleep(0.05)

    def refresh(self) -> None:
        """Take over the blocks that are full."""
        for block in np.flatnonzero(self.full.copy()):  # processes write to it
            start = self.made % self.held
            self.pool[start : start + self.BLOCK].copy_(torch.from_numpy(self.blocks[block]))
            self.full[block] = 0
            self.made += self.BLOCK
        self.filled.fill_(min(self.made, self.held))

    def __call__(self) -> tuple[Tensor, Tensor]:
        batch, device = self.stage.batch, self.pool.device
        drawn = (torch.rand(batch, device=device) * self.filled).long().clamp_max(self.held - 1)
        pairs = self.pool[drawn]
        for axis in (2, 3):
            turned = torch.randint(2, (batch, 1, 1, 1, 1), device=device) > 0
            pairs = torch.where(turned, pairs.flip(axis), pairs)
        turned = torch.randint(2, (batch, 1, 1, 1, 1), device=device) > 0
        pairs = torch.where(turned, pairs.transpose(2, 3), pairs).permute(1, 0, 4, 2, 3).float() / 255
        return pairs[0].contiguous(), pairs[1].contiguous()

    def close(self) -> None:
        for process in self.processes:
            process.terminate()


class TilePictures(Pictures):
    """Tiles (n, h, w, 3) as clean pictures without degraded twins."""

    def __init__(self, tiles: np.ndarray) -> None:
        pairs = [Pair(str(number), Path(str(number))) for number in range(len(tiles))]
        super().__init__(pairs, PictureCache(3, "off", 0))
        self.tiles = tiles

    def clean(self, index: int) -> np.ndarray:
        return self.tiles[index]

    def views(self, index: int) -> list[np.ndarray]:
        return []

    def size(self, index: int) -> tuple[int, int]:
        height, width = self.tiles.shape[1:3]
        return height, width


def places(tiles: np.ndarray) -> Places:
    """Anywhere in any tile."""
    count, height, width, _ = tiles.shape
    rectangles = np.array([[number, 0, 0, height, width] for number in range(count)])
    return Places(rectangles, np.arange(1, count + 1) / count)
