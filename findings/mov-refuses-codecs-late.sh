#!/bin/sh
set -eu
folder=$(mktemp -d)
trap "rm -rf $folder" EXIT
python3 -m venv "$folder/env"

"$folder/env/bin/pip" install -q av==18.1.0 numpy==2.3.5
# PyAV 18.1.0 with its own FFmpeg, seen: "libx264: listed, opened, written", and for libvpx-vp9 and libsvtav1 "listed, opened, refused at
# the first packet (ArgumentError)". PyAV lists VP9 and AV1 among the codecs of .mov, adds the stream, opens the encoder and encodes; FFmpeg's
# muxer refuses them when it writes the header, which is when the first packet is muxed. (FFV1 is refused when the stream is added.)
"$folder/env/bin/python" - <<'PY'
import io, os
import av, numpy
from av.error import FFmpegError

os.environ["SVT_LOG"] = "1"
av.logging.set_level(None)

def told(encoder):
    film = av.open(io.BytesIO(), "w", format="mov")
    stream = film.add_stream(encoder, rate=25)
    listed = stream.codec_context.codec.canonical_name in film.supported_codecs
    stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
    stream.codec_context.open()
    frame = av.VideoFrame.from_ndarray(numpy.zeros((96, 128, 3), numpy.uint8)).reformat(format="yuv420p")
    packets = [*stream.encode(frame), *stream.encode(None)]
    words = f"{'listed' if listed else 'not listed'}, {'opened' if stream.codec_context.is_open else 'not open'}"
    try:
        film.mux(packets)
        return f"{words}, written"
    except FFmpegError as error:
        return f"{words}, refused at the first packet ({type(error).__name__})"

seen = {name: told(name) for name in ("libx264", "libvpx-vp9", "libsvtav1")}
for name, words in seen.items():
    print(f"{name}: {words}")
late = "listed, opened, refused at the first packet (ArgumentError)"
assert list(seen.values()) == ["listed, opened, written", late, late], "changed"
PY
