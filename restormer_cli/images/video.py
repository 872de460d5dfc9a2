"""A video file, frame by frame, through PyAV (the `[video]` extra); written in video_writer.py.

    with open_video(path) as video:
        for frame in video.frames():
            frame.pixels

Each frame keeps its own time, so a variable frame rate stays what it is. Only a few frames are in memory, however
long the video.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from restormer_cli.errors import UserError, one_line
from restormer_cli.images.colour import Working, of_code, working_space
from restormer_cli.images.deinterlace import deinterlaced
from restormer_cli.images.io import MAX_PIXELS

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

READABLE_VIDEOS = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".m2ts",
        ".mts",
        ".wmv",
        ".flv",
        ".3gp",
        ".vob",
        ".mxf",
        ".gif",
    ]
)
FAR = 300
"""Frames that are decoded at the most to come from where a file can be entered to a moment in it."""
EXTRA = "pip install 'restormer-cli[video]'"


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video: float32 (h, w, 1 or 3) in [0, 1], what is seen through it, and the original frame."""

    pixels: np.ndarray
    alpha: np.ndarray | None
    original: "VideoFrame"

    @property
    def see_through(self) -> bool:
        """Whether anything is lost without `alpha`; half a step of eight bits is nothing."""
        return self.alpha is not None and bool((self.alpha < 1 - 0.5 / 255).any())


@dataclass(frozen=True)
class Opening:
    """What only frames tell: how far the video is turned, in degrees, FFmpeg's structures of HDR mastering, fields."""

    rotation: int = 0
    mastering: bytes | None = None
    light: bytes | None = None
    interlaced: bool = False
    alpha: bool = False


def is_video(path: Path) -> bool:
    """Whether a name is a video's."""
    return path.suffix.lower() in READABLE_VIDEOS


def can_open_videos() -> bool:
    """Whether PyAV is there; it is not imported."""
    return find_spec("av") is not None


@contextmanager
def open_video(path: Path, *, deinterlace: bool = False) -> "Iterator[Video]":
    """Open a video file; deinterlace: to make whole frames of interlaced ones.

    Raises UserError for one that cannot be read, or without PyAV.
    """
    try:
        import av
        from av.error import FFmpegError
    except ImportError:
        raise UserError(f"{path}: videos need PyAV: {EXTRA}") from None
    shown = one_line(str(path))
    try:
        container = av.open(str(path.absolute()))  # absolute: a name such as "concat:x" is a file's, nothing else
    except (FFmpegError, UnicodeError) as error:
        raise UserError(f"{shown}: cannot be read as a video ({reason(error)}); copy or download it again") from None
    with container:
        pictures = [stream for stream in container.streams.video if not is_cover(stream)]
        if not pictures:
            raise UserError(f"{shown}: has no video track")
        first = pictures[0]
        if first.codec_context is None or first.width * first.height not in range(1, MAX_PIXELS):
            raise UserError(f"{shown}: its pictures have no size that can be restored")
        if first.format is None:
            raise UserError(f"{shown}: what its pictures are made of is not told; copy or download it again")
        yield Video(path, container, first, first.width, first.height, deinterlace)


