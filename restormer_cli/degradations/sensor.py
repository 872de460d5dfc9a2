"""A camera in poor light: from a clean picture back to the light, and forth again through sensor and software.

The order of things is that of Brooks et al. 2019, "Unprocessing Images for Learned Raw Denoising", with what cameras
and people do to a picture afterwards. Mosaic, tone, sharpening and size change the clean picture too, so that a network
learns to take noise away and nothing else.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from restormer_cli.degradations.demosaic import DEMOSAICERS
from restormer_cli.degradations.tone import Tone

Image = NDArray[np.float32]

# --- What is known of cameras -------------------------------------------------------------------------------

# XYZ -> a camera's own colours, as the makers' DNG profiles have it.
_CAMERAS = np.array(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.6130, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.8380, -0.2630, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.0970, 0.1581, 0.5181]],
    ]
)
_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)

# Large sensors: ISO, and the shot noise's gain on demosaiced values that a tenth, half and nine tenths stay below
# (green, fits of 8,048 profiles).
_LARGE = np.array(
    [
        [100, 1.2e-6, 3.1e-6, 1.3e-5],
        [400, 3.8e-6, 9.4e-6, 3.7e-5],
        [1600, 1.5e-5, 3.5e-5, 1.3e-4],
        [6400, 4.1e-5, 1.2e-4, 3.4e-4],
        [25600, 1.6e-4, 3.4e-4, 7.4e-4],
    ]
)
_BLACK = 1 / 16
"""How far below zero the numbers of a photosite go, in parts of white: the black level of most cameras."""
_MARGIN = 4
"""Pixels around the picture that are photographed too, since a demosaicer looks two or three to each side."""
_TO_LUMA = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
_FROM_LUMA = np.linalg.inv(_TO_LUMA.astype(np.float64)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera set up for one picture: all that is drawn but the noise itself."""

    shot: float
    """Variance of a photosite per value (white is 1): the value of one electron."""
    read: float
    """Variance of a photosite in the dark."""
    tail: float
    """σ of the logarithm of the read noise's strength from photosite to photosite: 0, as most are, is Gaussian."""
    row: float
    """σ of what a whole row is off by."""
    bits: int
    gains: NDArray[np.float32]
    """White balance and exposure, of red, green and blue."""
    matrix: NDArray[np.float32]
    """The camera's colours -> linear sRGB."""
    contrast: float
    """0: a display's curve alone; 1: the smooth step after it."""
    phase: tuple[int, int]
    """Where the mosaic's first red lies."""
    demosaic: int
    dark: float
    scale: float
    denoise: float
    chroma: float
    """The camera's noise reduction for colours, as `denoise` for brightness."""
    sharpen: float
    radius: float
    """Radius of the sharpening, in pixels (σ)."""
    optics: float
    """σ of the blur by lens and low-pass filter, in photosites; without it a mosaic makes colours of fine edges."""
    jpeg: int
    """0: none."""
    subsampling: int
    tone: Tone = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tone", Tone.of(self.contrast))

    def light(self, image: Image) -> Image:
        """Light on the sensor: (3, h, w) in [0, 1] -> the same, linear, in the camera's colours, white 1."""
        light = _mixed(np.linalg.inv(self.matrix), self.tone.linear(image))
        # Where all is near white the light is white, whatever the gains: Brooks et al., section 3.4.
        bright = np.maximum((light.mean(axis=0) - np.float32(0.9)) * 10, 0) ** 2
        weaker = 1 / self.gains[:, None, None]
        light *= np.maximum(bright + (1 - bright) * weaker, weaker) if bright.any() else weaker
        return np.clip(light, 0, 1, out=light)

    def expose(self, mosaic: Image, rng: np.random.Generator) -> Image:
        """The numbers that are read from photosites: (h, w) light -> the same, with noise and steps."""
        dimmed = mosaic * np.float32(2**-self.dark)
        noise = rng.standard_normal(mosaic.shape, dtype=np.float32)
        few = dimmed < 20 * self.shot  # of fewer electrons a bell curve is not true
        noise *= np.sqrt(dimmed * np.float32(self.shot) * ~few + np.float32(0 if self.tail else self.read))
        if few.any():
            noise[few] += rng.poisson(dimmed[few] / self.shot) * self.shot - dimmed[few]
        if self.tail:
            read, strength = rng.standard_normal((2, *mosaic.shape), dtype=np.float32)
            strength -= np.float32(self.tail)  # so that the variance stays
            noise += np.float32(math.sqrt(self.read)) * read * np.exp(np.float32(self.tail) * strength)
        noise += rng.standard_normal((len(mosaic), 1), dtype=np.float32) * np.float32(self.row)
        levels = np.float32(2**self.bits - 1)
        noise += dimmed
        noise *= levels
        numbers = np.rint(noise, out=noise)
        numbers /= levels
        return np.clip(numbers, -_BLACK, 1, out=numbers) * np.float32(2**self.dark)

    def develop(self, raw: Image) -> Image:
        """Colours as a file has them: a mosaic (h, w), red first -> (3, h, w) in [0, 1]."""
        colours = DEMOSAICERS[self.demosaic](raw)
        colours *= self.gains[:, None, None]
        # What is beyond white in one colour is so in all of them, or highlights would turn magenta.
        return self.tone.encoded(_mixed(self.matrix, np.clip(colours, -_BLACK, 1, out=colours)))

    def photograph(self, degraded: Image, clean: Image, rng: np.random.Generator) -> tuple[Image, Image]:
        """The noisy and the noiseless picture: (h, w, 3) each, in [0, 1] -> the same."""
        scenes = [degraded] if degraded is clean else [degraded, clean]
        height, width, _ = degraded.shape
        mosaics = []
        for scene in scenes:
            planes = np.clip(scene.transpose(2, 0, 1), 0, 1, order="C")
            planes = _resized(planes, round(height * self._finer), round(width * self._finer))
            mosaics.append(self._mosaic(_softened(self.light(planes), self.optics)))
        noisy, noiseless = self.develop(self.expose(mosaics[0], rng)), self.develop(mosaics[-1])
        if self.denoise or self.chroma:
            same = noiseless if degraded is clean else self.develop(mosaics[0])
            noisy = reduce_noise(noisy, same, self.denoise, self.chroma)
        finished = []
        for picture in self._sharpened(noisy, noiseless):
            inside = tuple(
                slice(_MARGIN + shift, _MARGIN + shift + round(side * self._finer))
                for shift, side in zip(self.phase, (height, width), strict=True)
            )
            finished.append(_resized(picture[:, *inside], height, width).transpose(1, 2, 0).copy())
        return self._compressed(finished[0], rng), finished[1]

    @property
    def _finer(self) -> float:
        """Photosites per pixel of the finished picture, along a side."""
        return 1 / min(self.scale, 1)

    def _mosaic(self, light: Image) -> Image:
        """One colour a pixel, with a margin around: (3, h, w) -> (h + ~8, w + ~8), even sides, red first."""
        pads = [
            (_MARGIN + shift, _MARGIN + (side + shift) % 2)
            for shift, side in zip(self.phase, light.shape[1:], strict=True)
        ]
        red, mosaic, blue = np.pad(light, ((0, 0), *pads), mode="symmetric")
        mosaic[::2, ::2] = red[::2, ::2]
        mosaic[1::2, 1::2] = blue[1::2, 1::2]
        return mosaic

    def _sharpened(self, noisy: Image, clean: Image) -> tuple[Image, Image]:
        """Unsharp masking of the brightness, which spares what looks like noise: (3, h, w) each -> the same."""
        if not self.sharpen:
            return noisy, clean
        from scipy.ndimage import gaussian_filter  # 50 ms that --help should not pay

        detail, truth = (
            luma - gaussian_filter(luma, self.radius, truncate=2.5)
            for luma in (_mixed(_TO_LUMA[:1], p)[0] for p in (noisy, clean))
        )
        noise = detail - truth
        noise *= 1 - _looks_like_noise(detail, noise)
        return tuple(
            np.clip(picture + np.float32(self.sharpen) * detail, 0, 1)
            for picture, detail in ((noisy, truth + noise), (clean, truth))
        )

    def _compressed(self, picture: Image, rng: np.random.Generator) -> Image:
        from restormer_cli.degradations.operators import jpeg, round8

        if not self.jpeg:
            return round8(picture, rng)
        return jpeg(picture, rng, quality=self.jpeg, subsampling=self.subsampling)


