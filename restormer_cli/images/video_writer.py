"""A video like another, with other pictures: encoded segment by segment, joined with its sound at the end.

    with open_video(path) as video, writing(video, target, store) as out:
        for frames in out.missing():                 # what an earlier run has left to do, a segment at a time
            with out.segment() as write:
                for frame in frames:
                    write(restore(frame.pixels), frame)
        out.join(stream)

Depth, chroma, colour description, HDR mastering, rotation, aspect, chapters and tags are carried over; sound and
subtitles are copied packet by packet. Equal frames make equal bytes, whether the run was interrupted or not.
"""

import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from restormer_cli.errors import Failed, UserError, one_line
from restormer_cli.hardware import usual_priority
from restormer_cli.images import segments
from restormer_cli.images.segments import Segments
from restormer_cli.images.video import (
    Frame,
    Opening,
    Video,
    carry_change,
    from_pixels,
    has_alpha,
    open_video,
    reason,
)

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.stream import Stream

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
LATE = 2_000_000
"""Microseconds; a video that begins later (broadcasts count from midnight) is moved to the beginning."""


OF_THE_FILE = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "alpha_mode", "duration"})
"""Tags, in small letters, that describe the file that was read, not the video."""


def _tags(metadata: dict[str, str], *, language: bool = False) -> dict[str, str]:
    """The tags that a copy may have; `language`: nothing but that one."""
    kept = {key: value for key, value in metadata.items() if key.lower() not in OF_THE_FILE}
    return {key: value for key, value in kept.items() if key.lower() == "language" or not language}


def container_of(target: Path) -> str:
    """The container that an extension names. Raises UserError for one that is not written."""
    suffix = target.suffix.lower()
    if suffix not in WRITABLE_VIDEOS:
        raise UserError(
            f"{one_line(str(target))}: not a video format that can be written: use {', '.join(WRITABLE_VIDEOS)}"
        )
    return WRITABLE_VIDEOS[suffix]


ALPHA_LOST = "its transparency is not kept"


@contextmanager
def writing(
    video: Video, target: Path, store: Segments, quality: int = 95, *, strip: bool = False, signature: str | None = None
) -> "Iterator[Writer]":
    """A video like this one in the container that `target`'s extension names.

    strip: without tags and chapters. signature: a remark on what made it.

    Raises UserError where that container or its encoder cannot hold this video, Failed where writing fails.
    """
    from av.error import FFmpegError

    try:
        yield Writer(video, target, store, quality, strip, signature)
    except FFmpegError as error:
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror) from None  # whoever holds the stream tells of its disk
        raise Failed(f"{one_line(str(target))}: cannot be encoded ({reason(error)}): try a .mkv") from None