@dataclass(eq=False)
class Video:
    """An open video file."""

    path: Path
    container: "InputContainer"
    stream: "VideoStream"
    width: int
    height: int
    """Pixels by the header; FFmpeg's own follow the frames."""
    deinterlace: bool = False
    """Make whole frames of interlaced ones."""
    notes: list[str] = field(default_factory=list)
    """Notes collected while frames were read."""
    damaged: int = 0
    """Packets so far that could not be decoded; their frames are left out, the others keep their time."""
    cut: float | None = None
    """Seconds of the last frame that is kept, where what follows has another size."""

    @property
    def length(self) -> int | None:
        """How many frames, where the file tells or its duration does."""
        if self.stream.frames:
            return self.stream.frames
        if self.container.duration and self.stream.average_rate:
            return max(1, round(self.container.duration / 1_000_000 * self.stream.average_rate))
        return None

    def working(self, pixels: np.ndarray) -> Working | None:
        """How frames such as this one are shown to a network; None: as they are."""
        context = self.stream.codec_context
        return working_space(of_code(int(context.color_primaries), int(context.color_trc)), pixels, floats=False)

    @property
    def bits(self) -> int:
        """Per sample."""
        return max(component.bits for component in self.stream.format.components)

    @cached_property
    def opening(self) -> Opening:
        """By the first frame that can be decoded, from a reading of its own; nothing where none can be."""
        with open_video(self.path) as again, suppress(UserError):
            for frame in again.originals():
                sides: dict[str, bytes] = {side.type.name: bytes(side) for side in frame.side_data}  # pyright: ignore
                mastering, light = (
                    sides.get(f"{name}") for name in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")
                )
                return Opening(frame.rotation, mastering, light, frame.interlaced_frame, has_alpha(frame.format))
        return Opening()

    @property
    def claims_alpha(self) -> bool:
        """Whether Matroska's header says that frames have transparency beside them."""
        return any(key.lower() == "alpha_mode" and value == "1" for key, value in self.stream.metadata.items())

    @property
    def loses_alpha(self) -> bool:
        """Whether it has transparency that cannot be decoded."""
        return self.claims_alpha and self._decoder is None and not has_alpha(self.stream.format)

    @cached_property
    def _decoder(self) -> "VideoCodecContext | None":
        """libvpx where the header tells of transparency, which FFmpeg's own decoders of VP8 and VP9 leave out."""
        import av

        name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(self.stream.codec_context.name)
        if name is None or not self.claims_alpha:
            return None
        try:
            context: Any = av.VideoCodecContext.create(name, "r")
        except ValueError:  # this PyAV comes without it
            return None
        context.extradata = self.stream.codec_context.extradata
        return context

    def _decode(self, packet: "Packet") -> "list[VideoFrame]":
        return packet.decode() if self._decoder is None else self._decoder.decode(packet)  # pyright: ignore

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Every frame from number `start` on, in order. Raises UserError where not one can be decoded."""
        for number, frame in enumerate(self.originals()):
            if number >= start:
                yield _to_frame(frame)

    def originals(self) -> "Iterator[VideoFrame]":
        """Every frame as it is decoded, or deinterlaced, in order. Raises UserError where not one can be."""
        return deinterlaced(self._originals()) if self.deinterlace else self._originals()

    def _originals(self) -> "Iterator[VideoFrame]":
        from av.error import FFmpegError

        self.stream.thread_type = "AUTO"
        count, fields, ended = 0, 0, 0.0
        size = (self.width, self.height)
        try:
            for packet in self.container.demux(self.stream):
                try:
                    decoded = self._decode(packet)
                except FFmpegError:
                    self.damaged += 1
                    continue
                for frame in decoded:
                    if (frame.width, frame.height) != size:
                        now = f"{frame.width} × {frame.height}"
                        self.notes.append(f"its size becomes {now} after {count:,} frames; only these are kept")
                        self.cut = ended
                        self._tell_fields(fields)
                        return
                    count, ended = count + 1, frame.time or 0.0
                    fields += frame.interlaced_frame
                    yield frame
        except FFmpegError:  # the file ends too early: what came is kept
            self.damaged += 1
        if not count:
            raise UserError(f"{one_line(str(self.path))}: not one frame can be decoded; copy or download it again")
        self._tell_fields(fields)
        self._check_end(count, ended)

    def _tell_fields(self, count: int) -> None:
        """Note where interlaced frames stay so, and where there are none to be made whole; `count` of them came."""
        if count and not self.deinterlace:
            self.notes.append("it is interlaced and the result does not say so: --deinterlace makes whole frames of it")
        elif self.deinterlace and not count:
            self.notes.append("none of its frames says that it is interlaced: --deinterlace leaves them alone")

    def spread(self, count: int) -> list[Frame]:
        """Up to `count` frames, each from its own part of the film; of one whose duration is not told, from the start.

        Moves through the file: a film that is to be restored is opened anew. Raises UserError where not one frame can
        be decoded.
        """
        from av.error import FFmpegError

        start, base = self.stream.start_time or 0, self.stream.time_base or Fraction(1, 1000)
        seconds = _promised(self.stream) or (self.container.duration or 0) / 1_000_000
        found: dict[Any, Frame] = {}  # by their times, so that none counts twice
        for number in range(count):
            goal = start + int(seconds * (number + 0.5) / count / base)
            with suppress(FFmpegError):
                self.container.seek(goal, stream=self.stream, backward=True, any_frame=False)
                if self._decoder is not None:
                    self._decoder.flush_buffers()
                if (frame := self._frame_at(goal)) is not None:
                    found[frame.pts] = _to_frame(frame)
        if not found:
            raise UserError(f"{one_line(str(self.path))}: not one frame can be decoded; copy or download it again")
        return list(found.values())

    def _frame_at(self, goal: int) -> "VideoFrame | None":
        """The first frame from `goal` on, in units of the stream's time; the last one before where that is too far."""
        last = None
        for number, frame in enumerate(self._decoded(), start=1):
            last = frame
            if frame.pts is None or frame.pts >= goal or number >= FAR:
                break
        return last

    def _decoded(self) -> "Iterator[VideoFrame]":
        """Frames from here on as `originals` gives them; packets that are damaged are left out."""
        return deinterlaced(self._from_here()) if self.deinterlace else self._from_here()

    def _from_here(self) -> "Iterator[VideoFrame]":
        """Frames from here on in the size that the film begins with."""
        from av.error import FFmpegError

        size = (self.stream.width, self.stream.height)
        for packet in self.container.demux(self.stream):
            with suppress(FFmpegError):
                for frame in self._decode(packet):
                    if (frame.width, frame.height) == size:
                        yield frame

    def _check_end(self, count: int, ended: float) -> None:
        """Note where far less came than the file's header promises."""
        stream, rate = self.stream, float(self.stream.average_rate or 25)
        start = float((stream.start_time or 0) * (stream.time_base or 0))
        promised = _promised(stream)
        come = ended - start + 1 / rate
        if promised is not None and promised - come > max(4 / rate, 0.02 * promised):
            self.notes.append(f"it ends early: {come:.2f} of {promised:.2f} seconds are there")


