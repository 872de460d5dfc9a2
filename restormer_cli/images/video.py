"""A video file in, a video file out, frame by frame, through PyAV (the `[video]` extra).

    with open_video(path) as video, video.writer(stream, target) as out:
        for frame in video.frames(out):                # sound and subtitles go to `out` by themselves
            out.write(restore(frame.pixels), frame)

Each frame keeps its own time, so a variable frame rate stays what it is. Depth, chroma, colour description, rotation,
aspect, chapters and tags are carried over. Only a few frames are in memory, however long the video.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from restormer_cli.errors import Failed, UserError, one_line
from restormer_cli.images.colour import HDR, Working, of_code, working_space
from restormer_cli.images.io import MAX_PIXELS

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream
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
WRITABLE_VIDEOS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
ENCODERS = {
    "h264": "libx264",
    "hevc": "libx265",
    "vp8": "libvpx-vp9",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
    "prores": "prores_ks",
    "ffv1": "ffv1",
}
"""Codec of a video -> encoder of its restored frames; anything else becomes H.264, in WebM VP9."""
FAR = 300
"""Frames that are decoded at the most to come from where a file can be entered to a moment in it."""
LATE = 2_000_000
"""Microseconds; a video that begins later (broadcasts count from midnight) is moved to the beginning."""
EXTRA = "pip install 'restormer-cli[video]'"


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video: float32 (h, w, 1 or 3) in [0, 1], what is seen through it, and the original frame."""

    pixels: np.ndarray
    alpha: np.ndarray | None
    original: "VideoFrame"


def is_video(path: Path) -> bool:
    """Whether a name is a video's."""
    return path.suffix.lower() in READABLE_VIDEOS


@contextmanager
def open_video(path: Path) -> "Iterator[Video]":
    """Open a video file. Raises UserError for one that cannot be read, or without PyAV."""
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
        pictures = [stream for stream in container.streams.video if not _is_cover(stream)]
        if not pictures:
            raise UserError(f"{shown}: has no video track")
        first = pictures[0]
        if first.codec_context is None or first.width * first.height not in range(1, MAX_PIXELS):
            raise UserError(f"{shown}: its pictures have no size that can be restored")
        yield Video(path, container, first)


