#!/bin/sh
set -eu
folder=$(mktemp -d)
trap "rm -rf $folder" EXIT
python3 -m venv "$folder/env"

"$folder/env/bin/pip" install -q av==18.1.0 numpy==2.3.5
# av 18.1.0 with its own SVT-AV1, on Linux as root (as in most containers), seen: before 0 (SCHED_OTHER), while the encoder is open
# 1 (SCHED_FIFO), after it is closed 1. Encoding a film takes real-time priority for the thread that asked for it and keeps it:
# whatever that thread computes or starts afterwards, other programs wait. Without root nothing is changed
"$folder/env/bin/python" - <<'PY'
import os
import av, numpy

if os.geteuid() != 0:
    raise SystemExit("needs root: nothing is changed otherwise")
os.environ["SVT_LOG"] = "1"
seen = [os.sched_getscheduler(0)]
film = av.open(os.devnull, "w", format="matroska")
stream = film.add_stream("libsvtav1", rate=25)
stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
frame = av.VideoFrame.from_ndarray(numpy.zeros((128, 128, 3), numpy.uint8)).reformat(format="yuv420p")
film.mux(stream.encode(frame))
seen.append(os.sched_getscheduler(0))
film.mux(stream.encode(None))
film.close()
seen.append(os.sched_getscheduler(0))
print(seen)
assert seen == [os.SCHED_OTHER, os.SCHED_FIFO, os.SCHED_FIFO], "changed"
PY
