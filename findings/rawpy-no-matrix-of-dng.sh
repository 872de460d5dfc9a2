#!/bin/sh
set -eu
folder=$(mktemp -d)
trap "rm -rf $folder" EXIT
python3 -m venv "$folder/env"

"$folder/env/bin/pip" install -q rawpy==0.28.0 tifffile==2025.10.16 numpy==2.3.5
# rawpy 0.28.0 (LibRaw 0.22.2), seen: rgb_xyz_matrix is all zeros although the file has a ColorMatrix1; color_matrix is its inverse
"$folder/env/bin/python" - <<'PY'
import io, numpy, rawpy, tifffile

matrix = numpy.array([[0.8, -0.2, -0.1], [-0.4, 1.2, 0.2], [-0.1, 0.2, 0.6]])
fractions = tuple(part for value in matrix.ravel() for part in (round(value * 10000), 10000))
tags = [
    (50706, "B", 4, (1, 4, 0, 0), True), (50708, "s", 0, b"A camera", True), (33421, "H", 2, (2, 2), True),
    (33422, "B", 4, (0, 1, 1, 2), True), (50717, "H", 1, 16383, True), (50721, "2i", 9, fractions, True),
    (50728, "2I", 3, (1, 2, 1, 1, 7, 10), True), (50778, "H", 1, 21, True),
]
out = io.BytesIO()
tifffile.imwrite(out, numpy.full((64, 96), 4000, numpy.uint16), photometric="CFA", extratags=tags, metadata=None)
out.seek(0)
with rawpy.imread(out) as raw:
    to_srgb, from_xyz = numpy.array(raw.color_matrix)[:, :3], numpy.array(raw.rgb_xyz_matrix)
srgb_to_xyz = numpy.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])
wanted = matrix @ srgb_to_xyz
wanted = numpy.linalg.inv(wanted / wanted.sum(axis=1, keepdims=True))
print(from_xyz.any(), numpy.abs(to_srgb - wanted).max())
assert not from_xyz.any(), "changed"
assert numpy.abs(to_srgb - wanted).max() < 1e-3, "changed"
PY