@dataclass(eq=False)
class Writer:
    """A video being written."""

    video: Video
    target: Path
    store: Segments
    quality: int = 95
    strip: bool = False
    signature: str | None = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._source = Pictures.of(self.video)
        begin = self.video.container.start_time or 0
        self._shift = Fraction(begin, 1_000_000) if begin > LATE else Fraction(0)
        with self._container(io.BytesIO()) as plan:  # what cannot be is refused before any work
            self._picture_stream(plan, self.notes.append)
            self._copies(plan, self.video, self.notes.append)

    def missing(self) -> Iterator[Iterator[Frame]]:
        """The frames that no segment holds, by segments; each is to be read to its end before the next."""
        frames = self.video.frames(self.store.frames)
        for first in frames:
            yield chain([first], islice(frames, segments.LENGTH - 1))

    @contextmanager
    def segment(self, told: dict[str, Any] | None = None) -> Iterator[Callable[[np.ndarray, Frame], None]]:
        """Write a segment; `told`, plain values, is kept with it. The block gets restored pixels and their frame."""
        told = {} if told is None else told
        told.update(frames=0, alpha_lost=False)
        with self._container(io.BytesIO()) as nowhere, self.store.add(told) as keep:
            stream = self._picture_stream(nowhere, lambda _: None)

            def write(pixels: np.ndarray, frame: Frame) -> None:
                for packet in stream.encode(self._made(stream.codec_context.pix_fmt, pixels, frame)):
                    keep(packet)
                told["frames"] += 1
                told["alpha_lost"] |= frame.see_through and not has_alpha(stream.codec_context.format)

            yield write
            for packet in stream.encode(None):
                keep(packet)

    def join(self, stream: IO[bytes]) -> None:
        """The whole video: pictures from the segments, all else from the source."""
        from av.error import FFmpegError

        if any(values.get("alpha_lost") for values in self.store.told):
            self.notes.append(ALPHA_LOST)
        with open_video(self.video.path) as again, self._container(stream) as container:
            pictures = self._picture_stream(container, lambda _: None)
            copies = self._copies(container, again, lambda _: None)
            if self.video.opening.rotation:
                pictures.set_display_rotation(self.video.opening.rotation)
            waiting = self._in_order(pictures)
            upcoming = next(waiting, None)
            with suppress(FFmpegError):  # a source that ends too early
                for packet in again.container.demux(*copies) if copies else ():
                    if packet.dts is None or packet.time_base is None:
                        continue
                    time = packet.dts * packet.time_base
                    if self.video.cut is not None and time > self.video.cut:
                        break
                    self._copy(packet, copies)
                    while upcoming is not None and _time(upcoming) <= packet.dts * packet.time_base:
                        container.mux(upcoming)
                        upcoming = next(waiting, None)
                    container.mux(packet)
            while upcoming is not None:
                container.mux(upcoming)
                upcoming = next(waiting, None)

    def _in_order(self, stream: Any) -> "Iterator[Packet]":
        """The packets of all segments, with times of decoding that rise through all of them.

        Every encoder begins anew, so that its first packets are decoded before the last ones of the segment before.
        """
        shown = list(self.store.times())
        ranks = {time: rank for rank, (time, _) in enumerate(sorted(shown))}
        ordered, regular = sorted(ranks), len(ranks) == len(shown)  # else frames share a time, or have none
        delay = max((place - ranks[time] for place, (time, _) in enumerate(shown)), default=0) if regular else 0
        last = None
        for place, packet in enumerate(self.store.packets()):
            if regular:
                early = ordered[delay] - ordered[0]
                packet.dts = ordered[place - delay] if place >= delay else ordered[place] - early
            elif last is not None and packet.dts is not None:
                packet.dts = max(packet.dts, last + 1)
                packet.pts = None if packet.pts is None else max(packet.pts, packet.dts)
            last = packet.dts
            packet.stream = stream
            yield packet

    def _container(self, stream: Any) -> "OutputContainer":
        import av
        from av.container import Flags

        form = container_of(self.target)
        # QuickTime's own keys (location, make, model, date) are only written where the muxer is asked to.
        tags = self.video.container.metadata
        own = form in ("mp4", "mov") and not self.strip and any(key.startswith("com.") for key in tags)
        container = av.open(stream, "w", format=form, options={"movflags": "use_metadata_tags"} if own else {})
        container.flags |= Flags.bitexact.value  # no random identity: equal videos are equal bytes
        container.metadata.update({} if self.strip else _tags(tags))
        if self.signature is not None:
            key = next((key for key in container.metadata if key.lower() == "comment"), "comment")
            container.metadata[key] = "; ".join(filter(None, [container.metadata.get(key), self.signature]))
        return container

    def _picture_stream(self, container: "OutputContainer", note: Callable[[str], None]) -> Any:
        """The stream of pictures with its encoder, open."""
        from av.error import FFmpegError

        source = self._source
        name = _encoder(source.codec, container.format.name)
        options, told = _options(name, self.quality, self.video.opening)
        if self.video.deinterlace:
            options["field_order"] = "progressive"
        os.environ.setdefault("SVT_LOG", "1")  # else its encoder writes a page about itself to stderr, each time
        stream: Any = container.add_stream(name, rate=source.rate, options=options)
        codec = stream.codec_context
        codec.width, codec.height = source.width, source.height
        codec.pix_fmt = self._pixel_format(codec, note, alpha=container.format.name != "mp4")
        codec.time_base = stream.time_base = source.time_base
        if name == "prores_ks" and source.profile:
            note("its ProRes flavour is chosen anew")
        if source.aspect:
            codec.sample_aspect_ratio = stream.sample_aspect_ratio = source.aspect
        for what, value in source.colours.items():
            setattr(codec, what, value)
        if name == "libx265" and container.format.name in ("mp4", "mov"):
            codec.codec_tag = "hvc1"  # Apple's players take nothing else
        if self.video.loses_alpha:
            note(ALPHA_LOST)
        stream.metadata.update(_tags(source.tags, language=self.strip))
        if told:
            note(told)
        try:
            with usual_priority():
                codec.open()
        except (FFmpegError, ValueError) as error:
            size = f"{source.width} × {source.height}, {codec.pix_fmt}"
            raise UserError(
                f"{one_line(str(self.target))}: {name} refuses {size} ({reason(error)}): try a .mkv"
            ) from None
        return stream

    def _pixel_format(self, codec: Any, note: Callable[[str], None], *, alpha: bool) -> str:
        """The source's where the encoder has it, else the one that loses least. alpha: the container can hold it."""
        from av.codec import find_best_pix_fmt_of_list

        wanted = self._source.format
        offered = [form.name for form in codec.codec.video_formats or () if alpha or not has_alpha(form)]
        if codec.name in ("libx264", "libx265") and (whole := self._whole_chroma(wanted, offered)):
            note(f"{wanted.name} becomes {whole}, since its size is odd")
            return whole
        if not offered or wanted.name in offered:
            return wanted.name
        best, _ = find_best_pix_fmt_of_list(offered, wanted.name, has_alpha=has_alpha(wanted))
        assert best is not None
        if best.name != wanted.name.replace("yuva", "yuv"):
            note(f"{wanted.name} becomes {best.name}")
        return best.name

    def _whole_chroma(self, wanted: Any, offered: list[str]) -> str | None:
        """The format with whole chroma, for a size that has no half; None where none is needed."""
        chroma = [component for component in wanted.components if component.is_chroma]
        across = any(wanted.chroma_width(64) < 64 for _ in chroma[:1]) and self._source.width % 2
        down = any(wanted.chroma_height(64) < 64 for _ in chroma[:1]) and self._source.height % 2
        if not (across or down):
            return None
        best = wanted.name.replace("yuvj", "yuv").replace("420", "444").replace("422", "444").replace("411", "444")
        return best if best in offered else None

    def _copies(
        self, container: "OutputContainer", video: Video, note: Callable[[str], None]
    ) -> "dict[Stream, Stream]":
        """What goes over as it is, stream by stream. Sound that cannot be held is refused, all else left out."""
        if not self.strip:
            container.set_chapters(video.container.chapters())
        copies: dict[Stream, Stream] = {}
        for stream in video.container.streams:
            if stream.index == video.stream.index:
                continue
            kind = {"audio": "sound"}.get(stream.type, stream.type)
            context = getattr(stream, "codec_context", None)
            name = context.codec.canonical_name if context is not None and context.codec is not None else None
            if name is not None and stream.type in ("audio", "subtitle") and name in container.supported_codecs:
                copy = copies[stream] = container.add_stream_from_template(stream)  # pyright: ignore
                copy.metadata.update(_tags(stream.metadata, language=self.strip))
                with suppress(AttributeError, TypeError, ValueError):
                    copy.disposition = stream.disposition  # default, forced  # pyright: ignore
            elif stream.type == "audio" and name is not None:
                raise UserError(f"{one_line(str(self.target))}: its sound, {name}, does not fit in there: name a .mkv")
            else:
                note(f"its {kind} track {name or 'of an unknown kind'} is left out")
        return copies

    def _made(self, form: str, pixels: np.ndarray, frame: Frame) -> Any:
        """A restored frame, float (h, w, 1 or 3), in the encoder's format at the time of its original."""
        original = frame.original
        new = from_pixels(pixels, frame.alpha, original, form)
        carry_change(new, from_pixels(frame.pixels, frame.alpha, original, form), original)
        new.pts, new.time_base, new.duration = original.pts, original.time_base, original.duration
        if self._shift and new.pts is not None and original.time_base is not None:
            new.pts -= round(self._shift / original.time_base)
        return new

    def _copy(self, packet: "Packet", copies: "dict[Stream, Stream]") -> None:
        """Turn a packet of the source into one of the copy."""
        if self._shift and packet.time_base:
            back = round(self._shift / packet.time_base)
            packet.dts = None if packet.dts is None else packet.dts - back
            packet.pts = None if packet.pts is None else packet.pts - back
        packet.stream = copies[packet.stream]