def _mixed(matrix: NDArray[np.floating], planes: Image) -> Image:
    """Every pixel's colours times a matrix (n, 3): (3, h, w) -> (n, h, w)."""
    return (matrix.astype(np.float32) @ planes.reshape(3, -1)).reshape(-1, *planes.shape[1:])


def _softened(light: Image, sigma: float) -> Image:
    """Blurred by three taps along both axes, σ up to 0.7 pixels, borders mirrored: (3, h, w) -> (3, h, w)."""
    side = np.float32(sigma**2 / 2)
    for axis in (1, 2):
        wide = np.pad(light, [(0, 0), (int(axis == 1),) * 2, (int(axis == 2),) * 2], mode="symmetric")
        first, last = (wide[:, :-2], wide[:, 2:]) if axis == 1 else (wide[..., :-2], wide[..., 2:])
        light = light * (1 - 2 * side)
        light += (first + last) * side
    return light


def _resized(picture: Image, height: int, width: int) -> Image:
    """By a bicubic filter, as programs do, without aliases: (3, h, w) -> (3, height, width), in [0, 1]."""
    if picture.shape[1:] == (height, width):
        return picture
    import PIL.Image  # 30 ms that --help should not pay

    size, bicubic = (width, height), PIL.Image.Resampling.BICUBIC
    planes = [np.asarray(PIL.Image.fromarray(plane).resize(size, bicubic)) for plane in np.ascontiguousarray(picture)]
    return np.clip(np.stack(planes), 0, 1)


