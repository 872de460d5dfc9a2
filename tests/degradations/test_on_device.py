import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor

from restormer_cli.degradations import on_device
from restormer_cli.degradations.on_device import MARGIN, Mixture, camera_noise, jpeg, noisy_batch


def crops(count: int, side: int, seed: int = 0) -> Tensor:
    """Crops of photographs, (count, 3, side, side)."""
    rng, pictures = np.random.default_rng(seed), [data.astronaut(), data.chelsea(), data.coffee()]
    cut = []
    for number in range(count):
        picture = pictures[number % 3]
        top, left = (int(rng.integers(length - side + 1)) for length in picture.shape[:2])
        cut.append(picture[top : top + side, left : left + side])
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float() / 255


def correlation(x: Tensor, y: Tensor) -> float:
    return float(((x - x.mean()) * (y - y.mean())).mean() / (x.std() * y.std()))


def test_camera_noise_looks_like_a_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of measured statistics: spread, correlation with neighbours and between channels."""
    monkeypatch.setattr(on_device, "jpeg", lambda pictures, quality: pictures)
    torch.manual_seed(0)
    noisy, clean = camera_noise(crops(48, 128 + 2 * MARGIN))
    noise = [pixels for pixels in (noisy - clean) * 255 if 1 < float(pixels.std()) < 12]
    assert len(noise) >= 30

    def mean(of: object) -> float:
        return float(np.mean([of(pixels) for pixels in noise]))  # type: ignore[operator]

    spread = [mean(lambda pixels, c=c: pixels[c].std()) for c in range(3)]
    assert 2.5 < spread[1] < min(spread[0], spread[2]) < max(spread) < 7.5
    for channel in range(3):
        next_one = mean(lambda pixels, c=channel: correlation(pixels[c, :, 1:], pixels[c, :, :-1]))
        one_more = mean(lambda pixels, c=channel: correlation(pixels[c, :, 2:], pixels[c, :, :-2]))
        assert 0.5 < next_one < 0.77
        assert 0.18 < one_more < 0.5
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert 0.3 < mean(lambda pixels, a=one, b=other: correlation(pixels[a], pixels[b])) < 0.75


@pytest.mark.parametrize("count", [4, 6, 7])
def test_both_sides_lie_alike_in_the_mosaic(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise both sides are one picture, whatever the size of the batch."""
    levels = torch.full((count, 1, 1, 1), 1e-9)
    monkeypatch.setattr(on_device, "_noise_levels", lambda b, device: (levels, levels * 1e-9))
    monkeypatch.setattr(on_device, "jpeg", lambda pictures, quality: pictures)
    noisy, clean = camera_noise(crops(count, 64 + 2 * MARGIN))
    # Poisson counts of 1e9 photons, 12 bits and rounding to 8 are left.
    assert float((noisy - clean).abs().mean()) < 1.5 / 255


def test_a_jpeg_is_what_a_library_makes_of_it() -> None:
    pictures = crops(3, 128)
    for quality in (40.0, 75.0, 95.0):
        ours = jpeg(pictures, torch.full((3, 1, 1, 1), quality)).clamp(0, 1)
        for picture, result in zip(pictures, ours, strict=True):
            file = io.BytesIO()
            pixels = (picture.permute(1, 2, 0) * 255).round().byte().numpy()
            Image.fromarray(pixels).save(file, "JPEG", quality=int(quality), subsampling=2)
            library = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
            between, lost = (float((library - other).square().mean()) for other in (result, picture))
            assert between < lost / 4


def test_colour_matrices_invert() -> None:
    torch.manual_seed(0)
    matrix, _ = on_device._camera(5, torch.device("cpu"))
    assert torch.allclose(on_device._inverse(matrix), torch.linalg.inv(matrix), atol=1e-5)
    assert torch.allclose(matrix.sum(2), torch.ones(5, 3), atol=1e-6)  # white is white


def test_tone_and_encoding_invert() -> None:
    x = torch.linspace(0, 1, 1001)
    assert torch.allclose(on_device._toned(on_device._untoned(x)), x, atol=1e-6)
    assert torch.allclose(on_device._encoded(on_device._linear(x)), x, atol=1e-6)


def test_a_batch_is_half_and_half() -> None:
    torch.manual_seed(0)
    around = crops(6, 48 + 2 * MARGIN)
    degraded, clean = noisy_batch(around, Mixture(sigma=(25.0, 25.0), rounded=0, compressed=0, gray_every=0))
    assert degraded.shape == clean.shape == (6, 3, 48, 48)
    assert torch.equal(clean[3:], around[3:, :, MARGIN:-MARGIN, MARGIN:-MARGIN])
    white = (degraded - clean)[3:] * 255
    assert float(white.std()) == pytest.approx(25, rel=0.02)
    assert abs(correlation(white[..., 1:], white[..., :-1])) < 0.03


def test_a_fifth_has_no_colours() -> None:
    torch.manual_seed(0)
    around = crops(12, 48 + 2 * MARGIN)
    degraded, clean = noisy_batch(around, Mixture(sensor=0, sigma=(25.0, 25.0), rounded=0, compressed=0))
    for side in (degraded, clean):
        gray = [place for place, picture in enumerate(side) if torch.equal(picture[0], picture[1])]
        assert gray == [0, 5, 10]
        assert all(torch.equal(side[place, 1], side[place, 2]) for place in gray)
    noise = ((degraded - clean) * 255).std(dim=(1, 2, 3))
    assert float(noise[10]) == pytest.approx(25, rel=0.05)  # the green channel's
    assert float(noise[[0, 5]].mean()) == pytest.approx(25 * (0.299**2 + 0.587**2 + 0.114**2) ** 0.5, rel=0.05)
