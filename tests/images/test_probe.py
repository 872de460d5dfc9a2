"""The size of a picture from its header is the size that it is read with."""

import importlib.util
import sys
from pathlib import Path

import pytest
from PIL import Image

from restormer_cli.errors import UserError
from restormer_cli.images.io import decode_picture, picture_size


def _hostile():
    spec = importlib.util.spec_from_file_location("hostile", Path(__file__).with_name("test_hostile_pictures.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["hostile"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_header_tells_the_size_of_every_kind_of_file(tmp_path):
    for name, data in _hostile().corpus().items():
        path = tmp_path / "picture"
        path.write_bytes(data)
        assert picture_size(path) == decode_picture(data, name).pixels.shape[:2], name


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("form", ["JPEG", "TIFF", "WEBP"])
def test_a_turned_picture_has_its_sides_swapped(tmp_path, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (30, 20)).save(tmp_path / "p", form, exif=exif)
    assert picture_size(tmp_path / "p") == ((30, 20) if orientation >= 5 else (20, 30))


def test_what_is_no_picture_is_one_line(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing of the kind")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name, message in (("a.png", "not a picture"), ("b.png", ""), ("c.png", "cannot be read: No such file")):
        with pytest.raises(UserError, match=f"{name}: .*{message}") as caught:
            picture_size(tmp_path / name)
        assert "\n" not in str(caught.value)
