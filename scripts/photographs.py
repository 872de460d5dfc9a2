#!/usr/bin/env python3
"""Prepare the photographs that the compact checkpoints are trained and validated on.

The repository does not carry the photographs but the recipe: the list (photographs.csv, beside this script)
and this script, which fetches the packages from the Debian archive and from PyPI, and shrinks each picture by
the factor that the list gives. The shrinking is the point: it averages JPEG blocks away, which a denoiser
would otherwise learn to keep.

Independent of `restormer_cli`: it needs only numpy and Pillow, apt-get and dpkg for the Debian packages (none
is installed, and root is needed only if the package lists must be refreshed), and pip for the wheels.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import hashlib
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

LIST = Path(__file__).with_name("photographs.csv")
ROLES = ("train", "validate", "sample")
MULTIPLE = 8  # the network halves a picture three times
MAX_CONTENT = 64 * 2**20  # bytes; the largest photograph in the list is a quarter of this
READABLE_MODES = ("RGB", "RGBA", "L", "P", "CMYK")  # 8 bit; Pillow would clip deeper ones without a word

FINE, FAILURE, SOME_MISSING, CHECK_FAILED = 0, 1, 3, 4


class Unavailable(Exception):
    """A package or a photograph that cannot be had; it is reported and the others go on."""


def note(text: str) -> None:
    """Progress and warnings go to stderr; stdout keeps the summary."""
    print(text, file=sys.stderr, flush=True)


# --- the list -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photograph:
    """One row of the list; `path` is inside the package, `FILE.rcc:PATH` inside a Qt resource file."""

    role: str
    registry: str
    package: str
    version: str
    path: str
    width: int
    height: int
    downscale: int
    licence: str

    def __post_init__(self) -> None:
        outer, _, inner = self.path.partition(":")
        if self.role not in ROLES or self.registry not in FETCH:
            raise ValueError(f"{self.path}: role {self.role!r} or registry {self.registry!r} is unknown")
        if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.package):
            raise ValueError(f"{self.package!r} is no package name")
        for part in (outer, inner):
            if part.startswith("/") or ".." in PurePosixPath(part).parts:
                raise ValueError(f"{self.path}: the path must stay inside the package")
        if self.downscale < 1 or min(self.width, self.height) < MULTIPLE * self.downscale:
            size = f"{self.width}x{self.height}"
            raise ValueError(f"{self.path}: {size} cannot be shrunk by {self.downscale}")


def read_list(path: Path) -> list[Photograph]:
    """Read photographs.csv. Raises ValueError naming the line of the first bad row."""
    photographs = []
    with path.open(newline="", encoding="utf-8") as stream:
        for line, row in enumerate(csv.DictReader(stream), start=2):
            try:
                values: dict[str, Any] = dict(row)
                values |= {key: int(row[key]) for key in ("width", "height", "downscale")}
                photographs.append(Photograph(**values))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}:{line}: {error}") from error
    return photographs


def name_photographs(photographs: Iterable[Photograph]) -> dict[Photograph, str]:
    """Give each its file name, PACKAGE--STEM: the shortest end of its path that is unique in its package.

    Stable: it depends on the list alone, never on what could be downloaded. Unique also where the file system
    ignores case.
    """
    names = {}
    for package, group in groupby(sorted(photographs, key=lambda p: p.package), key=lambda p: p.package):
        waiting, depth = list(group), 0
        while waiting:
            depth += 1
            tails = {p: _tail(p.path, depth) for p in waiting}
            lowered = [tail.lower() for tail in tails.values()]
            done = {p for p, tail in tails.items() if lowered.count(tail.lower()) == 1}
            if not done and depth > max(len(p.path) for p in waiting):
                raise ValueError(f"{package}: {waiting[0].path} is listed twice")
            names |= {p: f"{package}--{tails[p]}" for p in done}
            waiting = [p for p in waiting if p not in done]
    if len({name.lower() for name in names.values()}) != len(names):
        raise ValueError("two photographs in the list get the same name")
    return names


def _tail(path: str, depth: int) -> str:
    parts = re.split("[/:]", str(PurePosixPath(path).with_suffix("")))
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join(parts[-depth:]))


# --- Qt resource files ----------------------------------------------------------------------------


class ResourceError(ValueError):
    """A Qt resource file that is damaged, or of a kind that is not read here."""


class ResourceFile:
    """The files inside a Qt binary resource file (.rcc), by path.

    Layout, big-endian: magic `qres`, then u32 version and the offsets of tree, data and names. A tree node
    has 14 bytes (22 from version 2, which adds a date): name offset u32, flags u16, then for a folder child
    count u32 and first child u32, for a file locale u32 and data offset u32. A name: length u16, hash u32,
    UTF-16. Data: length u32, then the bytes; compressed ones begin with their unpacked size, u32.

    Nothing in the file is trusted: every offset is checked against its end, a node may be reached once (so no
    cycles), the tree and its paths are bounded, and unpacking stops at the declared size.
    """

    COMPRESSED, FOLDER, ZSTD = 1, 2, 4
    MOST_NODES = 65_536
    LONGEST_PATH = 512  # characters

    def __init__(self, blob: bytes) -> None:
        if blob[:4] != b"qres":
            raise ResourceError("not a Qt resource file: it does not begin with 'qres'")
        self._blob = blob
        version, self._tree, self._data, self._names = self._unpack(">IIII", 4, "header")
        if not 1 <= version <= 3:
            raise ResourceError(f"resource format version {version}; versions 1 to 3 are read")
        self._node_bytes = 14 if version == 1 else 22
        self._files: dict[str, tuple[int, int]] = {}
        self._walk()

    def paths(self) -> list[str]:
        return sorted(self._files)

    def read(self, path: str) -> bytes:
        """Return one file, unpacked. Raises ResourceError where it is not there or damaged."""
        if path not in self._files:
            raise ResourceError(f"{path} is not in the resource file")
        flags, offset = self._files[path]
        at = self._data + offset
        (length,) = self._unpack(">I", at, f"data length of {path}")
        content = self._slice(at + 4, length, f"data of {path}")
        if flags & self.ZSTD:
            raise ResourceError(f"{path} is compressed with Zstandard, which is not read here")
        return _inflate(content, path) if flags & self.COMPRESSED else content

    def _walk(self) -> None:
        seen = {0}
        waiting = [(0, "")]
        while waiting:
            index, folder = waiting.pop()
            at = self._tree + index * self._node_bytes
            name_offset, flags = self._unpack(">IH", at, f"tree node {index}")
            # The root has no name; its name offset means nothing.
            path = f"{folder}/{self._name(name_offset)}".lstrip("/") if index else ""
            if len(path) > self.LONGEST_PATH:
                raise ResourceError(f"tree node {index}: its path exceeds {self.LONGEST_PATH} characters")
            first_field, second_field = self._unpack(">II", at + 6, f"tree node {index}")
            if not flags & self.FOLDER:
                # Variants for other locales share a path; the first is as good a picture as any.
                self._files.setdefault(path, (flags, second_field))
                continue
            count, first = first_field, second_field
            if len(seen) + count > self.MOST_NODES:
                raise ResourceError(f"the folder {path!r} takes the tree past {self.MOST_NODES} nodes")
            children = range(first, first + count)
            if not seen.isdisjoint(children):
                raise ResourceError(f"the folder {path!r} claims nodes that are already in the tree")
            seen.update(children)
            waiting += [(child, path) for child in reversed(children)]

    def _name(self, offset: int) -> str:
        at = self._names + offset
        (length,) = self._unpack(">H", at, "name length")
        try:
            return self._slice(at + 6, 2 * length, "name").decode("utf-16-be")
        except UnicodeDecodeError as error:
            raise ResourceError(f"the name at byte {at} is not UTF-16") from error

    def _unpack(self, layout: str, at: int, what: str) -> tuple[int, ...]:
        return struct.unpack(layout, self._slice(at, struct.calcsize(layout), what))

    def _slice(self, at: int, length: int, what: str) -> bytes:
        if at + length > len(self._blob):
            raise ResourceError(f"{what}: bytes {at} to {at + length} lie past the end, {len(self._blob)}")
        return self._blob[at : at + length]


def _inflate(content: bytes, path: str) -> bytes:
    """Unpack what Qt packed, never past the size that it declares: a few bytes could hold gigabytes."""
    if len(content) < 4:
        raise ResourceError(f"{path}: the compressed data have no size")
    (size,) = struct.unpack(">I", content[:4])
    if size > MAX_CONTENT:
        raise ResourceError(f"{path}: {size} bytes unpacked, more than the {MAX_CONTENT} read here")
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(content[4:], max_length=size + 1)
    except zlib.error as error:
        raise ResourceError(f"{path}: damaged compressed data ({error})") from error
    if len(unpacked) != size or not unpacker.eof:
        raise ResourceError(f"{path}: the compressed data do not hold the {size} bytes they declare")
    return unpacked


# --- pixels ---------------------------------------------------------------------------------------


def decode(content: bytes, photograph: Photograph) -> np.ndarray:
    """Decode a picture: bytes -> (h, w, c=3), uint8. Raises Unavailable for what cannot be read.

    Colour profiles and EXIF rotation are left aside: a network that restores photographs does not care.
    """
    if photograph.path.endswith("face.dat"):  # scipy's raccoon: raw RGB under bz2, sized by the list alone
        size = photograph.height * photograph.width * 3
        try:
            raw = bz2.BZ2Decompressor().decompress(content, max_length=size + 1)
        except OSError as error:
            raise Unavailable(f"damaged compressed data ({error})") from error
        if len(raw) != size:
            raise Unavailable(f"it does not unpack to {photograph.width}x{photograph.height}x3 bytes")
        return np.frombuffer(raw, np.uint8).reshape(photograph.height, photograph.width, 3)
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.mode not in READABLE_MODES:
                raise Unavailable(f"mode {picture.mode}; 8-bit pictures are read here")
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow raises
        raise Unavailable(f"not readable as a picture ({error})") from error


def shrink(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Average factor×factor blocks: (h, w, c) -> (h // factor, w // factor, c), uint8.

    What does not fill a block at the right and the bottom is cut off. Sums are integers, so the result is the
    same on every machine.
    """
    h, w, c = pixels.shape[0] // factor, pixels.shape[1] // factor, pixels.shape[2]
    blocks = pixels[: h * factor, : w * factor].reshape(h, factor, w, factor, c)
    return np.rint(blocks.sum(axis=(1, 3), dtype=np.int64) / factor**2).astype(np.uint8)


