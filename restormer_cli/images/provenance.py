"""What is said about a picture: taken away (`--strip`), or who made the result of it added (`--sign`)."""

from dataclasses import replace

from restormer_cli.images.colour import Colour, make_icc, read_colour
from restormer_cli.images.formats.exif_icc import with_text
from restormer_cli.images.formats.raster import Beside, Unreadable
from restormer_cli.images.io import Picture

SOFTWARE = 305
NAMESPACE = "https://github.com/restormer-cli/ns/1.0/"
PACKET = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
END = b"</rdf:RDF>"


def stripped(picture: Picture) -> Picture:
    """The picture without what people, cameras and programs wrote beside it; what its colours mean stays."""
    icc = picture.icc
    colour = read_colour(None, (), picture.exif)
    if icc is None and not picture.colour and isinstance(colour, Colour):
        icc = make_icc(colour, "Adobe RGB compatible")  # EXIF alone has said so
    return replace(picture, exif=None, beside=Beside(), icc=icc)


def signed(picture: Picture, version: str, task: str) -> Picture:
    """The picture as the result of this program: in EXIF's Software, and in XMP by fields of a namespace of its own."""
    from xml.sax.saxutils import quoteattr  # brings half of the standard library along

    words = f"restormer-cli {version}, {task}"
    try:
        exif = with_text(picture.exif, SOFTWARE, words)
    except Unreadable:
        exif = picture.exif
    fields = {"software": "restormer-cli", "version": version, "task": task}
    said = " ".join(f"restormer:{name}={quoteattr(value)}" for name, value in fields.items())
    row = f'<rdf:Description rdf:about="" xmlns:restormer="{NAMESPACE}" {said}/>'.encode()
    before, end, after = (picture.beside.xmp or PACKET).rpartition(END)
    xmp = before + row + end + after if end else picture.beside.xmp  # a packet of another shape is left as it is
    return replace(picture, exif=exif, beside=replace(picture.beside, xmp=xmp))
