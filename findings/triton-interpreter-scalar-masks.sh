#!/bin/sh
set -eu
folder=$(mktemp -d)
trap "rm -rf $folder" EXIT
python3 -m venv "$folder/env"

"$folder/env/bin/pip" install -q torch==2.13.0 numpy==2.3.5
"$folder/env/bin/pip" install -q --no-deps --target "$folder/3.8.0" triton==3.8.0
"$folder/env/bin/pip" install -q --no-deps --target "$folder/3.9.0" triton==3.9.0
# triton 3.8.0 and 3.9.0, TRITON_INTERPRET=1 on a CPU, seen: "3.8.0 [0.0, 1.0, 2.0, 0.0]", "3.9.0 mask has unsupported dtype".
# A mask that is a block of conditions & one condition for the whole program, such as "inside the row, and the row is inside the
# picture": the interpreter holds it as 32-bit integers, though its type says int1, and since 3.9.0 does not load by integers
cat > "$folder/kernel.py" <<'PY'
import sys

import torch
import triton
import triton.language as tl


@triton.jit
def copy(source, target, rows, SIDE: tl.constexpr):
    column = tl.arange(0, SIDE)
    there = tl.program_id(0) < rows
    tl.store(target + column, tl.load(source + column, mask=(column < 3) & there, other=0.0))


target = torch.ones(4)
try:
    copy[(1,)](torch.arange(4.0), target, 1, SIDE=4)
    seen = str(target.tolist())
except Exception as error:
    while error.__cause__ is not None:
        error = error.__cause__
    seen = str(error)
print(triton.__version__, seen)
assert triton.__version__ == sys.argv[1] and seen == sys.argv[2], "changed"
PY
export TRITON_INTERPRET=1
PYTHONPATH="$folder/3.8.0" "$folder/env/bin/python" "$folder/kernel.py" 3.8.0 "[0.0, 1.0, 2.0, 0.0]"
PYTHONPATH="$folder/3.9.0" "$folder/env/bin/python" "$folder/kernel.py" 3.9.0 "mask has unsupported dtype"