@dataclass(frozen=True, eq=False)
class Pictures:
    """The stream of pictures as its header tells, which FFmpeg forgets when frames tell otherwise."""

    codec: str
    profile: str | None
    rate: Fraction
    time_base: Any
    width: int
    height: int
    format: Any
    aspect: Fraction | None
    colours: dict[str, int]
    tags: dict[str, str]

    @classmethod
    def of(cls, video: Video) -> "Pictures":
        """Of a video of which no frame has been decoded."""
        import av

        stream = video.stream
        context = stream.codec_context
        names = ("color_range", "color_primaries", "color_trc", "colorspace")
        form = stream.format
        if video.opening.alpha and not has_alpha(form):  # the header does not tell
            form = av.VideoFormat("yuva420p", stream.width, stream.height)
        return cls(
            codec=context.codec.canonical_name,
            profile=context.profile,
            rate=stream.average_rate or stream.base_rate or Fraction(25),
            time_base=stream.time_base,
            width=stream.width,
            height=stream.height,
            format=form,
            aspect=stream.sample_aspect_ratio,
            colours={name: getattr(context, name) for name in names},
            tags=dict(stream.metadata),
        )


def _time(packet: "Packet") -> Fraction:
    return (packet.dts or 0) * packet.time_base


def _encoder(codec: str, container: str) -> str:
    name = ENCODERS.get(codec, "libx264")
    if container == "webm" and name not in ("libvpx-vp9", "libsvtav1"):
        return "libvpx-vp9"
    if name in {"mp4": ("ffv1", "prores_ks"), "mov": ("libsvtav1", "libvpx-vp9", "ffv1")}.get(container, ()):
        return "libx264"
    return name


