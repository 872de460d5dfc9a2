#!/bin/sh
set -eu
folder=$(mktemp -d)
trap "rm -rf $folder" EXIT
python3 -m venv "$folder/env"

"$folder/env/bin/pip" install -q av==18.1.0 numpy==2.3.5
# av 18.1.0 with its own x264 on Linux (glibc), on a processor with AVX-512 (seen: an AMD EPYC, Zen 4): by one thread, the same
# four frames of 1080 × 1920, as telephones hold them, become 2 different streams (once 4) in 4 processes whose fresh memory
# holds different bytes (MALLOC_PERTURB_). 720 × 576, 848 × 480 and 480 × 270 do likewise; 1920 × 1080 and 1280 × 720, whose rows
# are other numbers of macroblocks, do not. With asm=avx2, with no-mbtree=1 or with cpu-independent=1 there is one stream.
cat > "$folder/encode.py" <<'PY'
import hashlib, sys
from fractions import Fraction
import av, numpy

width, height = 1080, 1920
codec = av.CodecContext.create("libx264", "w")
codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
codec.time_base, codec.framerate, codec.thread_count = Fraction(1, 25), 25, 1
codec.options = {"crf": "18", "x264-params": sys.argv[1]}
down, across = numpy.mgrid[:height, :width]
stream = b""
for number in range(4):
    samples = numpy.full((height * 3 // 2, width), 128, numpy.uint8)
    noise = numpy.random.default_rng(number).normal(0, 6, (height, width))
    samples[:height] = numpy.clip(128 + 60 * numpy.sin((across + 3 * number) / 9) * numpy.cos(down / 7) + noise, 0, 255)
    frame = av.VideoFrame.from_ndarray(samples, format="yuv420p")
    frame.pts, frame.time_base = number, Fraction(1, 25)
    stream += b"".join(map(bytes, codec.encode(frame)))
stream += b"".join(map(bytes, codec.encode(None)))
print(hashlib.sha256(stream).hexdigest())
PY
grep -q avx512bw /proc/cpuinfo || { echo "needs a processor with AVX-512: nothing is seen otherwise"; exit 1; }
different() {
    for bytes in 0 1 85 170; do MALLOC_PERTURB_=$bytes "$folder/env/bin/python" "$folder/encode.py" "$1" 2>/dev/null; done |
        sort -u | wc -l
}
usual=$(different aq-mode=1)
avx2=$(different asm=avx2)
independent=$(different cpu-independent=1)
echo "streams of 4 processes: $usual; with asm=avx2 $avx2; with cpu-independent=1 $independent"
[ "$usual" -gt 1 ] && [ "$avx2" = 1 ] && [ "$independent" = 1 ] || { echo changed; exit 1; }