def crop_to_multiple(pixels: np.ndarray, multiple: int = MULTIPLE) -> np.ndarray:
    """Cut rows at the bottom and columns at the right until both sizes are multiples."""
    h, w = (size - size % multiple for size in pixels.shape[:2])
    return pixels[:h, :w]


def hash_pixels(pixels: np.ndarray) -> str:
    """SHA-256 of the pixels, not of the file: it does not change with the PNG encoder.

    It may still change with the JPEG and WebP decoders inside Pillow, by a level here and there.
    """
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def perceptual_hash(pixels: np.ndarray) -> int:
    """Describe a picture, (h, w, c) uint8, in 64 bits that survive scaling, compression and brightness.

    Whether each of the 8×8 lowest frequencies (cosine transform) of a 32×32 gray copy exceeds their median. A
    hash of brightness steps is simpler, but takes one sky over a dark foreground for another.
    """
    gray = np.asarray(Image.fromarray(pixels).convert("L").resize((32, 32), Image.Resampling.BOX), np.float64)
    cosines = np.cos(np.pi * np.arange(8)[:, None] * (2 * np.arange(32) + 1) / 64)
    frequencies = (cosines @ gray @ cosines.T).ravel()
    bits = frequencies > np.median(frequencies[1:])  # the first is the mean, the brightness
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def read_png(path: Path) -> np.ndarray | None:
    """Read a written photograph back; None where it is missing or damaged."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError):
        return None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, so that an interrupted run leaves nothing half done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


# --- packages -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Package:
    """A package that was fetched: the version that the registry served, and a way to read a file in it."""

    version: str
    read: Callable[[str], bytes]


class Cache:
    """Downloaded packages. apt and pip check each against the hash in their index; that hash is kept, so that
    later runs need no network and still notice a damaged file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._record = root / "verified.json"
        self._hashes: dict[str, str] = json.loads(self._record.read_text()) if self._record.exists() else {}

    def find(self, folder: str, pattern: str) -> Path | None:
        """Return the newest intact download of that name."""
        found = sorted((self.root / folder).glob(pattern), key=_age)
        return next((path for path in found if self._hashes.get(path.name) == _hash_file(path)), None)

    def make_room(self, folder: str, pattern: str) -> None:
        """Delete unverified downloads of that name: apt takes a file of the right size for the right file."""
        for path in (self.root / folder).glob(pattern):
            if self._hashes.get(path.name) != _hash_file(path):
                path.unlink()

    def keep(self, folder: str, pattern: str) -> Path:
        """Record what a downloader has just fetched and verified."""
        found = min((self.root / folder).glob(pattern), key=_age, default=None)
        if found is None:
            raise Unavailable(f"the download left no {pattern}")
        self._hashes[found.name] = _hash_file(found)
        write_atomically(self._record, json.dumps(self._hashes, indent=1, sort_keys=True).encode() + b"\n")
        return found


