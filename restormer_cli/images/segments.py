"""The encoded part of a video that is not whole yet, kept on the disk, so that an interrupted run goes on with it.

    store = Segments(folder, settings)      # empties the folder where it was made with other settings
    with store.add(told) as keep:           # a segment is there whole, with what was told of it, or not at all
        keep(packet)
    for packet in store.packets(): ...      # of all segments, in order

A segment is `LENGTH` frames from an encoder of its own: it begins with a key frame and no other segment is needed to
decode it. A file of it holds packets, each behind a head of fixed size; then what was told, as JSON, and its length.
"""

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from restormer_cli.errors import Failed
from restormer_cli.files import replacing, write_atomically

if TYPE_CHECKING:
    from av.packet import Packet

LENGTH = 96
"""Frames of a segment: what an interruption costs at the most."""
RECORD = "record.json"
HEAD = struct.Struct("<qqqqqIIB")
"""Times of showing and decoding, duration, time base (two numbers), bytes of the packet and beside it, key frame."""
SIDE = struct.Struct("<II")
NO_TIME = -(1 << 63)
BESIDE = ("matroska_block_additional", "new_extradata", "skip_samples")
"""What containers take from beside a packet; the rest is the encoder's own."""


@dataclass(eq=False)
class Segments:
    """A folder of segments. Whoever uses it holds a lock on its video.

    settings: plain values that decide what the frames become; a folder that was made by others is emptied.
    """

    folder: Path
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        self.told = _read(self.folder, self.settings)
        self.anew = not self.told and any(self.folder.glob(_name(0)))
        if not self.told:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def frames(self) -> int:
        """Frames that need not be made again."""
        return sum(values["frames"] for values in self.told)

    @contextmanager
    def add(self, told: dict[str, Any]) -> "Iterator[Callable[[Packet], None]]":
        """The next segment; `told`, as it is when the block ends, goes with it. Raises Failed, NoRoom."""
        if not self.told:
            try:
                self.folder.mkdir(exist_ok=True)
            except OSError as error:
                raise Failed(f"{self.folder}: cannot be made: {error.strerror}") from None
            record = json.dumps(self.settings, default=str).encode()
            write_atomically(self.folder / RECORD, lambda stream: stream.write(record))
        with replacing(self.folder / _name(len(self.told))) as stream:
            yield lambda packet: _write(stream, packet)
            body = json.dumps(told).encode()
            stream.write(body + struct.pack("<I", len(body)))
        self.told.append(dict(told))

    def times(self) -> Iterator[tuple[int, Fraction]]:
        """When each packet is shown and in which unit, in the order of the packets; nothing else is read."""
        for stream, end in self._files():
            while stream.tell() < end:
                pts, _, _, above, below, size, sides, _ = HEAD.unpack(stream.read(HEAD.size))
                stream.seek(size + sides, 1)
                yield pts, Fraction(above, below)

    def packets(self) -> "Iterator[Packet]":
        """Every packet, in order."""
        for stream, end in self._files():
            while stream.tell() < end:
                yield _packet(stream)

    def _files(self) -> Iterator[tuple[BinaryIO, int]]:
        for number in range(len(self.told)):
            with (self.folder / _name(number)).open("rb") as stream:
                end = _body(stream)[1]
                stream.seek(0)
                yield stream, end

    def close(self, *, whole: bool) -> None:
        """Delete the folder where the video is whole, and where there is nothing in it to go on with."""
        if whole or not self.told:
            shutil.rmtree(self.folder, ignore_errors=True)


def waiting_frames(folder: Path, settings: dict[str, Any]) -> int:
    """How many frames a run with these settings would find done."""
    return sum(values["frames"] for values in _read(folder, settings))


def _name(number: int) -> str:
    return f"{number:06d}.segment"


def _read(folder: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What was told of the segments of a folder, up to the first that is missing or damaged."""
    told: list[dict[str, Any]] = []
    with suppress(OSError, ValueError, KeyError, struct.error):
        if json.loads((folder / RECORD).read_bytes()) != json.loads(json.dumps(settings, default=str)):
            return []
        while True:
            with (folder / _name(len(told))).open("rb") as stream:
                values = json.loads(_body(stream)[0])
            told.append({**values, "frames": int(values["frames"])})
    return told


def _body(stream: BinaryIO) -> tuple[bytes, int]:
    """What was told, and where the packets end."""
    length = stream.seek(0, 2)
    stream.seek(max(0, length - 4))
    (size,) = struct.unpack("<I", stream.read(4))
    end = length - 4 - size
    if end < 0:
        raise ValueError("too short")
    stream.seek(end)
    return stream.read(size), end


def _write(stream: Any, packet: "Packet") -> None:
    sides = b""
    for side in packet.iter_sidedata():
        if side.data_type in BESIDE:
            body = bytes(side)
            sides += SIDE.pack(BESIDE.index(side.data_type), len(body)) + body  # pyright: ignore
    unit, data = packet.time_base, bytes(packet)
    times = (NO_TIME if time is None else time for time in (packet.pts, packet.dts))
    head = HEAD.pack(
        *times, packet.duration or 0, unit.numerator, unit.denominator, len(data), len(sides), packet.is_keyframe
    )
    stream.write(head + data + sides)


def _packet(stream: BinaryIO) -> "Packet":
    from av.packet import Packet, PacketSideData, packet_sidedata_type_from_literal

    pts, dts, duration, above, below, size, sides, key = HEAD.unpack(stream.read(HEAD.size))
    packet = Packet(stream.read(size))
    packet.pts, packet.dts = (None if time == NO_TIME else time for time in (pts, dts))
    packet.duration, packet.time_base, packet.is_keyframe = duration, Fraction(above, below), bool(key)
    beside, at = stream.read(sides), 0
    while at < len(beside):
        kind, length = SIDE.unpack_from(beside, at)
        at += SIDE.size + length
        side = PacketSideData(packet_sidedata_type_from_literal(BESIDE[kind]), length)  # pyright: ignore
        side.update(beside[at - length : at])
        packet.set_sidedata(side)
    return packet