def _options(encoder: str, quality: int, opening: Opening) -> tuple[dict[str, str], str | None]:
    """Constant quality: 95 is beyond what eyes tell from the source, 50 is small; and what is lost, to be told."""
    crf = min(51, max(1, round(14 + 0.4 * (95 - quality))))
    mastering = [f"{key}={value}" for key, value in _mastering(encoder, opening).items()]
    lost = "its HDR mastering data are not kept" if (opening.mastering or opening.light) and not mastering else None
    if encoder == "libx264":
        # Its AVX-512 code else plans bits by memory that it has not written: equal frames, a telephone's among them,
        # become other bytes in each run (findings/x264-reads-unwritten-memory.sh).
        parameters = ":".join(["cpu-independent=1", *mastering])
        return {"crf": str(crf), "preset": "medium", "x264-params": parameters}, lost
    if encoder == "libx265":
        parameters = ":".join(["log-level=none", *mastering])
        return {"crf": str(crf), "preset": "medium", "x265-params": parameters}, lost
    if encoder == "libvpx-vp9":
        return {"crf": str(crf), "b:v": "0", "row-mt": "1", "cpu-used": "3"}, lost
    if encoder == "libsvtav1":
        return {"crf": str(crf), "preset": "7"} | ({"svtav1-params": ":".join(mastering)} if mastering else {}), lost
    return {}, lost


MASTERING_NAMES = {
    "libx264": ("mastering-display", "cll"),
    "libx265": ("master-display", "max-cll"),
    "libsvtav1": ("mastering-display", "content-light"),
}
"""Encoders that write HDR mastering data, and what they call them."""
MASTERING = struct.Struct("=20i2i")
"""FFmpeg's AVMasteringDisplayMetadata: red, green, blue, white, least and most light, as fractions; which are set."""


def _mastering(encoder: str, opening: Opening) -> dict[str, str]:
    """The screen a video was mastered on and how bright it becomes, in the encoder's words."""
    if encoder not in MASTERING_NAMES:
        return {}
    names, words = MASTERING_NAMES[encoder], {}
    if opening.mastering is not None and len(opening.mastering) >= MASTERING.size:
        *numbers, places, light = MASTERING.unpack_from(opening.mastering)
        values = [above / (below or 1) for above, below in zip(numbers[::2], numbers[1::2], strict=True)]
        if places and light:
            # SVT takes coordinates and candelas, the others steps of 0.00002 and of 0.0001 candelas.
            fine, bright = (1, 1) if encoder == "libsvtav1" else (50_000, 10_000)
            points = [",".join(_number(value * fine) for value in values[at : at + 2]) for at in range(0, 8, 2)]
            red, green, blue, white = points
            least, most = (_number(value * bright) for value in values[8:10])
            words[names[0]] = f"G({green})B({blue})R({red})WP({white})L({most},{least})"
    if opening.light is not None and len(opening.light) >= 8:
        words[names[1]] = "{},{}".format(*struct.unpack_from("=2I", opening.light))
    return words


def _number(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".") if value < 1 else f"{value:.0f}"
