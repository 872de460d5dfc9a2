"""Mutants of what phones and cameras write: HEIC, raw, XMP, gain maps, films. Read, and written again where read.

Each batch is a process of its own under limits of memory and time, since native decoders may take the process down
with them; a batch that dies goes on behind the mutant that it died of. Mutant number n of a kind is the same on every
machine with the same library versions:

    python tests/images/test_hostile_containers.py KIND FIRST COUNT
"""

import io
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from restormer_cli import __version__
from restormer_cli.errors import Failed, UserError
from restormer_cli.hardware import usual_priority
from restormer_cli.images.io import check_writable, decode_picture, encode_picture
from restormer_cli.images.provenance import signed
from restormer_cli.images.segments import Segments
from restormer_cli.images.video import open_video
from restormer_cli.images.video_writer import writing

HERE = Path(__file__).parent
MEMORY = 4 << 30  # bytes of address space of a batch
SECONDS = 10  # of processor time, for one mutant
MAX_PIXELS = 1_000_000
FRAMES = 40
"""Of a film, at the most; a mutant may claim to have any number."""
EXTREMES = (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\1\0\0", b"\0\0\1\0")


# --- The healthy files ----------------------------------------------------------------------------------------


def ramps(bits: int, channels: int = 3) -> np.ndarray:
    y, x = np.mgrid[:48, :64] / 64
    light = np.stack([0.1 + 0.8 * x, 0.2 + 0.6 * y, 0.5 + 0.2 * (x - y), 0.3 + 0.5 * x][:channels], axis=-1)
    return np.rint(light * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def _heic() -> dict[str, bytes]:
    import pillow_heif

    files = {}
    tags: dict[str, Any] = {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0", "xmp": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"}
    for bits, channels, options in ((8, 3, tags), (10, 3, {}), (12, 1, {}), (8, 4, {}), (10, 4, tags)):
        out, mode = io.BytesIO(), ("L", "LA", "RGB", "RGBA")[channels - 1] + (f";{bits}" if bits > 8 else "")
        stored = ramps(bits, channels).tobytes()
        pillow_heif.encode(mode, (64, 48), stored, out, quality=90, chroma=420, bit_depth=bits, **options)
        files[f"{bits} bits, {channels} channels"] = out.getvalue()
    return files


def _raw() -> dict[str, bytes]:
    picture = decode_picture(bytes(imagecodecs.png_encode(ramps(16))), "x")
    matrix = tuple(part for value in (8, -2, -1, -4, 12, 2, -1, 2, 6) for part in (value, 10))
    tags = [
        (50706, "B", 4, (1, 4, 0, 0), True), (50708, "s", 0, b"A camera", True), (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, (0, 1, 1, 2), True), (50714, "H", 1, 256, True), (50717, "H", 1, 16383, True),
        (50721, "2i", 9, matrix, True), (50728, "2I", 3, (5, 10, 10, 10, 7, 10), True), (50778, "H", 1, 21, True),
        (274, "H", 1, 6, True), (34853, "I", 1, 8, True),
    ]  # fmt: skip
    counts = (256 + ramps(16, 1)[..., 0] // 5).astype(np.uint16)
    bayer, cut = io.BytesIO(), io.BytesIO()
    tifffile.imwrite(bayer, counts, photometric=32803, extratags=tags, software=False)
    tifffile.imwrite(
        cut, counts, photometric=32803, extratags=[*tags, (50829, "I", 4, (2, 4, 46, 60), True)], tile=(16, 16)
    )
    return {
        "linear DNG": encode_picture(picture.pixels, picture, "dng"),
        "Bayer DNG": bayer.getvalue(),
        "cropped Bayer DNG": cut.getvalue(),
    }


def _xmp() -> dict[str, bytes]:
    return {name: (HERE / "files" / name).read_bytes() for name in ("photo.jpg", "panorama.jpg", "w.webp")}


def _gain() -> dict[str, bytes]:
    return {name: (HERE / "files" / name).read_bytes() for name in ("ultrahdr.jpg", "motion.jpg")}


@usual_priority()  # SVT-AV1 would keep this process at real time
def _film() -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in sorted((HERE / "films").iterdir())}
    import av

    for codec, form, suffix in (
        ("libx264", "yuv420p", "mov"), ("libx265", "yuv420p10le", "mp4"), ("libvpx-vp9", "yuv420p", "webm"),
        ("mpeg2video", "yuv420p", "ts"), ("ffv1", "gray", "mkv"), ("mjpeg", "yuvj420p", "avi"),
        ("prores_ks", "yuv422p10le", "mov"), ("libsvtav1", "yuv420p", "mp4"),
    ):  # fmt: skip
        out = io.BytesIO()
        with av.open(out, "w", format={"ts": "mpegts", "mkv": "matroska"}.get(suffix, suffix)) as film:
            options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
            stream: Any = film.add_stream(codec, rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = 64, 48, form
            for number in range(5):
                frame = av.VideoFrame.from_ndarray(np.roll(ramps(8), number, axis=1)).reformat(format=form)
                film.mux(stream.encode(frame))
            film.mux(stream.encode(None))
        files[f"{codec}.{suffix}"] = out.getvalue()
    return files


CORPORA: dict[str, Callable[[], dict[str, bytes]]] = {
    "heic": _heic,
    "raw": _raw,
    "xmp": _xmp,
    "gain": _gain,
    "film": _film,
}
corpus = cache(lambda kind: CORPORA[kind]())


# --- The mutants ----------------------------------------------------------------------------------------------


def mutant(kind: str, number: int) -> tuple[str, bytes]:
    """The mutant of a number, with its origin's name."""
    rng = random.Random(f"{kind} {number}")
    files = corpus(kind)
    name = rng.choice(sorted(files))
    data = bytearray(files[name])
    first, end = 0, len(data)
    if kind in ("xmp", "gain") and (at := data.find(b"<x:xmpmeta")) >= 0:
        first, end = at, max(at + 1, data.find(b"</x:xmpmeta>", at))  # the packet itself, not the picture around it
        if kind == "gain" and rng.random() < 0.5:
            first, end = 0, len(data)
    elif rng.random() < 0.5:
        end = min(len(data), 2000)  # heads hold the claims
    for _ in range(rng.choice((1, 1, 2, 6))):
        at = rng.randrange(first, max(first + 1, min(end, len(data))))
        match rng.randrange(7):
            case 0:
                del data[at:]
                break
            case 1 | 2:
                data[at] ^= 1 << rng.randrange(8)
            case 3:
                data[at : at + 4] = rng.choice(EXTREMES)
            case 4:
                del data[at : at + rng.randrange(1, 64)]
            case 5:
                data[at:at] = data[at : at + rng.randrange(1, 64)]
            case 6:
                other = rng.choice(list(files.values()))
                start = rng.randrange(len(other))
                data[at : at + 64] = other[start : start + 64]
        if not data:
            break
    return name, bytes(data)


def judge(kind: str, name: str, data: bytes) -> str:
    """Restore: "restored" or "reported". Anything but a result or one line is an AssertionError."""
    begun = time.process_time()
    try:
        (_film_through if kind == "film" else _picture_through)(name, data)
        result = "restored"
    except (UserError, Failed) as error:
        message, result = str(error), "reported"
        assert message.isprintable(), f"{name}: not one line: {message!r}"
        assert len(message) < 400, f"{name}: {message}"
    assert time.process_time() - begun < SECONDS, f"{name}: took {time.process_time() - begun:.1f} s"
    return result


def _picture_through(name: str, data: bytes) -> None:
    picture = decode_picture(data, "mutant", max_pixels=MAX_PIXELS)
    assert np.isfinite(picture.shown).all(), name
    assert all(note.isprintable() for note in picture.notes), f"{name}: {picture.notes}"
    for target in ("png", "tif", "jpg", picture.format):
        losses = check_writable(f"x.{target}", picture) if target != "jpg" or picture.opaque else None
        if losses is None:
            continue
        assert all(loss.isprintable() for loss in losses)
        made = encode_picture(picture.pixels, signed(picture, __version__, "test"), target, quality=80)
        assert decode_picture(made, "again").pixels.shape[:2] == picture.pixels.shape[:2]


def _film_through(name: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / f"mutant{Path(name).suffix}", Path(folder) / "result.mkv"
        source.write_bytes(data)
        store = Segments(Path(folder) / "parts", {})
        with open_video(source) as film:
            if film.width * film.height > MAX_PIXELS:
                return  # what a large film costs is what large films cost
            with writing(film, target, store, quality=50) as out:
                count = 0
                for part in out.missing():
                    with out.segment() as write:
                        for frame in part:
                            assert np.isfinite(frame.pixels).all(), name
                            write(frame.pixels, frame)
                            count += 1
                            if count == FRAMES:
                                break
                    if count == FRAMES:
                        break
                with target.open("w+b") as stream:
                    out.join(stream)
        with open_video(target) as film:
            assert next(film.frames()).pixels.shape[:2] == (film.height, film.width)


# --- In batches -------------------------------------------------------------------------------------------------


def try_mutants(kind: str, first: int, count: int) -> None:
    """In a process of its own: each mutant under the limits, and a line of how it went."""
    corpus(kind)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for number in range(first, first + count):
        name, data = mutant(kind, number)
        print(number, "mutant of", name, flush=True)
        print(number, judge(kind, name, data), flush=True)


def survey(kind: str, first: int, count: int) -> tuple[dict[str, int], list[str]]:
    """How many were restored and reported, and in a line each what died, hung or did wrong."""
    tally, wrong, at = {"restored": 0, "reported": 0}, [], first
    while at < first + count:
        command = [sys.executable, __file__, kind, str(at), str(first + count - at)]
        hung = False
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30 + 3 * count)
            lines, code, told = done.stdout.splitlines(), done.returncode, done.stderr
        except subprocess.TimeoutExpired as error:
            lines, code, told, hung = (error.stdout or b"").decode().splitlines(), -1, "", True
        for line in lines:
            if (word := line.split()[-1]) in tally and "mutant of" not in line:
                tally[word] += 1
        if code == 0:
            break
        last = lines[-1] if lines else f"{at} nothing"
        why = "hung" if hung else told.strip().splitlines()[-1][:300] if told.strip() else f"signal {-code}"
        wrong.append(f"{kind}: {last}: {why}")
        at = int(last.split()[0]) + 1
    return tally, wrong


@pytest.mark.parametrize("kind", ["gain", "film"])
def test_some_mutants_are_restored_or_reported(kind):
    tally, wrong = survey(kind, 60, 10)  # film 65 told no format of its pictures
    assert not wrong
    assert sum(tally.values()) == 10


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", sorted(CORPORA))
def test_hundreds_of_mutants_are_restored_or_reported(kind):
    tally, wrong = survey(kind, 0, 600)
    assert not wrong
    assert min(tally.values()) > 10  # or they prove nothing


@pytest.mark.slow
def test_every_healthy_file_is_restored():
    for kind in CORPORA:
        for name, data in corpus(kind).items():
            if name != "trunc.mkv":
                assert judge(kind, name, data) == "restored", name


if __name__ == "__main__":
    try_mutants(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