@dataclass(eq=False)
class Video:
    """An open video file."""

    path: Path
    container: "InputContainer"
    stream: "VideoStream"
    notes: list[str] = field(default_factory=list)
    """Notes collected while frames were read."""
    damaged: int = 0
    """Packets so far that could not be decoded; their frames are left out, the others keep their time."""

    @property
    def width(self) -> int:
        return self.stream.width

    @property
    def height(self) -> int:
        return self.stream.height

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

    def frames(self, out: "Writer | None" = None) -> Iterator[Frame]:
        """Every frame, in order; on the way what is not the pictures' is copied to `out`.

        Raises UserError where not one frame can be decoded.
        """
        from av.error import FFmpegError

        self.stream.thread_type = "AUTO"
        copied = out.copied if out is not None else {}
        wanted = [self.stream, *(stream for stream in self.container.streams if stream.index in copied)]
        count, ended = 0, 0.0
        size = (self.width, self.height)  # FFmpeg's own follows the frames
        try:
            for packet in self.container.demux(wanted):
                if packet.stream is not self.stream:
                    if out is not None and packet.dts is not None:
                        out.copy(packet)
                    continue
                try:
                    decoded = packet.decode()
                except FFmpegError:
                    self.damaged += 1
                    continue
                for frame in decoded:
                    if (frame.width, frame.height) != size:  # pyright: ignore
                        now = f"{frame.width} × {frame.height}"  # pyright: ignore
                        self.notes.append(f"its size becomes {now} after {count:,} frames; only these are kept")
                        raise _SizeChange
                    count, ended = count + 1, frame.time or 0.0  # pyright: ignore
                    if count == 1 and frame.interlaced_frame:  # pyright: ignore
                        self.notes.append("it is interlaced and the result does not say so: deinterlace it first")
                    yield _to_frame(frame)  # pyright: ignore
        except _SizeChange:
            return
        except FFmpegError:  # the file ends too early: what came is kept
            self.damaged += 1
        if not count:
            raise UserError(f"{one_line(str(self.path))}: not one frame can be decoded; copy or download it again")
        self._check_end(count, ended)

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
        """Frames from here on in the size that the film begins with; packets that are damaged are left out."""
        from av.error import FFmpegError

        size = (self.stream.width, self.stream.height)
        for packet in self.container.demux(self.stream):
            with suppress(FFmpegError):
                for frame in packet.decode():
                    if (frame.width, frame.height) == size:  # pyright: ignore
                        yield frame  # pyright: ignore

    def _check_end(self, count: int, ended: float) -> None:
        """Note where far less came than the file's header promises."""
        stream, rate = self.stream, float(self.stream.average_rate or 25)
        start = float((stream.start_time or 0) * (stream.time_base or 0))
        promised = _promised(stream)
        come = ended - start + 1 / rate
        if promised is not None and promised - come > max(4 / rate, 0.02 * promised):
            self.notes.append(f"it ends early: {come:.2f} of {promised:.2f} seconds are there")

    @contextmanager
    def writer(self, stream: IO[bytes], target: Path, quality: int = 95) -> "Iterator[Writer]":
        """A video like this one, written to `stream` in the container that `target`'s extension names.

        Raises UserError where that container or its encoder cannot hold this video, Failed where writing fails.
        """
        import av
        from av.error import FFmpegError

        try:
            form = container_of(target)
            # QuickTime's own keys (location, make, model, date) are only written where the muxer is asked to.
            own = form in ("mp4", "mov") and any(key.startswith("com.") for key in self.container.metadata)
            options = {"movflags": "use_metadata_tags"} if own else {}
            container = av.open(stream, "w", format=form, options=options)
            with container:
                writer = Writer(self, container, target, quality)
                yield writer
                writer.finish()
        except FFmpegError as error:
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror) from None  # whoever holds the stream tells of its disk
            raise Failed(f"{one_line(str(target))}: cannot be encoded ({reason(error)}): try a .mkv") from None


class _SizeChange(Exception):
    """The frames have another size from here on."""


