"""Learned measures of likeness, which need a package and its weights: the extra `[metrics]`."""

import numpy as np

from restormer_cli.errors import UserError
from restormer_cli.extras import require

METRICS = {"lpips": "alex", "lpips-vgg": "vgg"}
"""Name -> backbone. The paper's LPIPS is AlexNet's."""


def check_metrics(names: tuple[str, ...]) -> None:
    """Raises UserError for a name that is unknown, or whose package is not installed."""
    for name in names:
        if name not in METRICS:
            raise UserError(f"--metrics {name}: unknown; choose from {', '.join(METRICS)}")
        require(f"--metrics {name}", "metrics", "lpips")


class Perceptual:
    """Learned distances between two pictures: `measure(result, clean)` -> ((name, value), …), less is better.

    Raises UserError where a package or its weights cannot be had.
    """

    def __init__(self, names: tuple[str, ...], device: str = "cpu") -> None:
        check_metrics(names)
        self.device = device
        self.networks = [(name, self._load(name)) for name in names]

    def _load(self, name: str):
        import lpips  # pyright: ignore[reportMissingImports]

        try:
            return lpips.LPIPS(net=METRICS[name], verbose=False).eval().to(self.device)
        except Exception as error:  # whatever the download of its backbone stumbles over
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"--metrics {name}: the weights of its {METRICS[name]} backbone cannot be loaded ({reason}): run it "
                "once with a network, torch keeps them in ~/.cache/torch"
            ) from None

    def __call__(self, result: np.ndarray, clean: np.ndarray) -> tuple[tuple[str, float], ...]:
        """Two pictures (h, w, 1 or 3), 0 black and 1 white, clamped here."""
        import torch

        def planes(picture: np.ndarray) -> torch.Tensor:
            picture = np.repeat(np.clip(picture, 0, 1), 3 // picture.shape[2], axis=2)
            return torch.from_numpy(2 * picture.transpose(2, 0, 1)[None] - 1).float().to(self.device)

        with torch.inference_mode():
            pair = (planes(result), planes(clean))
            return tuple((name, float(network(*pair))) for name, network in self.networks)