def _promised(stream: "VideoStream") -> float | None:
    """Seconds of pictures by the header; Matroska's stand in a tag."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    try:
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return None


def is_cover(stream: "VideoStream") -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


# --- Frames <-> pixels --------------------------------------------------------------------------------------


def _flags() -> int:
    from av.video.reformatter import Interpolation

    return Interpolation.BICUBIC | Interpolation.ACCURATE_RND


def has_alpha(form: Any) -> bool:
    return any(component.is_alpha for component in form.components)


def _to_frame(frame: "VideoFrame") -> Frame:
    """Through planar floats: eight bits and back are the same eight bits, but for chroma that is resampled.

    By one thread: those of swscale write over each other's rows where a row of floats does not fill its vectors
    (FFmpeg 8.1, a width of 66; findings/swscale-threads-tear-floats.sh).
    """
    if frame.format.name.startswith(("gray", "ya")) and not has_alpha(frame.format):
        gray = frame.reformat(  # pyright: ignore
            format="grayf32le", dst_color_range="JPEG", interpolation=_flags(), threads=1
        )
        return Frame(gray.to_ndarray()[..., None], None, frame)
    form = "gbrapf32le" if has_alpha(frame.format) else "gbrpf32le"
    samples = frame.reformat(format=form, interpolation=_flags(), threads=1).to_ndarray()  # pyright: ignore
    pixels = np.ascontiguousarray(samples[..., :3])
    if (
        not frame.format.is_rgb
        and (white := _white(frame.format.name, int(frame.colorspace), int(frame.color_range))) < 1
    ):
        pixels = np.minimum(pixels / np.float32(white), 1)
    return Frame(pixels, samples[..., 3:].copy() if samples.shape[2] == 4 else None, frame)


@cache
def _white(form: str, matrix: int, extent: int) -> float:
    """What swscale makes of white in this format, which is a little less than 1."""
    import av

    white = av.VideoFrame(16, 16, form)
    bits = {component.bits for component in white.format.components}
    if (
        extent == FULL
        or form.startswith("yuvj")
        or not form.startswith("yuv")
        or len(white.planes) < 3
        or len(bits) > 1
    ):
        return 1.0
    white.colorspace, white.color_range = matrix, extent
    step = max(bits) - 8
    luma = 2 ** max(bits) - 1 if extent == FULL or form.startswith("yuvj") else 235 << step
    for plane, value in zip(white.planes, (luma, 128 << step, 128 << step, 2 ** max(bits) - 1), strict=False):
        kind = np.dtype(np.uint8 if step == 0 else np.uint16)
        plane.update(np.full(plane.buffer_size // kind.itemsize, value, kind).tobytes())
    seen = float(white.reformat(format="gbrpf32le", interpolation=_flags(), threads=1).to_ndarray().mean())
    return seen if 0.98 < seen < 1 else 1.0


FULL = 2
"""The range of samples from 0 to the largest, by FFmpeg's number."""


