#!/bin/sh
set -eu
folder=$(mktemp -d)
trap "rm -rf $folder" EXIT
python3 -m venv "$folder/env"

"$folder/env/bin/pip" install -q av==18.1.0 numpy==2.3.5
# av 18.1.0 (libavformat 62.12.102), seen: {'mp4': ('same', 'same'), 'mov': ('same', 'same'), 'matroska': ('differs', 'same'),
# 'webm': ('differs', 'same')}: each as it is, then with the flag bitexact. Matroska's muxer draws an identity for the file and
# for each track, so that equal pictures, encoded equally, are other bytes each time
"$folder/env/bin/python" - <<'PY'
import io
import av, numpy
from av.container import Flags

def film(container, bitexact):
    out = io.BytesIO()
    with av.open(out, "w", format=container) as made:
        if bitexact:
            made.flags |= Flags.bitexact.value
        stream = made.add_stream("libvpx-vp9" if container == "webm" else "libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(numpy.full((48, 64, 3), 60 * number, numpy.uint8))
            made.mux(stream.encode(frame.reformat(format="yuv420p")))
        made.mux(stream.encode(None))
    return out.getvalue()

seen = {}
for container in ("mp4", "mov", "matroska", "webm"):
    seen[container] = tuple(
        "same" if len({film(container, bitexact) for _ in range(3)}) == 1 else "differs" for bitexact in (False, True)
    )
print(seen)
always, random = ("same", "same"), ("differs", "same")
assert seen == {"mp4": always, "mov": always, "matroska": random, "webm": random}, "changed"
PY
