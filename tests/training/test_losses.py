"""Losses against their formulas, written out."""

import math

import pytest
import torch

from restormer_cli.training.losses import LOSSES, PSNR_FLOOR, SPECTRUM_SHARE


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    output, target = torch.rand(2, 2, 3, 5, 7, dtype=torch.float64, generator=generator)
    return output, target


def test_l1_is_the_mean_of_absolute_errors(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert float(LOSSES["l1"](*pair)) == pytest.approx(float((pair[0] - pair[1]).abs().mean()), rel=1e-12)


def test_charbonnier_has_a_smooth_floor(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    same = pair[0].clone().requires_grad_(True)
    floor = LOSSES["charbonnier"](same, pair[0])
    floor.backward()
    assert float(floor.detach()) == pytest.approx(1e-3)
    assert same.grad is not None
    assert not same.grad.any()
    assert float(LOSSES["charbonnier"](*pair)) >= float(LOSSES["l1"](*pair))


def test_fft_adds_a_share_of_the_spectrum(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    error = pair[0] - pair[1]
    rows, columns = (
        torch.exp(-2j * torch.pi * torch.outer(torch.arange(n), torch.arange(n)) / n).to(torch.complex128)
        for n in (5, 7)
    )
    spectrum = (rows @ error.to(torch.complex128) @ columns)[..., :4] / 35**0.5  # the transform by its definition
    parts = torch.stack((spectrum.real, spectrum.imag)).abs().mean()
    expected = float(error.abs().mean() + SPECTRUM_SHARE * parts)
    assert float(LOSSES["fft"](*pair)) == pytest.approx(expected, rel=1e-9)


def test_psnr_is_the_mean_over_pictures_and_not_that_of_the_batch(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    output = torch.stack((pair[0][0], pair[1][1] + 0.01))  # one bad picture, one good
    expected = [
        10 * math.log10(float((o - t).square().mean()) + PSNR_FLOOR) for o, t in zip(output, pair[1], strict=True)
    ]
    assert float(LOSSES["psnr"](output, pair[1])) == pytest.approx(sum(expected) / 2, rel=1e-12)


def test_psnr_gains_nothing_beyond_its_floor(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    same = pair[0].clone().requires_grad_(True)
    floor = LOSSES["psnr"](same, pair[0])
    floor.backward()
    assert float(floor.detach()) == pytest.approx(-50)
    assert same.grad is not None
    assert not same.grad.any()
