#!/usr/bin/env python3
"""A training leg that is sized by the clock, for the minutes in which a GPU can be had.

    python scripts/gpu/learn.py RECIPE --minutes 8 --photographs .gpu/photographs.zip --out OUT

The recipe gives the network, the optimiser, the loss, the average and the stages; the iterations of its stages are
shares of the time, and the learning rate follows the time that is left, so that the leg always ends with its decay:
a warm-up, `schedule.constant` : `schedule.cosine` of the time, `schedule.lr_min` at the end. Samples of the task
denoise are made on the device, half white noise and half a camera's, a fifth of them gray; for other tasks processes
make them by the recipe's [degrade] (training_samples.py). A step is one CUDA graph.

Written to OUT: NAME.safetensors, the average, every minute and at the end (NAME is the recipe's);
NAME-last.safetensors, the weights without average, at the end; NAME.jsonl, a line every few seconds. On a CPU
everything runs too, only without graph; `--steps` ends a rehearsal.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch._dynamo  # noqa: E402
from torch import Tensor  # noqa: E402
from training_samples import MadeByProcesses, NoisySamples, Samples  # noqa: E402

from restormer_cli.engine.positions import positions_of  # noqa: E402
from restormer_cli.hardware import processor_name  # noqa: E402
from restormer_cli.model.restormer import Block, Restormer  # noqa: E402
from restormer_cli.model.weights import find_weights, load_weights  # noqa: E402
from restormer_cli.model.weights_file import save_weights  # noqa: E402
from restormer_cli.recipe import Recipe, Stage  # noqa: E402
from restormer_cli.recipe_files import read_recipe, resolved  # noqa: E402
from restormer_cli.training.losses import LOSSES  # noqa: E402
from restormer_cli.training.muon import MOMENTUM, is_matrix, turned  # noqa: E402
from restormer_cli.training.provenance import legs_behind, training_record, which  # noqa: E402
from restormer_cli.training.teacher import check_channels, target  # noqa: E402

WARM_UP = 100
"""Steps in which the rate rises; optimiser state is not kept from leg to leg."""
ALIGNED = 64
"""Numbers between the beginnings of two parameters, or a multiple."""
LIST = "scripts/sharp_photographs.csv"
"""Where the photographs come from."""
EVERY = 50
"""Steps between two looks at the loss, each of which waits for the device."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--minutes", type=float, required=True, help="of the whole command, preparation included")
    parser.add_argument("--photographs", type=Path, default=Path(".gpu/photographs.zip"), help="made by pack.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", help="weights to start from, instead of the recipe's")
    parser.add_argument("--steps", type=int, help="end after so many steps")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--processes", type=int, default=max(1, cores - 1), help="that make samples")
    parser.add_argument("--pairs", type=int, default=8192, help="that the device holds")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--no-graph", action="store_true")
    arguments = parser.parse_args()
    started = time.monotonic()
    recipe = read_recipe(str(arguments.recipe))
    arguments.out.mkdir(parents=True, exist_ok=True)
    leg = Leg(recipe, arguments, started)
    leg.run()
    return 0


@dataclass(frozen=True)
class Span:
    """A stage in seconds from the start of the command."""

    end: float
    patch: int
    batch: int


