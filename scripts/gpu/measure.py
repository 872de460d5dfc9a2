#!/usr/bin/env python3
"""What this package is worth on a GPU, measured in minutes against the published code, all in one run.

    python3 scripts/gpu/measure.py --out OUT --minutes 3.5
    python3 scripts/gpu/measure.py --out OUT --dry-run        # on a CPU, tiny sizes: that everything runs

Needs a checkout, PyTorch, NumPy, einops, safetensors, psutil and Pillow; pytest for the tests;
accelerate and pydantic for training; spandrel and spandrel-extra-arches for the published code as people get it (else
model/textbook.py stands for it). Wheels in .whl/ (`pack.py --wheels .whl`) are installed beside the checkout first,
without network.

Written to OUT as it goes: measure.json, merged after every row; log.txt; a profile a size. The steps, in the order in
which a cut loses least (each a process of its own, since a fault on a GPU ends its process):

1. rows: every size and method, in turn, medians by CUDA events; peak memory; the sizes of pieces; profiles; bf16
   against fp32 with the bundled checkpoints.
2. `pytest -m gpu`, while torch.compile compiles for steps 3 and 4, which measure after it.
3. compile: ours against the published network under torch.compile (max-autotune, channels last, bf16 autocast; a
   transformer block at a time, the whole then one CUDA graph) at 512².
4. train: steps of both networks in bf16, ours as `restormer train` takes them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SIZES = (512, 256, 1024, 2048)
COMPILED = ((256, "default"), (1024, "default"), (512, "max-autotune-no-cudagraphs"), (512, "default"))
"""What the published code is compiled for, and how."""
SHARES = {512: 0.24, 256: 0.16, 1024: 0.24, 2048: 0.36}
"""Of the time for the table."""
TABLE, ROWS, TESTS = 0.36, 0.52, 0.70
"""Shares of all the time at whose end the table, all of step 1 and the tests must be over."""


def install(out: Path) -> None:
    """Wheels from .whl/ to a folder of their own, first on the path of every step."""
    os.environ["PYTHONPATH"] = str(ROOT)
    wheels = sorted((ROOT / ".whl").glob("*.whl"))
    if not wheels:
        return
    target = out.resolve().parent / ".measure-packages"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
    for group in [wheels] if len(wheels) < 2 else [wheels, *([wheel] for wheel in wheels)]:
        done = subprocess.run([*command, "--upgrade", *map(str, group)], capture_output=True, text=True, check=False)
        if done.returncode == 0 and len(group) == len(wheels):
            break
        log(out, f"pip: {done.returncode} {done.stderr[-300:]}")
    # After the checkout and what the machine has, so that nothing of the machine's own is hidden.
    os.environ["MEASURE_PACKAGES"] = str(target)


def log(out: Path, line: str) -> None:
    """A line with the time, to the terminal and to log.txt."""
    text = f"{time.strftime('%H:%M:%S')} {line}"
    print(text, flush=True)
    with (out / "log.txt").open("a") as file:
        file.write(text + "\n")


class Notebook:
    """The rows of one step, written after each."""

    def __init__(self, out: Path, name: str) -> None:
        self.out, self.path = out, out / f"{name}.json"
        self.rows: dict[str, Any] = json.loads(self.path.read_text()) if self.path.is_file() else {}

    def put(self, key: str, value: Any) -> None:
        """Keep a row."""
        self.rows[key] = value
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.rows, indent=1))
        new.replace(self.path)
        log(self.out, f"{key}: {json.dumps(value)[:400]}")

    def attempt(self, key: str, work: Callable[[], Any]) -> Any:
        """A row, or why there is none; a fault of the GPU itself ends the process, to be started afresh."""
        if key in self.rows:
            return self.rows[key]
        try:
            value = work()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"[:600]
            value = {"error": text, "trace": traceback.format_exc()[-1500:]}
            if any(word in text.lower() for word in ("illegal", "misaligned", "launch fail", "unspecified launch")):
                self.put(key, value)
                os._exit(99)
        if value is not None:
            self.put(key, value)
        return value


class Machine:
    """The device, its clock and its memory; on a CPU for rehearsals."""

    def __init__(self, dry: bool) -> None:
        import torch

        self.torch, self.dry = torch, dry
        if dry:
            torch.set_num_threads(1)
        self.device = torch.device("cpu" if dry else "cuda")

    def time(self, work: Callable[[], Any], count: int) -> float:
        """Milliseconds of a run, the mean of `count` in a row."""
        if self.dry:
            begun = time.perf_counter()
            for _ in range(count):
                work()
            return (time.perf_counter() - begun) / count * 1e3
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in "ab")
        start.record()
        for _ in range(count):
            work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / count

    def peak(self, work: Callable[[], Any]) -> tuple[Any, int]:
        """The result, and the most bytes allocated beyond what was before."""
        if self.dry:
            return work(), 0
        cuda = self.torch.cuda
        cuda.synchronize()
        cuda.empty_cache()
        cuda.reset_peak_memory_stats()
        before = cuda.memory_allocated()
        result = work()
        cuda.synchronize()
        return result, cuda.max_memory_allocated() - before

    def alternating(self, ways: dict[str, Callable[[], Any]], seconds: float, rounds: int = 9) -> dict[str, Any]:
        """Medians of rounds in which every way has its turn, as many as the time allows, at least two."""
        counts, times = dict.fromkeys(ways, 1), {name: [] for name in ways}
        begun = time.perf_counter()
        for name, way in [] if self.dry else list(ways.items()):
            once = self.time(way, 1)
            counts[name] = max(1, min(20, int(60 / max(once, 1e-3))))
        for number in range(rounds):
            for name, way in ways.items():
                times[name].append(self.time(way, counts[name]))
            if number and (self.dry or time.perf_counter() - begun > seconds):
                break
        return {
            name: {"ms": statistics.median(row), "least": min(row), "most": max(row), "rounds": len(row)}
            for name, row in times.items()
        }


def small() -> Any:
    """A tiny network, for rehearsals."""
    from restormer_cli.model.config import ModelConfig

    return ModelConfig(dim=8, blocks=(1, 1, 1, 1), heads=(1, 1, 2, 2), refinement=1)


def networks(machine: Machine) -> tuple[Any, Any, str]:
    """Ours and the published one, with the same weights; and where the published one is from."""
    import torch

    from restormer_cli.model.config import ModelConfig
    from restormer_cli.model.restormer import Restormer
    from restormer_cli.model.textbook import TextbookRestormer

    torch.manual_seed(0)
    config = small() if machine.dry else ModelConfig()
    ours = Restormer(config).eval()
    origin = "model/textbook.py"
    theirs: Any = None
    try:
        from spandrel_extra_arches.architectures.Restormer import RestormerArch

        theirs = RestormerArch().load(dict(ours.state_dict())).model
        theirs.load_state_dict(ours.state_dict())
        from importlib.metadata import version

        origin = f"spandrel-extra-arches {version('spandrel-extra-arches')}"
    except Exception as error:
        origin += f" (no spandrel-extra-arches: {type(error).__name__}: {error})"[:200]
        theirs = TextbookRestormer(config)
        theirs.load_state_dict(ours.state_dict())
    return ours.to(machine.device), theirs.eval().to(machine.device), origin


def inputs(machine: Machine, size: int, channels: int = 3) -> list[Any]:
    """Three pictures of a size."""
    import torch

    generator = torch.Generator().manual_seed(size)
    return [torch.rand(1, channels, size, size, generator=generator).to(machine.device) for _ in range(3)]


def published_ways(machine: Machine, theirs: Any) -> dict[str, Callable[[Any], Any]]:
    """The published network under bf16 autocast, and in float32 without TF32, as it comes."""
    import torch

    from restormer_cli.engine.whole_map import tensor_float_32

    def bf16(picture: Any) -> Any:
        with torch.inference_mode(), torch.autocast(machine.device.type, dtype=torch.bfloat16):
            return theirs(picture)

    def fp32(picture: Any) -> Any:
        with torch.inference_mode(), tensor_float_32(False):
            return theirs(picture)

    return {"published bf16 autocast": bf16, "published fp32": fp32}


def rows(out: Path, machine: Machine, until: dict[str, float], plain: bool) -> None:
    """Step 1."""
    import torch

    from restormer_cli.engine.strips import StripNetwork
    from restormer_cli.engine.whole_map import Plain, WholeMap, predicted_bytes

    book = Notebook(out, "rows-plain" if plain else "rows")
    ours, theirs, origin = networks(machine)
    begun = time.perf_counter()
    operations = Plain if plain else None
    maps = {
        "ours bf16": WholeMap(ours, torch.bfloat16, operations=operations),
        "ours fp32": WholeMap(ours, torch.float32, operations=operations),
    }
    prepared = time.perf_counter() - begun
    cuda = {} if machine.dry else {
        "card": torch.cuda.get_device_name(0),
        "capability": torch.cuda.get_device_capability(0),
        "memory": torch.cuda.get_device_properties(0).total_memory,
        "processors": torch.cuda.get_device_properties(0).multi_processor_count,
    }  # fmt: skip
    machine_row = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "published": origin,
        "date": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        "seconds to prepare": prepared,
        "operations": {name: way.operations.__name__ for name, way in maps.items()},
        "notes": {name: way.notes for name, way in maps.items()},
        **cuda,
    }
    book.put("machine", machine_row)
    peers = published_ways(machine, theirs)
    ways: dict[str, Callable[[Any], Any]] = {**{name: way.run for name, way in maps.items()}, **peers}
    sizes = (32, 48) if machine.dry else SIZES
    table_begun = time.time()
    for size in sizes:
        share = SHARES.get(size, 0.5) * (until["table"] - table_begun)
        book.attempt(
            f"table {size}", lambda size=size, share=share: table_row(machine, ways, maps, size, share, predicted_bytes)
        )

    def strips() -> Any:
        picture = inputs(machine, sizes[0])[0]
        way = StripNetwork(ours, torch.bfloat16)
        others = {"strips bf16": lambda: way.run(picture), "ours bf16": lambda: maps["ours bf16"].run(picture)}
        without = WholeMap(ours, torch.bfloat16, operations=Plain)
        others["whole map without Triton"] = lambda: without.run(picture)
        eager = WholeMap(ours, torch.bfloat16, graphs=False, operations=operations)
        others["whole map without a graph"] = lambda: eager.run(picture)
        for other in others.values():
            for _ in range(1 if machine.dry else 3):
                other()
        return machine.alternating(others, 3.0, 5)

    def several() -> Any:
        few, side = (2, 32) if machine.dry else (8, 256)
        batch = torch.cat([inputs(machine, side)[0]] * few)
        way = maps["ours bf16"].run
        for _ in range(1 if machine.dry else 3):
            way(batch)
        return {"count": few, "side": side, **machine.alternating({"ours bf16": lambda: way(batch)}, 2.0, 5)}

    def profile(size: int) -> Callable[[], Any]:
        return lambda: profiled(out, machine, maps["ours bf16"], peers, size)

    more: dict[str, Callable[[], Any]]
    if machine.dry:
        more = {"profile 32": profile(32), "decibels": lambda: decibels(machine)}
        more |= {"pieces 32": lambda: pieces(machine, ours, 32, operations), "ways 32": strips, "batch": several}
        more |= {"host": lambda: host(machine)}
    else:
        more = {"host": lambda: host(machine), "profile 512": profile(512), "decibels": lambda: decibels(machine)}
        more |= {"pieces 512": lambda: pieces(machine, ours, 512, operations), "ways 512": strips}
        more |= {"profile 256": profile(256), "pieces 1024": lambda: pieces(machine, ours, 1024, operations)}
        more |= {"batch": several, "profile 2048": profile(2048)}
    for key, work in more.items():
        if machine.dry or time.time() < until["rows"]:
            book.attempt(key, work)
    book.put("notes", {name: way.notes for name, way in maps.items()})


def table_row(
    machine: Machine,
    ways: dict[str, Any],
    maps: dict[str, Any],
    size: int,
    seconds: float,
    predicted: Callable[..., int],
) -> dict[str, Any]:
    """A size: milliseconds, peak memory, predictions and agreement of all methods."""
    import torch

    pictures = inputs(machine, size)
    found: dict[str, Any] = {name: {} for name in ways}
    results: dict[str, Any] = {}
    begun = time.perf_counter()
    for name, way in ways.items():
        try:
            result, found[name]["peak"] = machine.peak(lambda way=way: way(pictures[0]))
            results[name] = result.float().cpu()
            del result
            # The second picture of a size makes the graph; what takes seconds needs no warming.
            once = 0.0 if name in maps else machine.time(lambda way=way: way(pictures[1]), 1)
            for _ in range(0 if once > 500 or machine.dry else 2):
                way(pictures[2])
            if not machine.dry:
                torch.cuda.synchronize()
        except Exception as error:
            if "illegal" in str(error).lower() or "misaligned" in str(error).lower():
                raise
            found[name]["error"] = f"{type(error).__name__}: {error}"[:300]
            if not machine.dry:
                torch.cuda.empty_cache()
    exact = results.get("ours fp32")
    for name, result in results.items():
        if exact is not None:
            error = (result - exact).double().square().mean().item()
            found[name]["decibels to ours fp32"] = None if error == 0 else -10 * math.log10(error)
            found[name]["most to ours fp32"] = (result - exact).abs().max().item()
    for name, way in maps.items():
        found[name]["predicted"] = predicted(way.config, size, size, way.dtype.itemsize)
        found[name]["graph"] = bool(way.graphs and any(way.graphs.seen.values()))
        found[name]["operations"] = way.operations.__name__
        found[name]["notes"] = [note[:300] for note in way.notes]
    turn = [0]

    def rotating(way: Any) -> Callable[[], Any]:
        def run() -> Any:
            turn[0] += 1
            return way(pictures[turn[0] % 3])

        return run

    alive = {name: rotating(way) for name, way in ways.items() if "error" not in found[name]}
    left = max(1.0, seconds - (time.perf_counter() - begun))
    for name, timing in machine.alternating(alive, left).items():
        found[name] |= timing
    return found


def decibels(machine: Machine) -> dict[str, Any]:
    """PSNR in fp32, bf16, fp16 and tf32 with the bundled checkpoints, through `Restorer`; and against a CPU."""
    import numpy as np
    from PIL import Image

    from restormer_cli.engine.restorer import Restorer
    from restormer_cli.model.weights import bundled_tasks, load_weights

    def psnr(one: Any, other: Any) -> float:
        error = float(np.mean((one.astype(np.float64) - other) ** 2))
        return -10 * math.log10(max(error, 1e-20))

    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    names = sorted((ROOT / "docs" / "originals").glob("*.png"))[: 1 if machine.dry else None]
    for task in bundled_tasks()[: 1 if machine.dry else None]:
        model = load_weights(task).model
        for path in names:
            clean = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
            clean = clean[:48, :56] if machine.dry else clean
            noisy = (clean + rng.normal(0, 25 / 255, clean.shape)).astype(np.float32)
            row: dict[str, Any] = {"noisy": psnr(noisy, clean)}
            exact: Any = None
            for precision in ("fp32", "bf16") if machine.dry else ("fp32", "bf16", "fp16", "tf32"):
                notices: list[str] = []
                restorer = Restorer(model, device=machine.device.type, precision=precision)
                result = np.clip(restorer(noisy, notices.append), 0, 1)
                exact = result if exact is None else exact
                row[precision] = {"psnr": psnr(result, clean), "to fp32": psnr(result, exact), "notices": notices}
            if task == "denoise":
                cpu = np.clip(Restorer(model, device="cpu", precision="fp32")(noisy), 0, 1)
                row["cpu fp32"] = {"psnr": psnr(cpu, clean), "most to fp32": float(np.abs(cpu - exact).max())}
            found[f"{task} {path.stem}"] = row
    return found


def host(machine: Machine) -> dict[str, Any]:
    """Milliseconds of `denoise` through `Restorer`: a picture, its parts, copies through pinned memory instead; and an
    ensemble's views together and one by one."""
    import numpy as np
    import torch

    from restormer_cli.engine.adapter import restore_pixels
    from restormer_cli.engine.restorer import Restorer
    from restormer_cli.model.weights import load_weights

    restorer = Restorer(load_weights("denoise"), device=machine.device.type, precision="bf16")
    rng, pinned = np.random.default_rng(0), not machine.dry
    found: dict[str, Any] = {}
    for side in (32,) if machine.dry else (256, 2048):
        picture = rng.random((side, side, 3), np.float32)
        plan = restorer.plan(side, side)
        here = torch.from_numpy(picture)
        there = here.permute(2, 0, 1)[None].contiguous().to(machine.device)
        up, down = (torch.empty(3, side, side, pin_memory=pinned) for _ in "ab")
        ways: dict[str, Callable[[], Any]] = {
            "all": lambda picture=picture: restorer(picture),
            "network": lambda there=there, plan=plan: restorer.backend.run(there, plan, lambda _: None),
            "up": lambda here=here: here.permute(2, 0, 1)[None].to(machine.device),
            "up, pinned": lambda up=up, here=here: up.copy_(here.permute(2, 0, 1)).to(machine.device),
            "down": lambda there=there: there[0].permute(1, 2, 0).contiguous().cpu(),
            "down, pinned": lambda down=down, there=there: down.copy_(there[0]),
        }
        for way in ways.values():
            for _ in range(1 if machine.dry else 3):
                way()
        found[f"{side}"] = machine.alternating(ways, 1.5, 5)
    for side in (16,) if machine.dry else (128, 256):
        picture = rng.random((side, side, 3), np.float32)
        views: dict[str, Callable[[], Any]] = {}
        for name in ("together", "one by one"):
            way = Restorer(restorer.backend)
            if name == "one by one":
                way.plan = lambda h, w, way=way: replace(Restorer.plan(way, h, w), together=1)  # type: ignore[method-assign]
            views[name] = lambda way=way, picture=picture: restore_pixels(way, picture, ensemble=True)
            for _ in range(1 if machine.dry else 3):
                views[name]()
        found[f"views {side}"] = machine.alternating(views, 1.5, 5)
    return found


