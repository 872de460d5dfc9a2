"""Triton's kernels against PyTorch's own calls, in Triton's interpreter: a process of its own, run by
test_whole_map.py with TRITON_INTERPRET=1. `interpreted_kernels.py steps | network`."""

# pyright: reportCallIssue=false, reportArgumentType=false

import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from restormer_cli.engine import kernels
from restormer_cli.engine.strips import StripNetwork
from restormer_cli.engine.whole_map import Plain, WholeMap
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.textbook import TextbookRestormer

LIMIT = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}
MAPS = [(4, 5, 7, 0, 5), (8, 3, 19, 1, 2), (48, 4, 17, 1, 3), (16, 1, 1, 0, 1), (4, 40, 3, 1, 38), (12, 1, 37, 0, 1)]
"""Channels, rows, columns, the first row that is wanted, and how many."""
HEADS = [(1, 4, 3), (2, 48, 4), (1, 96, 2), (3, 5, 1)]
"""Heads, channels of each, slots."""


def close(one: Tensor, other: Tensor, dtype: torch.dtype) -> None:
    assert torch.isfinite(one).all()
    error = (one.float() - other.float()).norm() / other.float().norm()
    assert error < LIMIT[dtype], f"{dtype}: {error}"


def steps() -> None:
    """Every kernel, odd sizes and edges of one pixel included; what is not written stays 9 and shows."""
    torch.manual_seed(0)
    for dtype in LIMIT:
        for channels, rows, columns, first, count in MAPS if dtype == torch.float32 else MAPS[:2]:
            for bias in (True, False):
                x = torch.randn(2, rows, columns, channels).to(dtype)
                weight, more = torch.randn(channels), torch.randn(channels) if bias else None
                close(kernels.layer_norm(x + 1, weight, more), Plain.layer_norm(x + 1, weight, more), dtype)

                x, weight = torch.randn(2, rows, columns, 3 * channels).to(dtype), torch.randn(9, 3 * channels)
                more = torch.randn(3 * channels) if bias else None
                sizes = (2, count, columns, 2 * channels), (2, count, columns, channels)
                results = []
                for way in (kernels, Plain):
                    qk, v = (torch.full(size, 9, dtype=dtype) for size in sizes)
                    way.depthwise(x, weight, more, qk, v, first)
                    results.append(torch.cat([qk, v], dim=-1))
                close(*results, dtype)

                x, weight = torch.randn(2, rows, columns, 2 * channels).to(dtype), torch.randn(9, 2 * channels)
                more = torch.randn(2 * channels) if bias else None
                results = []
                for way in (kernels, Plain):
                    results.append(torch.full(sizes[1], 9, dtype=dtype))
                    way.gate(x, weight, more, results[-1], first)
                close(*results, dtype)
        for channels, rows, columns, inputs, bias in ((4, 3, 70, 3, True), (48, 1, 5, 1, False), (6, 7, 1, 6, True)):
            pictures, results = torch.rand(2, inputs, rows, columns), []
            weight, back = torch.randn(9, inputs, channels), torch.randn(9, channels, inputs)
            more = torch.randn(inputs) if bias else None
            for way in (kernels, Plain):
                results.append(torch.full((2, rows, columns, channels), 9, dtype=dtype))
                way.embed(pictures, weight, results[-1])
            close(*results, dtype)
            for residual in (True, False):
                planes = []
                for way in (kernels, Plain):
                    planes.append(torch.full_like(pictures, 9))
                    way.output(results[1], back, more, pictures, planes[-1], residual)
                close(*planes, torch.float32)
        for heads, width, slots in HEADS:
            qk = torch.randn(2, 6, 40, 2 * heads * width).to(dtype)
            results = []
            for way in (kernels, Plain):
                sums = torch.full((3, slots, heads, width + 2, width), 9.0)
                way.gram(qk, sums, 1, False)
                way.gram(qk[:, :3].contiguous(), sums, 1, True)
                assert sums[0].eq(9).all()
                results.append(sums[1:].sum(1))
            close(*results, torch.float32)
            temperature, project = torch.rand(heads) + 0.5, torch.randn(heads * width, heads * width)
            ways = (way.matrix(results[1], temperature, project, dtype) for way in (kernels, Plain))
            close(*ways, dtype)


def network() -> None:
    """All of them at work, in pieces, against the textbook."""
    torch.manual_seed(0)
    config = ModelConfig(dim=4, blocks=(1, 1, 1, 1), heads=(1, 1, 2, 2), refinement=0, norm="bias-free", bias=True)
    model = Restormer(config).eval()
    judge = TextbookRestormer(config).eval()
    judge.load_state_dict(model.state_dict())
    pictures = torch.rand(1, 3, 16, 8)
    with torch.no_grad():
        expected = judge(pictures)
    ours = WholeMap(model, operations=kernels, piece_bytes=6000)
    assert (ours.run(pictures) - expected).abs().max() < 1e-5
    assert ours.operations is kernels
    assert not ours.notes
    ours = WholeMap(model, operations=kernels, window=8, piece_bytes=6000)
    assert (ours.run(pictures) - StripNetwork(model, window=8).run(pictures)).abs().max() < 1e-5
    assert ours.operations is kernels


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))
    import interpreter  # noqa: F401

    vars(SimpleNamespace(steps=steps, network=network))[sys.argv[1]]()