class Leg:
    """One leg of one recipe, on one device."""

    def __init__(self, recipe: Recipe, arguments: argparse.Namespace, started: float) -> None:
        self.recipe, self.started, self.steps = recipe, started, arguments.steps
        self.device = torch.device(arguments.device)
        self.graphs = self.device.type == "cuda" and not arguments.no_graph
        self.seconds = 60 * arguments.minutes
        self.path = arguments.out / recipe.name
        self.log = (arguments.out / f"{recipe.name}.jsonl").open("w")
        torch.manual_seed(recipe.seed)
        self.tiles, self.data = read_tiles(arguments.photographs)
        self.tell(event="read", tiles=len(self.tiles), seconds=self.elapsed())
        self.processes = None  # started before the device is
        if recipe.task != "denoise":
            first, *others = recipe.stage
            if others:
                raise SystemExit("one stage only, where processes make the samples")
            self.processes = MadeByProcesses(self.tiles.numpy(), first, recipe, arguments.processes, arguments.pairs)
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # the network is in bf16
            torch.backends.cudnn.benchmark = True
        self.init = init = arguments.init or recipe.init
        network = load_weights(init).model if init else Restormer(recipe.model)
        if network.config != recipe.model:
            raise SystemExit(f"{init}: is another network than the recipe's")
        self.state = FlatState(network.to(self.device).train(), recipe)
        self.teacher: Restormer | None = None
        self.taught_by: dict[str, Any] | None = None
        if recipe.teacher is not None:
            self.taught_by = which(find_weights(recipe.teacher.weights))
            weights = load_weights(recipe.teacher.weights)
            teacher, self.positions = weights.model, positions_of(weights.header.get("recipe"))
            check_channels(recipe, teacher.config.in_channels, teacher.config.out_channels)
            self.teacher = teacher.to(self.device).eval().requires_grad_(False)
        if not arguments.no_compile and self.device.type == "cuda":
            for module in (*network.modules(), *(() if self.teacher is None else self.teacher.modules())):
                if isinstance(module, Block):
                    module.compile(dynamic=False)
            torch._dynamo.config.recompile_limit = 64

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def tell(self, **what: object) -> None:
        line = json.dumps(what)
        self.log.write(line + "\n")
        self.log.flush()
        print(line, flush=True)

    def run(self) -> None:
        """Every stage to its end, saving each minute."""
        total = sum(stage.iterations for stage in self.recipe.stage)
        begun, passed = self.elapsed(), 0
        saved, done, pixels = self.elapsed(), 0, 0
        for stage in self.recipe.stage:
            passed += stage.iterations
            end = begun + (self.seconds - begun) * passed / total
            step = self.prepared(stage)
            self.tell(event="stage", patch=stage.patch, batch=stage.batch, seconds=self.elapsed())
            while self.elapsed() < end and done != self.steps:
                self.state.rate.fill_(self.rate(self.elapsed(), begun, done))
                if self.processes is not None:
                    self.processes.refresh()
                loss = step()
                done += 1
                pixels += stage.batch * stage.patch**2
                if done % EVERY == 0 or done == self.steps:
                    self.tell(
                        step=done,
                        seconds=round(self.elapsed(), 1),
                        loss=round(float(loss), 4),  # waits for the device, and so keeps the clock honest
                        rate=float(self.state.rate),
                        megapixels=round(pixels / 1e6),
                        **({"made": self.processes.made} if self.processes is not None else {}),
                    )
                    if self.elapsed() - saved > 60:
                        self.save(done, pixels)
                        saved = self.elapsed()
        self.save(done, pixels)
        last = {"task": self.recipe.task, "training": {"iterations": done, "without_average": True}}
        save_weights(self.path.with_name(f"{self.recipe.name}-last.safetensors"), self.state.network, last)
        if self.processes is not None:
            self.processes.close()
        self.tell(event="end", step=done, megapixels=round(pixels / 1e6), seconds=self.elapsed())

    def rate(self, now: float, begun: float, done: int) -> float:
        """Constant, then a cosine down to `lr_min`, by the time that is left; a warm-up by steps before that."""
        schedule, high = self.recipe.schedule, self.recipe.optimizer.lr
        constant, cosine = schedule.constant or 92, schedule.cosine or 208
        share = (now - begun) / max(1e-9, self.seconds - begun)
        if self.steps is not None:
            share = done / self.steps
        flat = constant / (constant + cosine)
        fallen = min(1.0, max(0.0, (share - flat) / max(1e-9, 1 - flat)))
        rate = schedule.lr_min + (high - schedule.lr_min) * (1 + math.cos(math.pi * fallen)) / 2
        return rate * min(1.0, (done + 1) / WARM_UP)

    def samples(self, stage: Stage) -> Samples:
        """Where a stage's batches come from."""
        if self.processes is None:
            return NoisySamples(self.tiles.to(self.device), stage, self.recipe)
        self.processes.to(self.device)
        return self.processes

    def prepared(self, stage: Stage) -> Callable[[], Tensor]:
        """One step of a stage, as a CUDA graph where that can be captured."""
        samples = self.samples(stage)
        loss_of = LOSSES[self.recipe.loss.kind]
        half, wanted = self.device.type == "cuda", self.recipe.teacher

        def through(network: Restormer, x: Tensor) -> Tensor:
            # Without autocast's cache: a graph would keep the first step's cast weights.
            with torch.autocast("cuda", torch.bfloat16, cache_enabled=False) if half else nullcontext():
                return network(x)

        def step() -> Tensor:
            with torch.no_grad():
                degraded, clean = samples()
                if self.teacher is not None:
                    assert wanted is not None
                    # Always the same views: a graph cannot take turns, and samples are turned themselves.
                    clean = target(partial(through, self.teacher), degraded, clean, wanted, 0, self.positions)
            output = through(self.state.network, degraded)
            loss = loss_of(output.float(), clean)
            self.state.gradients.zero_()
            loss.backward()
            self.state.update()
            return loss.detach()

        if not self.graphs:
            return step
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(side):
                for _ in range(3):  # compiles, and chooses cuDNN's algorithms
                    loss = step()
            torch.cuda.current_stream().wait_stream(side)
            self.tell(event="warm", loss=float(loss), seconds=self.elapsed())
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                loss = step()
        except RuntimeError as error:
            self.tell(event="no graph", why=str(error)[:300], seconds=self.elapsed())
            torch.cuda.synchronize()
            return step

        def replay() -> Tensor:
            graph.replay()
            return loss

        return replay

    def save(self, done: int, pixels: int) -> None:
        """The average, with what is known of the training in the header."""
        phase = {
            "iterations": done,
            "of": done,
            "seconds": round(self.elapsed()),
            "seed": self.recipe.seed,
            "precision": "bf16" if self.device.type == "cuda" else "fp32",
            "machines": [torch.cuda.get_device_name() if self.device.type == "cuda" else processor_name()],
            "megapixels": round(pixels / 1e6),
            "data": self.data,
        }
        if self.taught_by is not None:
            phase["teacher"] = self.taught_by
        path = self.path.with_name(f"{self.recipe.name}.safetensors")
        save_weights(path, self.state.averaged(), header(self.recipe, self.init, phase), dtype=torch.float32)


