#!/bin/sh
set -eu
folder=$(mktemp -d)
trap "rm -rf $folder" EXIT
python3 -m venv "$folder/env"

"$folder/env/bin/pip" install -q imagecodecs==2026.3.6 numpy==2.3.5
# imagecodecs 2026.3.6 (lcms2 2.18.0), seen: {'inside, apart by': 0.0, 'green of Rec. 2020, by a formula': [-7.59, 1.06, -1.3],
# 'by a table': [0.0, 1.0, 0.0]}. Two sRGB profiles that agree inside: in floats the one whose curve is a formula gives
# what lies beyond sRGB, the one whose curve is a table of 4096 places cuts it off
"$folder/env/bin/python" - <<'PY'
import struct
import imagecodecs, numpy

def tabled(icc):
    """The profile with its curves as tables of 4096 places."""
    light = numpy.linspace(0, 1, 4096)
    light = numpy.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    curve = b"curv\0\0\0\0" + struct.pack(">I", 4096) + numpy.rint(light * 65535).astype(">u2").tobytes()
    data, start = bytearray(icc + b"\0" * (-len(icc) % 4)), len(icc) + -len(icc) % 4
    for row in range(int.from_bytes(icc[128:132], "big")):
        at = 132 + 12 * row
        if bytes(data[at + 1 : at + 4]) == b"TRC":
            struct.pack_into(">II", data, at + 4, start, len(curve))
    struct.pack_into(">I", data, 0, start + len(curve))
    return bytes(data) + curve

def through(pixels, target):
    wide = imagecodecs.cms_profile(
        "rgb", whitepoint=[0.3127, 0.329, 1], primaries=[0.708, 0.292, 1, 0.17, 0.797, 1, 0.131, 0.046, 1], gamma=2.2
    )
    array = numpy.array([pixels], numpy.float32)
    return imagecodecs.cms_transform(
        array, bytes(wide), target, colorspace="rgb", outcolorspace="rgb", outdtype="float32", intent=1
    )[0]

formula = bytes(imagecodecs.cms_profile("srgb"))
table = tabled(formula)
inside, green = [[0.5, 0.5, 0.5], [0.4, 0.5, 0.45]], [[0, 1, 0]]
seen = {
    "inside, apart by": round(float(abs(through(inside, formula) - through(inside, table)).max()), 2),
    "green of Rec. 2020, by a formula": [round(float(value), 2) for value in through(green, formula)[0]],
    "by a table": [round(float(value), 2) for value in through(green, table)[0]],
}
print(seen)
assert seen["inside, apart by"] < 0.01, "changed"
assert min(seen["green of Rec. 2020, by a formula"]) < -0.5 and max(seen["green of Rec. 2020, by a formula"]) > 1, "changed"
assert seen["by a table"] == [0, 1, 0], "changed"
PY
