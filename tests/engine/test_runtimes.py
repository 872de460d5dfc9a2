"""Files that hold graphs: what is not ours, or damaged, is one line."""

import zipfile
from pathlib import Path

import pytest

from restormer_cli.engine.runtimes import Exported
from restormer_cli.errors import UserError


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".xml"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not at all", b"<net></net>"])
def test_a_damaged_or_foreign_file_is_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    for package in {".onnx": ["onnxruntime"], ".xml": ["openvino"]}.get(suffix, []):
        pytest.importorskip(package, reason="pip install 'restormer-cli[export,openvino]'")
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"x{suffix}: ") as error:
        Exported(path)
    assert "\n" not in str(error.value)


def test_a_package_without_our_notes_is_refused_before_anything_in_it_runs(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as package:
        package.writestr("model/data/aotinductor/model/x.so", b"machine code")
    with pytest.raises(UserError, match="was not written by `restormer export`"):
        Exported(tmp_path / "x.pt2")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Exported(tmp_path / "x.onnx")
