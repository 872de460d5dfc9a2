"""The format of a file by its first bytes.

Native decoders allocate what a header claims, and some abort the process on bytes that they did not expect. So what
can be checked cheaply is checked before any of them runs: the format here, headers and chunks in each format's own
file, with every length bounded by the file. Raises `Unreadable`.
"""

from restormer_cli.images.formats.raster import COPY_AGAIN, Unreadable

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpg"),
    (0, b"II*\x00", "tif"),
    (0, b"MM\x00*", "tif"),
    (0, b"II+\x00", "tif"),  # BigTIFF
    (0, b"MM\x00+", "tif"),
    (8, b"WEBP", "webp"),
    (0, b"\xff\x0a", "jxl"),
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", "jxl"),
    (4, b"ftypavif", "avif"),
    (4, b"ftypavis", "avif"),
    *((4, b"ftyp" + brand, "heic") for brand in HEIF_BRANDS),
    (0, b"BM", "bmp"),
)
"""Offset, bytes, format."""

FOREIGN = (
    (0, b"GIF8", "a GIF"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "PostScript"),
    (4, b"ftypcrx", "a camera's raw file"),
    (0, b"FUJIFILM", "a camera's raw file"),
    (4, b"ftyp", "a video"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000"),
    (0, b"v/1\x01", "an OpenEXR"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"<", "a web page or an SVG"),
    (0, b"version https://git-lfs", "a Git LFS pointer"),
)
"""Offset, bytes, name: what people hand us that we do not read, so that the error can say what it is."""


def sniff(data: bytes) -> str:
    """The format by the first bytes. Raises Unreadable with the best name for anything else."""
    if not data:
        raise Unreadable(f"is empty; {COPY_AGAIN}")
    if data[4:8] == b"ftyp" and b"avif" in data[16 : min(64, int.from_bytes(data[:4], "big"))]:
        return "avif"  # a general brand first, ours among the compatible ones
    for offset, magic, form in MAGIC:
        if data.startswith(magic, offset):
            return form
    for offset, magic, name in FOREIGN:
        if data.startswith(magic, offset):
            raise Unreadable(f"is {name}, which is not read; convert it to PNG or TIFF first")
    raise Unreadable("is not a picture of a known format; convert it to PNG or TIFF first")
