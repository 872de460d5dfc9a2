"""The classical methods that people would otherwise reach for, each with the one strength that matters.

They are told what they need: σ, and the blur's kernel where the degradation has one. Their strength is given, or
tuned by `tune` on the very pictures that are scored afterwards, which favours them: what they reach is what they can.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from restormer_cli.degradations.operators import disc_kernel, motion_kernel
from restormer_cli.degradations.spec import Degradation, Step
from restormer_cli.errors import UserError

Restore = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Hints:
    """Degradation parameters that a method is given."""

    sigma: float = 25 / 255
    """Standard deviation of the noise, 1 being white."""
    kernel: np.ndarray | None = field(default=None, repr=False)
    """The blur, (k, k), sum 1; None: no blur, or none that is the same everywhere."""
    strength: float | None = None
    """None: the method's middle one."""


@dataclass(frozen=True)
class ClassicalMethod:
    """A classical method and the strengths worth trying, weakest first."""

    function: Callable[[np.ndarray, Hints, float], np.ndarray]
    about: str
    """Description, with the quantity that the strength multiplies."""
    strengths: tuple[float, ...] = (1.0,)
    deblurring: tuple[float, ...] = ()
    """The strengths where there is a kernel, if they are others."""
    deblurs: bool = False
    """Whether it needs a kernel."""

    def grid(self, hints: Hints) -> tuple[float, ...]:
        """The strengths worth trying."""
        return self.deblurring if self.deblurring and hints.kernel is not None else self.strengths

    def run(self, picture: np.ndarray, hints: Hints, strength: float) -> np.ndarray:
        """float32 (h, w, c) -> the same."""
        return self.function(picture, hints, strength).astype(np.float32).reshape(picture.shape)

    def prepare(self, hints: Hints) -> Restore:
        """The method with its strength: float32 (h, w, c) -> the same. Raises UserError where it needs a kernel."""
        if self.deblurs and hints.kernel is None:
            raise UserError("this method undoes a known blur: use it with --degrade defocus:3 or motion:9,angle=20")
        grid = self.grid(hints)
        strength = grid[len(grid) // 2] if hints.strength is None else hints.strength
        return lambda picture: self.run(picture, hints, strength)


def hints_for(degradation: Degradation | None, pictures: Sequence[np.ndarray]) -> Hints:
    """Parameters from the degradation where it is fixed, else σ as estimated from the degraded pictures."""
    sigma = kernel = None
    steps: tuple[Step, ...] = () if degradation is None else degradation.steps
    for step in steps:
        operation, *others = step.choices
        if others or step.probability < 1:
            continue
        values = [span.lo if span.lo == span.hi else None for span in operation.values]
        if operation.kind == "gaussian" and values[0] is not None:
            sigma = values[0] / 255
        elif operation.kind == "defocus" and values[0] is not None and values[1] == 0:
            kernel = disc_kernel(values[0])
        elif operation.kind == "motion" and values[0] is not None and values[1] is not None and values[2] == 0:
            kernel = motion_kernel(np.random.default_rng(0), length=values[0], angle=values[1], shake=0.0)
    if sigma is None:
        sigma = float(np.median([estimate_sigma(picture) for picture in pictures])) if len(pictures) else 0.0
    return Hints(sigma=sigma, kernel=kernel)


def estimate_sigma(picture: np.ndarray) -> float:
    """The noise in a picture (h, w, c), by the median of a Laplacian that is blind to planes and edges alike."""
    from scipy.ndimage import convolve

    stencil = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])[..., None]
    response = convolve(picture.astype(np.float64), stencil, mode="mirror")
    # 6 is the stencil's gain on white noise, 0.6745 the median of |z| for a standard normal z.
    return float(np.median(np.abs(response)) / (6 * 0.6745))


# --- The methods --------------------------------------------------------------------------------------------


def _nl_means(picture: np.ndarray, hints: Hints, strength: float) -> np.ndarray:
    from skimage.restoration import denoise_nl_means

    return denoise_nl_means(
        picture,
        patch_size=5,
        patch_distance=6,
        h=max(strength * hints.sigma, 1e-6),
        sigma=hints.sigma,
        fast_mode=True,
        channel_axis=-1,
    )


def _tv(picture: np.ndarray, hints: Hints, strength: float) -> np.ndarray:
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(picture, weight=max(strength * hints.sigma, 1e-6), channel_axis=-1)


def _wavelet(picture: np.ndarray, hints: Hints, strength: float) -> np.ndarray:
    from skimage.restoration import denoise_wavelet

    return denoise_wavelet(
        picture,
        sigma=[strength * hints.sigma] * picture.shape[2],
        wavelet="db2",
        convert2ycbcr=picture.shape[2] == 3,
        rescale_sigma=True,
        channel_axis=-1,
    )


def _median(picture: np.ndarray, hints: Hints, strength: float) -> np.ndarray:
    from scipy.ndimage import median_filter

    return median_filter(picture, size=(int(strength), int(strength), 1), mode="mirror")


def _bilateral(picture: np.ndarray, hints: Hints, strength: float) -> np.ndarray:
    from skimage.restoration import denoise_bilateral

    gray = picture.shape[2] == 1
    result = denoise_bilateral(
        np.clip(picture[..., 0] if gray else picture, 0, None),  # it takes no negative values
        sigma_color=max(strength * hints.sigma, 1e-3),
        sigma_spatial=2,
        mode="symmetric",
        channel_axis=None if gray else -1,
    )
    return result[..., None] if gray else result


def _bm3d(picture: np.ndarray, hints: Hints, strength: float) -> np.ndarray:
    import bm3d

    sigma = max(strength * hints.sigma, 1e-4)
    if picture.shape[2] == 3:
        return bm3d.bm3d_rgb(picture.astype(np.float64), sigma)
    return np.asarray(bm3d.bm3d(picture[..., 0].astype(np.float64), sigma))[..., None]