def header(recipe: Recipe, init: str | None, phase: dict[str, Any]) -> dict[str, Any]:
    """What a file of weights says of itself, as `restormer train` writes it."""
    earlier = legs_behind(find_weights(init)) if init else []
    values = {"task": recipe.task, "training": training_record(phase, earlier), "recipe": json.loads(resolved(recipe))}
    return values | ({"licence": recipe.licence} if recipe.licence else {})


class FlatState:
    """Parameters, gradients, moments and the average, each one vector: an update by AdamW is a dozen kernels."""

    def __init__(self, network: Restormer, recipe: Recipe) -> None:
        self.network = network
        parameters = list(network.parameters())
        # Each begins where vectors may be loaded: a compiled kernel that reads several at once faults elsewhere.
        lengths = [-(-p.numel() // ALIGNED) * ALIGNED for p in parameters]
        starts = [sum(lengths[:number]) for number in range(len(parameters))]
        self.places = [slice(start, start + p.numel()) for start, p in zip(starts, parameters, strict=True)]
        self.weights = torch.zeros(sum(lengths), device=parameters[0].device)
        self.gradients = torch.zeros_like(self.weights)
        for p, place in zip(parameters, self.places, strict=True):
            self.weights[place] = p.detach().flatten()
            p.data = self.weights[place].view(p.shape)
            p.grad = self.gradients[place].view(p.shape)
        self.first, self.second = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.average = self.weights.clone()
        self.rate, self.taken = self.weights.new_zeros(()), self.weights.new_zeros(())
        optimizer = recipe.optimizer
        self.betas, self.decay, self.clip = optimizer.betas, optimizer.weight_decay, optimizer.clip or math.inf
        self.memory = recipe.ema.decay
        self.kept = torch.full_like(self.weights, self.betas[0])
        self.matrices: dict[tuple[int, int], list[slice]] = {}
        """Of Muon: where those of a shape lie."""
        for p, place in zip(parameters, self.places, strict=True):
            if optimizer.kind == "muon" and is_matrix(p):
                self.matrices.setdefault((p.shape[0], p[0].numel()), []).append(place)
                self.kept[place] = MOMENTUM

    @torch.no_grad()
    def update(self) -> None:
        """The recipe's optimiser with the norm of the gradient clipped; nothing moves where that is not finite."""
        norm = self.gradients.norm()
        sound = norm.isfinite()
        gradients = torch.where(sound, self.gradients * (self.clip / (norm + 1e-6)).clamp_max(1), 0)
        one, two = self.betas
        self.taken += sound
        self.first.lerp_(gradients, 1 - self.kept)
        self.second.mul_(two).addcmul_(gradients, gradients, value=1 - two)
        steps = self.taken.clamp_min(1)
        scale = (self.second / (1 - two**steps)).sqrt_().add_(1e-8)
        move = (self.first / (1 - one**steps)).div_(scale)
        dtype = torch.bfloat16 if move.is_cuda else torch.float32
        for shape, places in self.matrices.items():
            ahead = [gradients[place].lerp(self.first[place], MOMENTUM).view(shape) for place in places]
            for place, step in zip(places, turned(torch.stack(ahead), dtype), strict=True):
                move[place] = step.flatten()
        move.add_(self.weights, alpha=self.decay)
        self.weights -= torch.where(sound, move * self.rate, 0)
        memory = torch.minimum((1 + self.taken) / (10 + self.taken), torch.full_like(self.taken, self.memory))
        self.average += (self.weights - self.average) * (1 - memory)

    def averaged(self) -> Restormer:
        """A network with the average's weights."""
        network = Restormer(self.network.config)
        values = self.average.cpu()
        for p, place in zip(network.parameters(), self.places, strict=True):
            p.data = values[place].view(p.shape).clone()
        return network


def read_tiles(path: Path) -> tuple[Tensor, dict[str, Any]]:
    """The archive's tiles, (n, h, w, 3) uint8, and what is to be said of them."""
    from PIL import Image

    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".avif"))
        files = [archive.read(name) for name in names]

    def decode(data: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))

    with ThreadPoolExecutor() as pool:
        tiles = torch.from_numpy(np.stack(list(pool.map(decode, files))))
    pictures = sum(name.endswith("-1.avif") for name in names)  # every picture's best tile is its first
    listed = sha256((ROOT / LIST).read_bytes()).hexdigest()
    return tiles, {"pictures": pictures, "tiles": len(tiles), "list": LIST, "list_sha256": listed}


if __name__ == "__main__":
    sys.exit(main())
