#!/bin/sh
set -eu
folder=$(mktemp -d)
trap "rm -rf $folder" EXIT
python3 -m venv "$folder/env"

"$folder/env/bin/pip" install -q torch==2.13.0 numpy==2.3.5 ncnn==1.0.20261020 pnnx==20261020
# pnnx 20261020 to ncnn 1.0.20261020, torch 2.13.0, seen: "axis -1 asked for, axis 1 done". Restormer's attention divides queries
# and keys by their length over a picture's pixels, F.normalize(q, dim=-1) on (batch, heads, channels, pixels). ncnn's layer
# of that name has no axis and divides by the length over the heads instead. Among its lines pnnx prints "unsupported
# normalize", writes the layer nevertheless, and ends well.
cat > "$folder/normalize.py" <<'PY'
import sys

import ncnn
import numpy as np
import pnnx
import torch
import torch.nn.functional as F

HEADS = 2


class Queries(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q = torch.nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return F.normalize(self.q(x).reshape(1, HEADS, 4, 80), dim=-1)


torch.manual_seed(0)
queries, x = Queries().eval(), torch.randn(1, 8, 8, 10)
pnnx.export(queries, f"{sys.argv[1]}/m.pt", x)
network = ncnn.Net()
assert network.load_param(f"{sys.argv[1]}/m.ncnn.param") == network.load_model(f"{sys.argv[1]}/m.ncnn.bin") == 0
extractor = network.create_extractor()
extractor.input("in0", ncnn.Mat(x[0].numpy()).clone())
result = torch.from_numpy(np.array(extractor.extract("out0")[1]))[None]
with torch.no_grad():
    plain = queries.q(x).reshape(1, HEADS, 4, 80)
errors = {axis: float((result - F.normalize(plain, dim=axis)).abs().max()) for axis in (1, -1)}
assert errors[1] < 0.02 < 0.5 < errors[-1], f"changed: {errors}"
print("axis -1 asked for, axis 1 done")
PY
"$folder/env/bin/python" "$folder/normalize.py" "$folder" > "$folder/seen" 2>&1
grep -q "unsupported normalize" "$folder/seen"
tail -n 1 "$folder/seen"
