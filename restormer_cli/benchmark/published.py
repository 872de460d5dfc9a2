"""Scores of the paper's own weights on its data sets (section 4 and its tables)."""

import re
from dataclasses import dataclass
from pathlib import Path

from restormer_cli.benchmark.networks import Network
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.hub import OFFICIAL


@dataclass(frozen=True)
class Published:
    """A figure in print: mean PSNR in dB, and SSIM where it is given."""

    psnr: float
    ssim: float | None = None


_RESULTS: dict[tuple[str, str], dict[str, Published]] = {
    ("deraining", "rain-y"): {
        "test100": Published(32.00, 0.923),
        "rain100h": Published(31.46, 0.904),
        "rain100l": Published(38.99, 0.978),
        "test2800": Published(34.18, 0.944),
        "test1200": Published(33.19, 0.926),
    },
    ("motion_deblurring", "gopro"): {"gopro": Published(32.92, 0.961), "hide": Published(31.22, 0.942)},
    ("motion_deblurring", "realblur"): {"realblurr": Published(36.19), "realblurj": Published(28.96)},
    ("single_image_defocus_deblurring", "dpdd"): {
        "dpdd": Published(25.98, 0.811),
        "indoor": Published(28.87),
        "outdoor": Published(23.24),
    },
    ("dual_pixel_defocus_deblurring", "dpdd"): {"dpdd": Published(26.66)},
    ("real_denoising", "sidd"): {"sidd": Published(40.02, 0.960)},
}

_SIGMAS = (15, 25, 50)
_GAUSSIAN: dict[tuple[str, str], dict[str, tuple[float, float, float]]] = {
    ("color", "blind"): {
        "cbsd68": (34.39, 31.78, 28.59),
        "kodak24": (35.44, 33.02, 30.00),
        "mcmaster": (35.55, 33.31, 30.29),
        "urban100": (35.06, 32.91, 30.02),
    },
    ("color", "fixed"): {
        "cbsd68": (34.40, 31.79, 28.60),
        "kodak24": (35.47, 33.04, 30.01),
        "mcmaster": (35.61, 33.34, 30.30),
        "urban100": (35.13, 32.96, 30.02),
    },
    ("gray", "blind"): {
        "set12": (33.35, 31.04, 28.01),
        "bsd68": (31.95, 29.51, 26.62),
        "urban100": (33.67, 31.39, 28.33),
    },
    ("gray", "fixed"): {
        "set12": (33.42, 31.08, 28.00),
        "bsd68": (31.96, 29.52, 26.62),
        "urban100": (33.79, 31.46, 28.29),
    },
}


def published(network: Network, protocol: str, dataset: str, sigma: float | None = None) -> Published | None:
    """The paper's figure for these weights (known by the paper's shape and their official file name, or the name that
    they were fetched by), this protocol and data set (by name, however it is spelled); None where there is none."""
    if network.path is None or not _papers_shape(network.config):
        return None
    weights, name = _official_stem(network.path), re.sub(r"[^a-z0-9]", "", dataset.lower())
    match = re.fullmatch(r"gaussian_(color|gray)_denoising_(blind|sigma(15|25|50))", weights)
    if match is None:
        return _RESULTS.get((weights, protocol), {}).get(name)
    if protocol != "gaussian" or sigma not in _SIGMAS or (match[3] and int(match[3]) != sigma):
        return None
    figures = _GAUSSIAN[match[1], "fixed" if match[3] else "blind"].get(name)
    return None if figures is None else Published(figures[_SIGMAS.index(int(sigma))])


def _official_stem(path: Path) -> str:
    """The official file's name without its ending, also of what was fetched by name: official/TASK.safetensors."""
    fetched = OFFICIAL.get(path.stem) if path.parent.name == "official" else None
    return Path(fetched.file).stem if fetched else path.stem


def _papers_shape(config: ModelConfig) -> bool:
    """Whether it is one of the paper's networks, whatever their channels and norm."""
    paper = ModelConfig()
    keys = ("dim", "blocks", "refinement", "heads", "expansion", "bias", "attention", "feed_forward", "concat")
    return all(getattr(config, key) == getattr(paper, key) for key in keys)