def carry_change(made: "VideoFrame", before: "VideoFrame", original: "VideoFrame") -> None:
    """Let a frame be the original and the change from `before` to `made`, in the samples that the video has.

    So what the network leaves alone stays to the bit: light beyond video's white, and chroma, which pixels resample.
    """
    form = made.format
    bits = {component.bits for component in form.components}
    kind = np.uint8 if bits == {8} else np.uint16
    if len(bits) > 1 or max(bits) > 16 or (max(bits) > 8 and not form.name.endswith("le")) or form.name == "pal8":
        return
    if original.format.name != form.name:
        if original.format.name.startswith("pal") or has_alpha(original.format) != has_alpha(form):
            return
        if original.format.is_rgb != form.is_rgb:
            return
        original = original.reformat(format=form.name, interpolation=_flags(), threads=1)
    top = 2 ** max(bits) - 1 if not form.name.startswith("p0") else 65535
    for new, old, own in zip(made.planes, before.planes, original.planes, strict=True):
        rows = [np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1) for plane in (new, old, own)]
        across = min(row.shape[1] for row in rows)
        now, then, was = (row[:, :across].astype(np.int32) for row in rows)
        result = np.zeros(rows[0].shape, kind)
        result[:, :across] = np.clip(was + now - then, 0, top)
        new.update(result.tobytes())


def _matrix(matrix: int) -> int:
    """As swscale knows it; the others, 6 and 10 among them, are its default or near it."""
    return {6: 5, 10: 9}.get(matrix, matrix if matrix in (1, 4, 5, 7, 9) else 5)


def from_pixels(pixels: np.ndarray, alpha: np.ndarray | None, like: "VideoFrame", form: str) -> "VideoFrame":
    import av

    samples = np.clip(pixels, 0, 1).astype(np.float32)
    if samples.shape[2] == 3 and not like.format.is_rgb:
        samples *= np.float32(_white(like.format.name, int(like.colorspace), int(like.color_range)))
    if samples.shape[2] == 1:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(samples[..., 0]), "grayf32le")
        frame.color_range = 2
    elif alpha is not None:
        frame = av.VideoFrame.from_ndarray(np.concatenate([samples, alpha], axis=2), "gbrapf32le")
    else:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(samples), "gbrpf32le")
    colours: dict[str, Any] = {"dst_color_range": like.color_range, "interpolation": _flags(), "threads": 1}
    if like.colorspace in (1, 4, 5, 7, 9):  # the others, 6 and 10 among them, are swscale's default or near it
        colours["dst_colorspace"] = like.colorspace
    elif like.colorspace == 6:
        colours["dst_colorspace"] = 5
    elif like.colorspace == 10:
        colours["dst_colorspace"] = 9
    made = frame.reformat(format=form, **colours)
    made.color_range, made.colorspace = like.color_range, like.colorspace
    made.color_trc, made.color_primaries = like.color_trc, like.color_primaries
    return made


def reason(error: BaseException) -> str:
    """FFmpeg's message in one line, without the path."""
    return one_line(str(getattr(error, "strerror", None) or error) or type(error).__name__)
