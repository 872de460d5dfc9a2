"""Whole frames from interlaced ones, by FFmpeg's bwdif: one for each, at its time; other frames stay as they are."""

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

BWDIF = "mode=send_frame:parity=auto:deint=interlaced"
"""One frame for each; which lines come first a frame says; frames that are not marked as interlaced are let through."""
COLOURS = ("color_range", "colorspace", "color_primaries", "color_trc")
COUNT = Fraction(1, 25)
"""The unit of the times that frames have within the filter, where their own might be missing or go back."""


def deinterlaced(frames: "Iterator[VideoFrame]") -> "Iterator[VideoFrame]":
    """As many frames, of one size, in the same order and at the same times. Each is looked at with both neighbours."""
    waiting: deque[tuple[VideoFrame, Any, Any]] = deque()
    graph: Any = None
    for number, frame in enumerate(frames):
        graph = graph or _graph(frame)
        waiting.append((frame, frame.pts, frame.time_base))
        frame.pts, frame.time_base = number, COUNT
        graph.push(frame)
        yield from _ready(graph, waiting)
    if graph is not None:
        graph.push(None)
        yield from _ready(graph, waiting)


def _graph(frame: "VideoFrame") -> Any:
    """A filter for frames such as this one."""
    from av.filter import Graph

    graph: Any = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=COUNT)
    bwdif, sink = graph.add("bwdif", BWDIF), graph.add("buffersink")
    source.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()
    return graph


def _ready(graph: Any, waiting: "deque[tuple[VideoFrame, Any, Any]]") -> "Iterator[VideoFrame]":
    """What has come through the filter; of frames that it leaves alone these themselves."""
    from av.error import BlockingIOError, EOFError

    while waiting:
        try:
            made = graph.pull()
        except (BlockingIOError, EOFError):
            return
        frame, pts, base = waiting.popleft()
        if frame.interlaced_frame:
            made.duration = frame.duration
            for name in COLOURS:  # filters fill in what is not told
                setattr(made, name, getattr(frame, name))
            frame = made
        frame.pts, frame.time_base = pts, base
        yield frame