# --- The camera's noise reduction ---------------------------------------------------------------------------


def reduce_noise(noisy: Image, clean: Image, denoise: float, chroma: float) -> Image:
    """Weaken the noise of brightness by `denoise`, of colours by `chroma` (0 to 1): (3, h, w) in [0, 1] -> the same.

    The finest waves most, of colours wider ones too. What a camera does, seen from the mean of many of its pictures,
    which has lost the same detail: so only the difference from the clean picture is weakened. This makes
    the noise of finished pictures as soft as it is: demosaicing alone correlates neighbours by 0.4.
    """
    noise = _mixed(_TO_LUMA, noisy - clean)
    _soften(noise[0], [(1 - denoise) ** 4, 1 - denoise])
    for plane in noise[1:]:
        _soften(plane, [(1 - chroma) ** 4, (1 - chroma) ** 2, 1 - chroma, 1 - chroma])
    return np.clip(clean + _mixed(_FROM_LUMA, noise), 0, 1)


def _soften(plane: Image, kept: list[float]) -> None:
    """Keep these parts of the finest levels of an undecimated B3-spline transform of (h, w), in place."""
    smooth = plane.copy()
    for level, part in enumerate(kept):
        next_smooth = _spline(smooth, 2**level)
        plane -= np.float32(1 - part) * (smooth - next_smooth)
        smooth = next_smooth


def _looks_like_noise(detail: Image, noise: Image) -> Image:
    """The part of a detail that is taken for noise, 0 to 1: by its mean square in 5 × 5 pixels, all (h, w).

    A camera knows how strong its noise is at every brightness, and takes it for somewhat stronger: here twice.
    """
    from scipy.ndimage import uniform_filter  # 50 ms that --help should not pay

    power = uniform_filter(detail**2, 5, mode="nearest")
    expected = uniform_filter(noise**2, 31, mode="nearest")
    return np.minimum(2 * expected / np.maximum(power, np.float32(1e-9)), 1)


def _spline(plane: Image, step: int) -> Image:
    """Smoothed by (1, 4, 6, 4, 1) / 16 along both axes, its taps `step` pixels apart: (h, w) -> (h, w)."""
    return _spline_down(_spline_down(plane, step).T, step).T


def _spline_down(plane: Image, step: int) -> Image:
    wide = np.pad(plane, ((2 * step, 2 * step), (0, 0)), mode="symmetric")
    above2, above, here, below, below2 = (wide[k * step : k * step + len(plane)] for k in range(5))
    result = here * np.float32(6 / 16)
    result += (above + below) * np.float32(4 / 16)
    result += (above2 + below2) * np.float32(1 / 16)
    return result


# --- The degradation ----------------------------------------------------------------------------------------


def draw_camera(
    rng: np.random.Generator,
    *,
    iso: float,
    curve: float = 0,
    demosaic: float = 0,
    dark: float = 0,
    scale: float = 1,
    denoise: float = 0,
    chroma: float = 0,
    sharpen: float = 0,
    jpeg: float = 0,
) -> Camera:
    """A camera at an ISO; its colours, gains, tone, mosaic and noise come from the generator (see `sensor`)."""
    shot, read = noise_of_large(rng, iso) if curve else noise_of_phone(rng, iso)
    red, blue, light = rng.uniform(1.9, 2.4), rng.uniform(1.5, 1.9), rng.normal(0.8, 0.1)
    bits = int(rng.choice([12, 14]))
    # ELD (Wei et al. 2020): σ of a row in 14-bit steps, by the gain K in steps per electron.
    row = math.exp(0.4713 * math.log(shot * 2**14) - 0.8079 + 0.24 * rng.standard_normal()) / 2**14
    return Camera(
        shot=shot,
        read=read,
        tail=max(0.0, rng.uniform(-0.8, 0.4)),
        row=row,
        bits=bits,
        gains=(np.array([red, 1, blue]) / max(light, 0.4)).astype(np.float32),
        matrix=_draw_matrix(rng),
        contrast=rng.uniform(0, 1),
        phase=(int(rng.integers(2)), int(rng.integers(2))),
        demosaic=int(demosaic),
        dark=dark,
        scale=scale,
        denoise=denoise,
        chroma=chroma,
        sharpen=sharpen,
        radius=rng.uniform(0.8, 1.5),
        optics=rng.uniform(0.3, 0.6),
        jpeg=int(jpeg),
        subsampling=444 if rng.random() < 0.25 else 420,
    )


