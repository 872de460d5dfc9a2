#!/bin/sh
set -eu
folder=$(mktemp -d)
trap "rm -rf $folder" EXIT
python3 -m venv "$folder/env"

"$folder/env/bin/pip" install -q imagecodecs==2026.3.6 numpy==2.3.5
# imagecodecs 2026.3.6, seen: {'uint8': 'sRGB (all default)', 'uint16': 'linear', 'float32': 'linear'}
"$folder/env/bin/python" - <<'PY'
import imagecodecs, numpy

def transfer(data):
    """The transfer function in a bare codestream of 32 x 32 RGB without alpha (ISO/IEC 18181-1, annex D)."""
    if data[:2] != b"\xff\x0a":
        data = data[data.index(b"jxlc") + 4 :]
    value, at = int.from_bytes(data[2:64], "little"), 0
    def bits(count):
        nonlocal at
        at += count
        return value >> at - count & (1 << count) - 1
    def number(*choices):
        choice = choices[bits(2)]
        return choice if isinstance(choice, int) else choice[0] + bits(choice[1])
    assert bits(1); bits(5); assert bits(3) == 1  # sides in eighths, square
    if bits(1): return "sRGB (all default)"
    assert not bits(1)  # no extra fields
    if bits(1): number(32, 16, 24, (1, 6)); bits(4)
    else: number(8, 10, 12, (1, 6))
    bits(1); assert number(0, 1, (2, 4), (1, 12)) == 0; bits(1)
    if bits(1): return "sRGB (all default)"
    assert not bits(1)
    enum = (0, 1, (2, 4), (18, 6))
    number(*enum); number(*enum); number(*enum)
    assert not bits(1)
    return {8: "linear", 13: "sRGB"}[number(*enum)]

seen = {}
for kind, grey in (("uint8", 128), ("uint16", 128 * 257), ("float32", 0.5)):
    array = numpy.full((32, 32, 3), grey, kind)
    seen[kind] = transfer(imagecodecs.jpegxl_encode(array, lossless=True, usecontainer=False))
print(seen)
assert seen == {"uint8": "sRGB (all default)", "uint16": "linear", "float32": "linear"}, "changed"
PY
