#!/bin/sh
set -eu
folder=$(mktemp -d)
trap "rm -rf $folder" EXIT
python3 -m venv "$folder/env"

"$folder/env/bin/pip" install -q numpy==2.3.5 onnx==1.23.2 ncnn==1.0.20261020 pnnx==20261020
# pnnx 20261020 to ncnn 1.0.20261020, seen: "opset 12 (1, 4, 8)", "opset 18 (1, 4, 8, 10)". A sum over the rows of each plane,
# in ONNX: where the axes are an attribute, as ReduceSum has them up to opset 12, ncnn's graph sums over them; where they are an
# input, as torch.onnx writes them today, it sums over no axis at all, and pnnx ends well.
cat > "$folder/sum.py" <<'PY'
import subprocess
import sys

import ncnn
import numpy as np
import onnx
from onnx import TensorProto, helper

opset, pnnx, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
one_by_one = np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)
constants = [helper.make_tensor("w", TensorProto.FLOAT, (4, 4, 1, 1), one_by_one.ravel())]
if opset < 13:
    total = helper.make_node("ReduceSum", ["y"], ["z"], axes=[3], keepdims=0)
else:
    constants.append(helper.make_tensor("axes", TensorProto.INT64, (1,), [3]))
    total = helper.make_node("ReduceSum", ["y", "axes"], ["z"], keepdims=0)
graph = helper.make_graph(
    [helper.make_node("Conv", ["x", "w"], ["y"]), total],
    "sum",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 8, 10))],
    [helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, 4, 8))],
    constants,
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, f"{folder}/m{opset}.onnx")
subprocess.run([pnnx, f"m{opset}.onnx", "inputshape=[1,4,8,10]f32"], cwd=folder, check=True, stdout=subprocess.DEVNULL,
               stderr=subprocess.DEVNULL)

network = ncnn.Net()
assert network.load_param(f"{folder}/m{opset}.ncnn.param") == network.load_model(f"{folder}/m{opset}.ncnn.bin") == 0
extractor = network.create_extractor()
x = np.ones((4, 8, 10), np.float32)
extractor.input("in0", ncnn.Mat(x).clone())
shape = (1, *np.array(extractor.extract("out0")[1]).shape)
print(f"opset {opset} {shape}")
assert shape == ((1, 4, 8) if opset < 13 else (1, 4, 8, 10)), "changed"
PY
for opset in 12 18; do
    "$folder/env/bin/python" "$folder/sum.py" $opset "$folder/env/bin/pnnx" "$folder"
done
