"""How the processes that are timed begin."""

import subprocess
import sys

import pytest

BEGIN = """
import os, sys, types
sys.modules["torch"] = types.SimpleNamespace(set_num_threads=lambda threads: None)
import restormer_cli
from restormer_cli.benchmark.timing import _set_up
_set_up(3, ours={ours})
print(os.environ.get("OMP_WAIT_POLICY"), os.environ["OMP_NUM_THREADS"])
"""


@pytest.mark.parametrize(("ours", "waiting"), [(True, "passive"), (False, None)])
def test_peers_wait_as_pytorch_has_it(ours: bool, waiting: str | None) -> None:
    code = BEGIN.format(ours=ours)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(waiting), "3"]
