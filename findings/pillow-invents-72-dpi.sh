#!/bin/sh
set -eu
folder=$(mktemp -d)
trap "rm -rf $folder" EXIT
python3 -m venv "$folder/env"

"$folder/env/bin/pip" install -q pillow==13.0.0
# Pillow 13.0.0, seen: "without EXIF None, with EXIF (72, 72)".
"$folder/env/bin/python" - <<'PY'
import io
from PIL import Image

exif = Image.Exif()
exif[271] = "Maker"
seen = []
for options in ({}, {"exif": exif}):
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "JPEG", **options)
    seen.append(Image.open(out).info.get("dpi"))
print("without EXIF", seen[0], "with EXIF", seen[1])
assert seen == [None, (72, 72)], "changed"
PY