def _unsharp(picture: np.ndarray, hints: Hints, strength: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return picture + strength * (picture - gaussian_filter(picture, (2, 2, 0), mode="mirror"))


def _opening(picture: np.ndarray, hints: Hints, strength: float) -> np.ndarray:
    """Remove bright structures narrower than this, such as streaks of rain, and white poles."""
    from scipy.ndimage import grey_opening

    return grey_opening(picture, size=(1, int(strength), 1), mode="mirror")


def _guided(picture: np.ndarray, hints: Hints, strength: float) -> np.ndarray:
    """He et al., "Guided image filtering" (2010), each channel its own guide: a linear function of it per window."""
    from scipy.ndimage import uniform_filter

    def mean(plane: np.ndarray) -> np.ndarray:
        return uniform_filter(plane, 9, mode="mirror", axes=(0, 1))

    guide = picture.astype(np.float64)
    centre = mean(guide)
    variance = mean(guide**2) - centre**2
    slope = variance / (variance + strength**2)
    return mean(slope) * guide + mean((1 - slope) * centre)


def _wiener(picture: np.ndarray, hints: Hints, strength: float) -> np.ndarray:
    if hints.kernel is None:
        return _local_wiener(picture, hints, strength)
    from skimage.restoration import wiener

    balance = strength * 10 * max(hints.sigma, 0.5 / 255)  # 8-bit rounding is noise too
    return _per_channel(
        picture, hints.kernel, lambda plane, kernel: np.asarray(wiener(plane, kernel, balance, clip=False))
    )


def _local_wiener(picture: np.ndarray, hints: Hints, strength: float) -> np.ndarray:
    """Without a blur: shrink each pixel towards its 5×5 mean by the share of noise in the local variance."""
    from scipy.ndimage import uniform_filter

    noise = (strength * hints.sigma) ** 2
    mean = uniform_filter(picture, 5, mode="mirror", axes=(0, 1))
    variance = uniform_filter(picture**2, 5, mode="mirror", axes=(0, 1)) - mean**2
    return mean + np.maximum(variance - noise, 0) / np.maximum(variance, 1e-12) * (picture - mean)


def _richardson_lucy(picture: np.ndarray, hints: Hints, strength: float) -> np.ndarray:
    from skimage.restoration import richardson_lucy

    assert hints.kernel is not None
    return _per_channel(
        np.maximum(picture, 1e-6),
        hints.kernel,
        lambda plane, kernel: richardson_lucy(plane, kernel, num_iter=int(strength), clip=False, filter_epsilon=1e-6),
    )


def _per_channel(
    picture: np.ndarray, kernel: np.ndarray, run: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Deconvolve each channel with its border mirrored far enough for the kernel's ringing to die out."""
    reach = 2 * len(kernel)
    height, width, channels = picture.shape
    padded = np.pad(picture.astype(np.float64), ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    planes = [run(padded[..., channel], kernel.astype(np.float64)) for channel in range(channels)]
    return np.stack(planes, axis=-1)[reach : reach + height, reach : reach + width]


METHODS = {
    "nl-means": ClassicalMethod(
        _nl_means, "scikit-image's non-local means, h a multiple of σ", (0.5, 0.65, 0.8, 0.95, 1.15)
    ),
    "bm3d": ClassicalMethod(
        _bm3d, "the package bm3d (for academic use only), told a multiple of σ", (0.9, 1.0, 1.15, 1.3)
    ),
    "tv": ClassicalMethod(
        _tv, "scikit-image's total variation (Chambolle), weight a multiple of σ", (0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
    ),
    "wavelet": ClassicalMethod(
        _wavelet, "scikit-image's BayesShrink in YCbCr, told a multiple of σ", (0.7, 0.85, 1.0, 1.2)
    ),
    "wiener": ClassicalMethod(
        _wiener,
        "Wiener: local 5×5 shrinkage, told a multiple of σ; with a blur, deconvolution, balance a multiple of 10 σ",
        (0.7, 1.0, 1.3, 2.0),
        deblurring=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    ),
    "richardson-lucy": ClassicalMethod(
        _richardson_lucy,
        "scikit-image's Richardson-Lucy with a known blur, iterations",
        (3, 6, 12, 25, 50),
        deblurs=True,
    ),
    "median": ClassicalMethod(_median, "SciPy's median filter, side in pixels", (3, 5, 7, 9, 11)),
    "guided": ClassicalMethod(
        _guided,
        "guided filter (He et al. 2010), each channel its own guide, 9×9, edges above the strength are kept",
        (0.03, 0.06, 0.12, 0.25, 0.5),
    ),
    "opening": ClassicalMethod(
        _opening, "SciPy's grey opening across upright streaks, for rain, width in pixels", (3, 5, 7, 9)
    ),
    "unsharp": ClassicalMethod(_unsharp, "unsharp mask of radius 2, for blur, amount", (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)),
    "bilateral": ClassicalMethod(
        _bilateral, "scikit-image's bilateral filter, colour width a multiple of σ", (0.7, 1.0, 1.5, 2.0, 3.0)
    ),
}


def tune(
    name: str, hints: Hints, pairs: Sequence[tuple[np.ndarray, np.ndarray]], score: Callable[..., float]
) -> tuple[float, float]:
    """The strength with the best mean `score(restored, clean)` over pairs (degraded, clean), and that mean."""
    method = METHODS[name]
    best = (method.grid(hints)[0], -np.inf)
    for strength in method.grid(hints):
        mean = float(np.mean([score(method.run(bad, hints, strength), good) for bad, good in pairs]))
        if mean > best[1]:
            best = (strength, mean)
    return best