def noise_of_phone(rng: np.random.Generator, iso: float) -> tuple[float, float]:
    """Variance per value and in the dark of a small sensor (Brooks et al. 2019, whose range is ISO 100 to 12000)."""
    log_shot = math.log(1e-4 * iso / 100) + 0.3 * rng.standard_normal()
    log_read = 2.18 * log_shot + 1.20 + 0.26 * rng.standard_normal()
    return math.exp(log_shot), math.exp(log_read)


def noise_of_large(rng: np.random.Generator, iso: float) -> tuple[float, float]:
    """The same of a system camera's sensor, at a photosite: the fits' values are of means of one to four of them."""
    at, low, median, high = np.log(_LARGE.T)
    # Ten and ninety per cent lie 1.2816 σ from the median; beyond the table both go with the ISO.
    place = math.log(iso)
    inside = min(max(place, at[0]), at[-1])
    spread = np.interp(inside, at, high - low) / (2 * 1.2816)
    log_shot = np.interp(inside, at, median) + (place - inside) + spread * rng.standard_normal()
    log_read = 1.228 * log_shot - 3.42 + 1.05 * rng.standard_normal()
    photosite = rng.uniform(1.5, 4)
    return photosite * math.exp(log_shot), photosite * math.exp(log_read)


def _draw_matrix(rng: np.random.Generator) -> NDArray[np.float32]:
    """A camera's colours -> linear sRGB: a mixture of known cameras; white stays white."""
    to_camera = np.tensordot(rng.dirichlet(np.ones(len(_CAMERAS))), _CAMERAS, 1) @ _RGB_TO_XYZ
    return np.linalg.inv(to_camera / to_camera.sum(axis=1, keepdims=True)).astype(np.float32)


def sensor_pair(degraded: Image, clean: Image, rng: np.random.Generator, **parameters: float) -> tuple[Image, Image]:
    """The picture as a camera takes it, and as it would without noise (see `sensor`): (h, w, c) each -> the same.

    Gray pictures are taken as colour, then brought back by BT.601.
    """
    camera = draw_camera(rng, **parameters)
    if degraded.shape[2] == 3:
        return camera.photograph(degraded, clean, rng)
    same = degraded is clean
    degraded = np.repeat(degraded, 3, axis=2)
    pair = camera.photograph(degraded, degraded if same else np.repeat(clean, 3, axis=2), rng)
    noisy, noiseless = ((picture @ _TO_LUMA[0])[..., None] for picture in pair)
    return noisy, noiseless


def sensor(image: Image, rng: np.random.Generator, **parameters: float) -> Image:
    """Take the picture with a camera in poor light: (h, w, c) -> (h, w, c), in [0, 1], values k / 255.

    Back to linear light in a camera's colours, a lens' softness, a Bayer mosaic, noise at each photosite,
    demosaicing, white balance, colours, tone, the camera's own noise reduction and sharpening, size, JPEG (Brooks et
    al. 2019, and what cameras and programs do then). The clean picture goes through the same without noise, its
    reduction, and JPEG.

    `iso`: 50 to 102400, drawn by its logarithm. `curve`: 0 for a phone's noise (Brooks et al.: variance per value
    1e-4 at ISO 100, in proportion above), 1 for a large sensor's (fits of 8,048 camera profiles, some 10 times less).
    `demosaic`: 0 bilinear, 1 Malvar-He-Cutler 2004, 2 edge-directed (Hamilton and Adams). `dark`: stops of light that
    were missing and made up for afterwards (0 to 8), which shows the rows' noise. `scale`: size of the finished
    picture by the sensor's (0.25 to 1; more, up to 2, is 1, so that 0.5-1.5 leaves half of the pictures as they are).
    `denoise`, `chroma`: the camera's own noise reduction, of brightness and of colours, as a part of what looks like
    noise (0 to 1). `sharpen`: amount of the unsharp mask (0 to 3). `jpeg`: quality (1 to 100; 0: none), three in
    four of them 4:2:0.
    """
    return sensor_pair(image, image, rng, **parameters)[0]
