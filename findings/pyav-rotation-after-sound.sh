#!/bin/sh
set -eu
folder=$(mktemp -d)
trap "rm -rf $folder" EXIT
python3 -m venv "$folder/env"

"$folder/env/bin/pip" install -q av==18.1.0 numpy==2.3.5
# PyAV 18.1.0, seen: "sound last 90 sound first 0": the first muxed packet writes the header.
"$folder/env/bin/python" - <<'PY'
import io, av, numpy

def rotation(sound_first):
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = film.add_stream("aac", rate=44100, layout="mono")
        tone = av.AudioFrame.from_ndarray(numpy.zeros((1, 4096), "float32"), "fltp", "mono")
        tone.sample_rate, tone.pts = 44100, 0
        packets = [*sound.encode(tone), *sound.encode(None)]
        if sound_first:
            film.mux(packets)
        stream.set_display_rotation(90)
        for _ in range(5):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(numpy.zeros((48, 64, 3), "uint8"))))
        film.mux(stream.encode(None))
        if not sound_first:
            film.mux(packets)
    out.seek(0)
    with av.open(out) as film:
        return next(film.decode(video=0)).rotation

seen = rotation(False), rotation(True)
print("sound last", seen[0], "sound first", seen[1])
assert abs(seen[0]) == 90 and seen[1] == 0, "changed"
PY