def _age(path: Path) -> float:
    return -path.stat().st_mtime


def _hash_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _execute(command: Sequence[str], folder: Path) -> str:
    """Run a tool in a folder and return its output; Unavailable carries its last words."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Unavailable(f"{command[0]} is not installed") from error
    if result.returncode != 0:
        words = (result.stderr.strip() or result.stdout.strip() or "no message").splitlines()[-1]
        raise Unavailable(f"{Path(command[0]).name} failed: {words}")
    return result.stdout


def fetch_debian(name: str, version: str, cache: Cache) -> Package:
    """Fetch a Debian package and unpack it into the cache, without installing it.

    An archive serves one version, whatever the list says; apt checks it against the archive's signed index.
    """
    folder, pattern = cache.root / "debian", f"{name}_*.deb"
    archive = cache.find("debian", pattern)
    if archive is None:
        note(f"downloading {name} (Debian)")
        cache.make_room("debian", pattern)
        try:
            _execute(["apt-get", "download", name], folder)
        except Unavailable as error:
            try:  # the package lists may be old, or not there yet, as in a fresh container
                _execute(["apt-get", "update"], folder)
                _execute(["apt-get", "download", name], folder)
            except Unavailable as again:
                raise Unavailable(f"{error}; then {again}") from again
        archive = cache.keep("debian", pattern)
        shutil.rmtree(folder / archive.stem, ignore_errors=True)
    tree = folder / archive.stem
    if not tree.is_dir():
        partial = folder / f"{archive.stem}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        _execute(["dpkg", "-x", str(archive.resolve()), str(partial.resolve())], folder)
        partial.rename(tree)
    served = _execute(["dpkg-deb", "--field", str(archive.resolve()), "Version"], folder).strip()

    def read(path: str) -> bytes:
        file = (tree / path).resolve()
        if not file.is_relative_to(tree.resolve()) or not file.is_file():
            raise Unavailable("not in the package")
        return file.read_bytes()

    return Package(served, read)


def fetch_wheel(name: str, version: str, cache: Cache) -> Package:
    """Fetch a wheel: the listed version, or the one that the index serves where that one is gone."""
    stem = re.sub(r"[-_.]+", "_", name)
    folder = cache.root / "wheels"
    archive = cache.find("wheels", f"{stem}-{version}-*.whl")
    if archive is None:
        note(f"downloading {name} (PyPI)")
        cache.make_room("wheels", f"{stem}-*.whl")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "--python-version=3.11", "--dest=."]
        try:
            _execute([*command, f"{name}=={version}"], folder)
            archive = cache.keep("wheels", f"{stem}-{version}-*.whl")
        except Unavailable as error:
            note(f"{name}=={version}: {error}; taking another version")
            archive = cache.find("wheels", f"{stem}-*.whl")
        if archive is None:
            _execute([*command, name], folder)
            archive = cache.keep("wheels", f"{stem}-*.whl")

    def read(path: str) -> bytes:
        try:
            with zipfile.ZipFile(archive) as wheel:
                if wheel.getinfo(path).file_size > MAX_CONTENT:
                    raise Unavailable(f"more than {MAX_CONTENT} bytes")
                return wheel.read(path)
        except KeyError as error:
            raise Unavailable("not in the wheel") from error
        except (zipfile.BadZipFile, zlib.error) as error:
            raise Unavailable(f"damaged wheel ({error})") from error

    return Package(archive.name.split("-")[1], read)


FETCH: dict[str, Callable[[str, str, Cache], Package]] = {"debian": fetch_debian, "pypi": fetch_wheel}


def read_photograph(photograph: Photograph, package: Package, resources: dict[str, ResourceFile]) -> np.ndarray:
    """Read one photograph out of its package: (h, w, c=3), uint8. `resources` keeps opened resource files."""
    outer, _, inner = photograph.path.partition(":")
    try:
        if not inner:
            return decode(package.read(outer), photograph)
        if outer not in resources:
            resources[outer] = ResourceFile(package.read(outer))
        return decode(resources[outer].read(inner), photograph)
    except ResourceError as error:
        raise Unavailable(str(error)) from error


# --- the prepared folder --------------------------------------------------------------------------


def describe(photograph: Photograph, name: str, version: str, native: np.ndarray, written: np.ndarray) -> dict:
    """Make the manifest entry of a photograph that was written."""
    return {
        "role": photograph.role,
        "name": name,
        "package": photograph.package,
        "version": version,
        "path": photograph.path,
        "native": [native.shape[1], native.shape[0]],
        "downscale": photograph.downscale,
        "written": [written.shape[1], written.shape[0]],
        "licence": photograph.licence,
        "sha256": hash_pixels(written),
    }


def hash_manifest(entries: Iterable[dict]) -> str:
    """Name the data as a whole by one hash: over role, name, size and pixels, not over package versions."""
    lines = (f"{e['role']}/{e['name']} {e['written'][0]}x{e['written'][1]} {e['sha256']}\n" for e in entries)
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def write_manifest(out: Path, entries: Iterable[dict], missing: dict[str, str]) -> None:
    """Write OUT/manifest.json, one photograph a line, with the hash that names the data as a whole."""
    entries = sorted(entries, key=lambda entry: (entry["role"], entry["name"]))
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    head = f'"sha256": "{hash_manifest(entries)}",\n"missing": {json.dumps(missing)},\n'
    text = f'{{{head}"photographs": [\n{lines}\n]}}\n'
    write_atomically(out / "manifest.json", text.encode())


def still_good(out: Path, names: dict[Photograph, str]) -> dict[Photograph, dict]:
    """Find the photographs of an earlier run that the list still asks for and whose pixels are unharmed."""
    try:
        entries = json.loads((out / "manifest.json").read_text())["photographs"]
        earlier = {(e["role"], e["name"], e["path"], e["downscale"]): e for e in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    good = {}
    for photograph, name in names.items():
        entry = earlier.get((photograph.role, name, photograph.path, photograph.downscale))
        if entry is not None:
            pixels = read_png(out / photograph.role / f"{name}.png")
            if pixels is not None and hash_pixels(pixels) == entry["sha256"]:
                good[photograph] = {**entry, "licence": photograph.licence}
    return good


def prepare(photographs: Sequence[Photograph], out: Path, cache: Cache) -> tuple[list[dict], dict[str, str]]:
    """Write what is not there yet. Returns the manifest's entries, and what is missing and why.

    The manifest is renewed after each package, so that an interrupted run is taken up where it stopped.
    """
    names = name_photographs(photographs)
    entries = still_good(out, names)
    missing: dict[str, str] = {}

    def package_of(photograph: Photograph) -> tuple[str, str, str]:
        return photograph.registry, photograph.package, photograph.version

    waiting = sorted((p for p in photographs if p not in entries), key=package_of)
    for (registry, name, version), group in groupby(waiting, key=package_of):
        resources: dict[str, ResourceFile] = {}
        wanted = list(group)
        try:
            package = FETCH[registry](name, version, cache)
        except Unavailable as error:
            missing |= {f"{name}: {photograph.path}": str(error) for photograph in wanted}
            continue
        served = "" if package.version == version else f" ({version} is listed)"
        note(f"{name} {package.version}{served}: {len(wanted)} photographs")
        for photograph in wanted:
            try:
                native = read_photograph(photograph, package, resources)
                if native.shape[:2] != (photograph.height, photograph.width):
                    note(f"{photograph.path}: {native.shape[1]}x{native.shape[0]}, not the size in the list")
                written = crop_to_multiple(shrink(native, photograph.downscale))
                if min(written.shape[:2]) == 0:
                    raise Unavailable(f"too small, {native.shape[1]}x{native.shape[0]}")
            except Unavailable as error:
                missing[f"{name}: {photograph.path}"] = str(error)
                continue
            stream = io.BytesIO()
            Image.fromarray(written).save(stream, "PNG")
            write_atomically(out / photograph.role / f"{names[photograph]}.png", stream.getvalue())
            entries[photograph] = describe(photograph, names[photograph], package.version, native, written)
        write_manifest(out, entries.values(), missing)
    write_manifest(out, entries.values(), missing)
    return list(entries.values()), missing


def strangers(out: Path, entries: Iterable[dict]) -> list[str]:
    """Find pictures in OUT that the manifest does not know: a training run would read them too."""
    known = {f"{entry['role']}/{entry['name']}.png" for entry in entries}
    found = {f"{role}/{path.name}" for role in ROLES for path in (out / role).glob("*.png")}
    return sorted(found - known)


def near_duplicates(out: Path, threshold: int) -> tuple[int, list[tuple[int, str, str]]]:
    """Compare every two pictures in OUT, one of them mirrored too. Returns how many pictures there are, and
    (distance, a, b) for each pair whose hashes differ in at most `threshold` of 64 bits."""
    hashes: dict[str, tuple[int, int]] = {}
    for role in ROLES:
        for path in sorted((out / role).glob("*.png")):
            pixels = read_png(path)
            if pixels is not None:
                hashes[f"{role}/{path.stem}"] = perceptual_hash(pixels), perceptual_hash(pixels[:, ::-1])
    pairs = (
        (min((a ^ b).bit_count() for b in other), x, y) for (x, (a, _)), (y, other) in combinations(hashes.items(), 2)
    )
    return len(hashes), sorted(pair for pair in pairs if pair[0] <= threshold)


# --- the command ----------------------------------------------------------------------------------


def summarise(entries: Sequence[dict], missing: dict[str, str], out: Path) -> None:
    for role in ROLES:
        listed = [entry for entry in entries if entry["role"] == role]
        megapixels = sum(w * h for w, h in (entry["written"] for entry in listed)) / 1e6
        print(f"{role:9}{len(listed):4} photographs {megapixels:7.1f} megapixels  {out / role}")
        if listed:  # what the header of weights that were trained on them says
            print(f"         sha256 {hash_manifest(listed)}")
    for what, why in sorted(missing.items()):
        print(f"missing  {what}: {why}")
    for stranger in strangers(out, entries):
        print(f"unknown  {stranger}: not in the list, but a training run would read it; delete it")
    print(f"data     sha256 {hash_manifest(entries)}")


def check_duplicates(out: Path, threshold: int) -> int:
    count, pairs = near_duplicates(out, threshold)
    if count == 0:
        note(f"{out}: no pictures in {', '.join(ROLES)}; run this script without --check-duplicates first")
        return FAILURE
    crossing = 0
    for distance, a, b in pairs:
        crosses = a.split("/")[0] != b.split("/")[0]
        crossing += crosses
        print(f"{distance:2} bits  {a}  {b}{'  CROSSES THE SPLIT' if crosses else ''}")
    print(f"{count} pictures: {len(pairs)} pairs within {threshold} bits, {crossing} across the split")
    return CHECK_FAILED if crossing else FINE


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Prepare the photographs that the compact checkpoints are trained and validated on: "
        "download the Debian packages and wheels that hold them (about 340 MB), shrink each by the factor in "
        "photographs.csv, crop it to a multiple of 8, and write OUT/{train,validate,sample}/*.png and "
        "OUT/manifest.json. May be interrupted and repeated: what is there and unharmed is kept.",
        epilog="Exit codes: 0 all are there; 1 none is; 2 usage; 3 some are missing (named on stdout, the "
        "rest are written); 4 a near-duplicate crosses the split.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("datasets/photographs"),
        help="folder to write (default: %(default)s)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("~/.cache/restormer-cli/photographs"),
        help="folder that keeps the downloads and what was unpacked, about 700 MB (default: %(default)s)",
    )
    parser.add_argument(
        "--check-duplicates",
        action="store_true",
        help="prepare nothing; list near-duplicates among the pictures in OUT, exit 4 if one crosses roles",
    )
    parser.add_argument(
        "--threshold",
        type=int,
        default=12,
        metavar="BITS",
        help="near-duplicates differ in at most so many of 64 bits (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.check_duplicates:
        return check_duplicates(options.out, options.threshold)
    entries, missing = prepare(read_list(LIST), options.out, Cache(options.cache.expanduser()))
    summarise(entries, missing, options.out)
    if not entries:
        return FAILURE
    return SOME_MISSING if missing else FINE


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