def _promised(stream: "VideoStream") -> float | None:
    """Seconds of pictures by the header; Matroska's stand in a tag."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    try:
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return None


OF_THE_FILE = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "alpha_mode", "duration"})
"""Tags, in small letters, that describe the file that was read, not the video."""


def _tags(metadata: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key.lower() not in OF_THE_FILE}


def container_of(target: Path) -> str:
    """The container that an extension names. Raises UserError for one that is not written."""
    suffix = target.suffix.lower()
    if suffix not in WRITABLE_VIDEOS:
        raise UserError(
            f"{one_line(str(target))}: not a video format that can be written: use {', '.join(WRITABLE_VIDEOS)}"
        )
    return WRITABLE_VIDEOS[suffix]


@dataclass(eq=False)
class Writer:
    """A video being written."""

    video: Video
    container: "OutputContainer"
    target: Path
    quality: int
    notes: list[str] = field(default_factory=list)
    copied: "dict[int, Stream]" = field(default_factory=dict)
    """Streams that go over as they are, by their index in the source."""

    def __post_init__(self) -> None:
        from av.error import FFmpegError

        source, video = self.video.stream, self.video
        name = _encoder(source.codec_context.codec.canonical_name, self.container.format.name)
        options = _options(name, self.quality)
        rate = source.average_rate or source.base_rate or 25
        self.stream: Any = self.container.add_stream(name, rate=rate, options=options)
        codec = self.stream.codec_context
        codec.width, codec.height = video.width, video.height
        codec.pix_fmt = self._pixel_format(codec)
        codec.time_base = self.stream.time_base = source.time_base
        if name == "prores_ks" and source.codec_context.profile:
            self.notes.append("its ProRes flavour is chosen anew")
        if source.sample_aspect_ratio:
            codec.sample_aspect_ratio = self.stream.sample_aspect_ratio = source.sample_aspect_ratio
        for what in ("color_range", "color_primaries", "color_trc", "colorspace"):
            setattr(codec, what, getattr(source.codec_context, what))
        if name == "libx265" and self.container.format.name in ("mp4", "mov"):
            codec.codec_tag = "hvc1"  # Apple's players take nothing else
        if source.metadata.get("alpha_mode") == "1" and not _has_alpha(source.format):
            self.notes.append("its transparency is not kept")
        self.stream.metadata.update(_tags(source.metadata))
        self.container.metadata.update(_tags(video.container.metadata))
        self.container.set_chapters(video.container.chapters())
        if source.codec_context.color_trc in HDR:
            self.notes.append("it is HDR, and its mastering data are not kept")
        self._turned = False
        self._waiting: list[Packet] = []
        begin = video.container.start_time or 0
        self._shift = Fraction(begin, 1_000_000) if begin > LATE else Fraction(0)
        for stream in video.container.streams:
            if stream is not source:
                self._add_copy(stream)
        try:
            codec.open()
        except (FFmpegError, ValueError) as error:
            size = f"{video.width} × {video.height}, {codec.pix_fmt}"
            raise UserError(
                f"{one_line(str(self.target))}: {name} refuses {size} ({reason(error)}): try a .mkv"
            ) from None

    def _pixel_format(self, codec: Any) -> str:
        """The source's where the encoder has it, else the one that loses least."""
        from av.codec import find_best_pix_fmt_of_list

        wanted = self.video.stream.format
        offered = [form.name for form in codec.codec.video_formats or ()]
        if codec.name in ("libx264", "libx265") and (whole := self._whole_chroma(wanted, offered)):
            self.notes.append(f"{wanted.name} becomes {whole}, since its size is odd")
            return whole
        if not offered or wanted.name in offered:
            return wanted.name
        best, _ = find_best_pix_fmt_of_list(offered, wanted.name, has_alpha=_has_alpha(wanted))
        assert best is not None
        self.notes.append(f"{wanted.name} becomes {best.name}")
        return best.name

    def _whole_chroma(self, wanted: Any, offered: list[str]) -> str | None:
        """The format with whole chroma, for a size that has no half; None where none is needed."""
        chroma = [component for component in wanted.components if component.is_chroma]
        across = any(wanted.chroma_width(64) < 64 for _ in chroma[:1]) and self.video.width % 2
        down = any(wanted.chroma_height(64) < 64 for _ in chroma[:1]) and self.video.height % 2
        if not (across or down):
            return None
        best = wanted.name.replace("yuvj", "yuv").replace("420", "444").replace("422", "444").replace("411", "444")
        return best if best in offered else None

    def _add_copy(self, stream: "Stream") -> None:
        """Take a stream over as it is. Sound that the container cannot hold is refused, anything else left out."""
        kind = {"audio": "sound"}.get(stream.type, stream.type)
        context = getattr(stream, "codec_context", None)
        name = context.codec.canonical_name if context is not None and context.codec is not None else None
        if name is not None and stream.type in ("audio", "subtitle") and name in self.container.supported_codecs:
            copy = self.container.add_stream_from_template(stream)  # pyright: ignore
            copy.metadata.update(_tags(stream.metadata))
            with suppress(AttributeError, TypeError, ValueError):
                copy.disposition = stream.disposition  # default, forced  # pyright: ignore
            self.copied[stream.index] = copy
        elif stream.type == "audio" and name is not None:
            raise UserError(f"{one_line(str(self.target))}: its sound, {name}, does not fit in there: name a .mkv")
        else:
            self.notes.append(f"its {kind} track {name or 'of an unknown kind'} is left out")

    def write(self, pixels: np.ndarray, frame: Frame) -> None:
        """One restored frame, float (h, w, 1 or 3), at the time of its original."""
        original = frame.original
        if not self._turned:  # before the first packet; only frames know the rotation
            self._turned = True
            if original.rotation:
                self.stream.set_display_rotation(original.rotation)
            self._release()
        form = self.stream.codec_context.pix_fmt
        new = _from_pixels(pixels, frame.alpha, original, form)
        _carry(new, _from_pixels(frame.pixels, frame.alpha, original, form), original)
        new.pts, new.time_base, new.duration = original.pts, original.time_base, original.duration
        if self._shift and new.pts is not None and original.time_base is not None:
            new.pts -= round(self._shift / original.time_base)
        self.container.mux(self.stream.encode(new))

    def copy(self, packet: "Packet") -> None:
        """A packet of sound or subtitles."""
        if self._shift and packet.time_base:
            back = round(self._shift / packet.time_base)
            packet.dts = None if packet.dts is None else packet.dts - back
            packet.pts = None if packet.pts is None else packet.pts - back
        packet.stream = self.copied[packet.stream.index]
        # The first packet writes the header, and only the first frame knows the rotation that belongs in it.
        self._waiting.append(packet)
        if self._turned:
            self._release()

    def _release(self) -> None:
        for packet in self._waiting:
            self.container.mux(packet)
        self._waiting.clear()

    def finish(self) -> None:
        """Flush the encoder's last packets."""
        self._release()
        self.container.mux(self.stream.encode(None))