def pieces(machine: Machine, ours: Any, size: int, operations: Any) -> dict[str, Any]:
    """Milliseconds by the size of pieces, in graphs."""
    import torch

    from restormer_cli.engine.whole_map import WholeMap

    picture = inputs(machine, size)[0]
    ways = {}
    for megabytes in (1, 1024) if machine.dry else (8, 16, 24, 32, 48, 96, 1024):
        way = WholeMap(ours, torch.bfloat16, operations=operations, piece_bytes=megabytes << 20)
        ways[f"{megabytes} MiB"] = lambda way=way: way.run(picture)
        for _ in range(1 if machine.dry else 3):
            way.run(picture)
    return machine.alternating(ways, 3.0, 5)


def profiled(out: Path, machine: Machine, way: Any, peers: dict[str, Any], size: int) -> dict[str, Any]:
    """Kernels and their time, by name, of one picture without a graph but in a graph's pieces."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    picture = inputs(machine, size)[0]
    activities = [ProfilerActivity.CPU] + ([] if machine.dry else [ProfilerActivity.CUDA])
    found: dict[str, Any] = {}
    graphs, way.graphs, way.captured = way.graphs, None, True
    try:
        runs: dict[str, Callable[[], Any]] = {"ours bf16": lambda: way.run(picture)}
        if size < 1024:
            runs |= {"published bf16 autocast": lambda: peers["published bf16 autocast"](picture)}
        for name, run in runs.items():
            run()
            with profile(activities=activities, acc_events=True) as record:
                run()
                if not machine.dry:
                    torch.cuda.synchronize()
            averages = record.key_averages()
            field = "self_cpu_time_total" if machine.dry else "self_device_time_total"
            kernels = [
                row for row in averages if machine.dry or (getattr(row, field) > 0 and not row.key.startswith("aten"))
            ]
            kernels = [
                row for row in kernels if machine.dry or "CUDA" in str(getattr(row, "device_type", ""))
            ] or kernels
            kernels.sort(key=lambda row: -getattr(row, field))
            found[name] = {
                "launches": sum(row.count for row in kernels),
                "us": sum(getattr(row, field) for row in kernels),
                "top": [[row.key[:110], row.count, round(getattr(row, field), 1)] for row in kernels[:22]],
            }
            table = averages.table(sort_by=field, row_limit=60, max_name_column_width=90)
            (out / f"profile-{size}-{name.replace(' ', '-')}.txt").write_text(table)
    finally:
        way.graphs, way.captured = graphs, False
    return found


def wait_for_quiet(out: Path, until: float) -> None:
    """Until the tests are over: what follows is timed."""
    while not (out / "quiet").exists() and time.time() < until:
        time.sleep(0.2)


class Turn:
    """One step measures at a time."""

    def __init__(self, out: Path) -> None:
        self.path = out / "turn.lock"

    def __enter__(self) -> None:
        import fcntl

        self.file = self.path.open("w")
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self.file.close()


def compiled(out: Path, machine: Machine, until: dict[str, float], plain: bool) -> None:
    """Step 3."""
    import torch

    from restormer_cli.engine.whole_map import Plain, WholeMap
    from restormer_cli.model.textbook import TransformerBlock

    book = Notebook(out, "compile")
    ours, theirs, origin = networks(machine)
    mine = WholeMap(ours, torch.bfloat16, operations=Plain if plain else None)
    torch._dynamo.config.recompile_limit = 64
    theirs = theirs.to(memory_format=torch.channels_last)
    kinds = {type(theirs.encoder_level1[0]), TransformerBlock}
    for size, mode in COMPILED:
        size = 32 if machine.dry else size
        picture = inputs(machine, size)[0]
        planes = picture.contiguous(memory_format=torch.channels_last)
        for _ in range(3):
            mine.run(picture)

        def run() -> Any:
            with torch.inference_mode(), torch.autocast(machine.device.type, dtype=torch.bfloat16, cache_enabled=False):
                return theirs(planes)  # noqa: B023

        begun = time.perf_counter()
        torch._dynamo.reset()
        for module in theirs.modules():
            if type(module) in kinds and not machine.dry:
                module.compile(mode=mode, dynamic=False)
        for _ in range(3):
            result = run()
        seconds = time.perf_counter() - begun
        book.put(f"seconds to compile {size}, {mode}", seconds)
        ways: dict[str, Callable[[], Any]] = {
            "ours bf16": lambda: mine.run(picture),  # noqa: B023
            "published compiled": run,
        }
        wait_for_quiet(out, until["all"])
        with Turn(out):
            try:
                if not machine.dry:
                    torch.cuda.synchronize()
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph):
                        result = run()
                    ways["published compiled, in a graph"] = graph.replay
            except Exception as error:
                book.put(f"graph {size}, {mode}", f"{type(error).__name__}: {error}"[:400])
            timing = machine.alternating(ways, 3.0, 7)
            book.put(f"compiled {size}, {mode}", {"published": origin, "seconds to compile": seconds, **timing})
        book.put(f"most between the two, {size}", (result.float() - mine.run(picture)).abs().max().item())


def training(out: Path, machine: Machine, until: dict[str, float], plain: bool) -> None:
    """Step 4: a step is forward, L1, backward, clip, AdamW, under bf16 autocast with float32 weights.

    The published network's by PyTorch's single calls, as its training code has it; ours as `restormer train` takes it.
    """
    import torch

    from restormer_cli.recipe import Recipe
    from restormer_cli.training.distributed import make_accelerator
    from restormer_cli.training.learner import TrainState

    book = Notebook(out, "train")
    ours, theirs, origin = networks(machine)
    torch._dynamo.config.recompile_limit = 64
    values = {
        "task": "denoise", "model": ours.config.to_dict(), "data": {"train": {"clean": "."}},
        "degrade": {"steps": ["gaussian:25"]}, "optimizer": {"clip": 0.01},
        "run": {"precision": "bf16", "compile": False},
    }  # fmt: skip
    device = "cpu" if machine.dry else "cuda"

    def published(batch: int, side: int) -> Callable[[], Any]:
        theirs.train()
        optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-4, fused=True)
        pair = torch.rand(2, batch, 3, side, side, device=machine.device)

        def step() -> Any:
            with torch.autocast(machine.device.type, dtype=torch.bfloat16):
                loss = torch.nn.functional.l1_loss(theirs(pair[0]).float(), pair[1])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.01)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step

    def mine(batch: int, side: int, *, compiled: bool = False) -> tuple[Callable[[], Any], TrainState]:
        run = values["run"] | {"compile": compiled and not machine.dry}
        recipe = Recipe.model_validate(values | {"run": run})
        learner = TrainState(recipe, make_accelerator(device, None, out))
        pair = torch.rand(2, batch, 3, side, side)
        pair = pair if machine.dry else pair.pin_memory()
        return lambda: learner.step([(pair[0], pair[1])], batch, 1e-4, False), learner

    shapes = ((2, 16), (1, 24)) if machine.dry else ((8, 128), (1, 384))
    every: dict[tuple[int, int], dict[str, Callable[[], Any]]] = {}
    learners: dict[tuple[int, int], list[TrainState]] = {}
    peaks: dict[str, int] = {}
    for batch, side in shapes:
        step, learner = mine(batch, side)
        every[batch, side], learners[batch, side] = {"published": published(batch, side), "ours": step}, [learner]
        for name, way in every[batch, side].items():
            way()
            peaks[f"{name} {batch} of {side}"] = machine.peak(way)[1]  # ours still by single calls
        for _ in range(learner.unsettled):
            step()
    wait_for_quiet(out, until["all"])
    for batch, side in shapes:
        with Turn(out):
            timings = machine.alternating(every[batch, side], 3.0, 5)
            notes = [note for learner in learners[batch, side] for note in learner.notes()]
            book.put(f"plain {batch} of {side}", {"published code": origin, "notes": notes, **timings, "peaks": peaks})
    for batch, side in shapes:
        begun = time.perf_counter()
        step, learner = mine(batch, side, compiled=True)
        every[batch, side]["ours compiled"] = step
        step()
        peak = machine.peak(step)[1]
        for _ in range(learner.unsettled):
            step()
        seconds = time.perf_counter() - begun
        with Turn(out):
            timings = machine.alternating(every[batch, side], 4.0, 5)
            row = {"notes": learner.notes(), **timings, "seconds to compile": seconds, "peak compiled": peak}
            book.put(f"compiled {batch} of {side}", row)


STEPS = {"rows": rows, "compile": compiled, "train": training}


def merged(out: Path) -> dict[str, Any]:
    """measure.json of what there is."""
    names = ("rows", "rows-plain", "tests", "compile", "train")
    document = {
        name: json.loads((out / f"{name}.json").read_text()) for name in names if (out / f"{name}.json").is_file()
    }
    (out / "measure.json").write_text(json.dumps(document, indent=1))
    return document


def summary(document: dict[str, Any]) -> list[str]:
    """The table, in few lines."""
    lines = []
    found = {**document.get("rows-plain", {}), **document.get("rows", {})}
    for key, row in found.items():
        if key.startswith("table") and "error" not in row:
            base, exact = (row.get(f"published {name}", {}).get("ms") for name in ("bf16 autocast", "fp32"))
            for name, way in row.items():
                ms, against = way.get("ms"), exact if "fp32" in name else base
                ratio = f"{against / ms:.2f}x" if ms and against else ""
                peak = (way.get("peak") or 0) / 1e6
                predicted = way.get("predicted", 0) / 1e6
                time_text = f"{ms:10.2f} ms" if ms else f"  {way.get('error', '')[:60]}"
                lines.append(f"{key:12}{name:26}{time_text} {ratio:>7} peak {peak:8.0f} MB predicted {predicted:6.0f}")
    for step in ("compile", "train"):
        for key, row in document.get(step, {}).items():
            if isinstance(row, dict):
                timings = {
                    name: round(way["ms"], 2) for name, way in row.items() if isinstance(way, dict) and "ms" in way
                }
                lines.append(f"{step} {key}: {timings}")
    lines.append(f"tests: {document.get('tests', {}).get('last')}")
    return lines


def main() -> int:
    """Run the steps, each by its time."""
    parser = argparse.ArgumentParser(description="Measure on a GPU.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=3.5)
    parser.add_argument("--only", choices=("all", "compilers"), default="all", help="compilers: steps 3 and 4")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--until", help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help="without Triton's kernels")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    if options.step:
        sys.path.insert(0, str(ROOT))
        if packages := os.environ.get("MEASURE_PACKAGES"):
            sys.path.append(packages)
        STEPS[options.step](out, Machine(options.dry_run), json.loads(options.until), options.plain)
        return 0
    begun = time.time()
    seconds = 60 * options.minutes
    install(out)
    log(out, f"installed after {time.time() - begun:.1f} s")
    for name in ("quiet", "turn.lock"):
        (out / name).unlink(missing_ok=True)
    until = {
        name: begun + share * seconds
        for name, share in (("table", TABLE), ("rows", ROWS), ("tests", TESTS), ("all", 1))
    }
    until["all"] -= 4
    script = [sys.executable, str(Path(__file__).resolve()), "--out", str(out), "--until", json.dumps(until)]
    script += ["--dry-run"] * options.dry_run

    def start(step: str, *more: str) -> subprocess.Popen[str]:
        error = (out / f"{step}.err").open("a")
        return subprocess.Popen([*script, "--step", step, *more], stdout=None, stderr=error, text=True)

    def finish(process: subprocess.Popen[str], deadline: float) -> int | None:
        try:
            return process.wait(max(0.5, deadline - time.time()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    plain, failed = ["--plain"] * options.plain, False
    if options.only == "all":
        code = finish(start("rows", *plain), 1e12 if options.dry_run else until["rows"] + 12)
        log(out, f"rows: {code}")
        failed = code not in (0, None)
        if code not in (0, None) and not options.plain:  # once more, by PyTorch's own calls
            log(out, "rows again, without Triton's kernels")
            plain = ["--plain"]
            code = finish(start("rows", *plain), 1e12 if options.dry_run else max(until["rows"], time.time() + 40))
        merged(out)
    others = {step: start(step, *plain) for step in ("compile", "train")}
    if options.only == "all":
        (out / "tests.json").write_text(json.dumps(tested(out, 1e12 if options.dry_run else until["tests"])))
    (out / "quiet").touch()
    merged(out)
    for step, process in others.items():
        code = finish(process, 1e12 if options.dry_run else until["all"])
        log(out, f"{step}: {code}")
        failed = failed or code not in (0, None)
    document = merged(out)
    for line in summary(document):
        log(out, line)
    log(out, f"{time.time() - begun:.0f} s")
    return int(failed)


def tested(out: Path, deadline: float) -> dict[str, Any]:
    """`pytest -m gpu`, within the time."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("MEASURE_PACKAGES", "")])}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-rA",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        "-q",
        "--noconftest",
    ]
    names = ("engine/test_gpu_whole_map.py", "engine/test_gpu.py", "training/test_training_on_a_gpu.py")
    command += ["-W", "default", *(f"tests/{name}" for name in names)]
    with (out / "tests.txt").open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            code: int | None = process.wait(max(5.0, deadline - time.time()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
    text = (out / "tests.txt").read_text(errors="replace").strip().splitlines()
    return {"code": code, "last": text[-1] if text else "", "failures": [x for x in text if x.startswith("FAILED")]}


if __name__ == "__main__":
    sys.exit(main())