def _is_cover(stream: "VideoStream") -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def _encoder(codec: str, container: str) -> str:
    name = ENCODERS.get(codec, "libx264")
    if container == "webm" and name not in ("libvpx-vp9", "libsvtav1"):
        return "libvpx-vp9"
    if container == "mp4" and name in ("ffv1", "prores_ks"):
        return "libx264"
    return name


def _options(encoder: str, quality: int) -> dict[str, str]:
    """Constant quality: 95 is beyond what eyes tell from the source, 50 is small."""
    crf = min(51, max(1, round(14 + 0.4 * (95 - quality))))
    if encoder == "libx264":
        return {"crf": str(crf), "preset": "medium"}
    if encoder == "libx265":
        return {"crf": str(crf), "preset": "medium", "x265-params": "log-level=none"}
    if encoder == "libvpx-vp9":
        return {"crf": str(crf), "b:v": "0", "row-mt": "1", "cpu-used": "3"}
    if encoder == "libsvtav1":
        return {"crf": str(crf), "preset": "7"}
    return {}


# --- Frames <-> pixels --------------------------------------------------------------------------------------


def _flags() -> int:
    from av.video.reformatter import Interpolation

    return Interpolation.BICUBIC | Interpolation.ACCURATE_RND


def _has_alpha(form: Any) -> bool:
    return any(component.is_alpha for component in form.components)


def _to_frame(frame: "VideoFrame") -> Frame:
    """Through planar floats: eight bits and back are the same eight bits, but for chroma that is resampled.

    By one thread: those of swscale write over each other's rows where a row of floats does not fill its vectors
    (FFmpeg 8.1, a width of 66; findings/swscale-threads-tear-floats.sh).
    """
    if frame.format.name.startswith(("gray", "ya")) and not _has_alpha(frame.format):
        gray = frame.reformat(  # pyright: ignore
            format="grayf32le", dst_color_range="JPEG", interpolation=_flags(), threads=1
        )
        return Frame(gray.to_ndarray()[..., None], None, frame)
    form = "gbrapf32le" if _has_alpha(frame.format) else "gbrpf32le"
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


def _carry(made: "VideoFrame", before: "VideoFrame", original: "VideoFrame") -> None:
    """Let a frame be the original and the change from `before` to `made`, in the samples that the video has.

    So what the network leaves alone stays to the bit: light beyond video's white, and chroma, which pixels resample.
    """
    form = made.format
    bits = {component.bits for component in form.components}
    kind = np.uint8 if bits == {8} else np.uint16
    if len(bits) > 1 or max(bits) > 16 or (max(bits) > 8 and not form.name.endswith("le")) or form.name == "pal8":
        return
    if original.format.name != form.name:
        if original.format.name.startswith("pal") or _has_alpha(original.format) != _has_alpha(form):
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


def _from_pixels(pixels: np.ndarray, alpha: np.ndarray | None, like: "VideoFrame", form: str) -> "VideoFrame":
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
