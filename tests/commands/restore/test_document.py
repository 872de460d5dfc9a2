"""The JSON document of `restore`: kept as text, file by file, it is what all of its values at once would be."""

import json
import tracemalloc
from pathlib import Path

import pytest

from restormer_cli.commands.restore.document import RestoreDocument
from restormer_cli.commands.restore.types import Diagnosis, Request, Restored


def restored(number: int) -> Restored:
    findings = {
        f"finding {index}": {"value": number + index / 7, "words": f"{number} of {index}"} for index in range(30)
    }
    diagnosis = Diagnosis(findings, "noisy", "denoise", "its noise", followed=True)
    name = f'{number}\n "files": [].png'
    return Restored(Path(name), Path("out") / name, width=30, height=20, seconds=0.5, plan="whole", diagnosis=diagnosis)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_text_is_that_of_the_values(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    document = RestoreDocument(Request(Path('\n "files": []'), Path("out")))
    failed = Restored(Path("bad.png"), Path("out/bad.png"), error="bad.png: no picture", error_code=1)
    events = [restored(number) for number in range(count)] + [failed] * (count > 1)
    assert list(document.watch(events)) == events
    values = document.values()
    assert document.text() == json.dumps(values, indent=1, allow_nan=False, default=str)
    assert [file["status"] for file in values["files"]] == ["restored"] * count + ["failed"] * (count > 1)
    assert (values["summary"]["restored"], values["summary"]["megapixels"]) == (count, count * 600 / 1e6)
    assert values["exit_code"] == (3 if count > 1 else 0)


def test_a_file_takes_little_more_than_its_text() -> None:
    document = RestoreDocument(Request(Path("in"), Path("out")))
    tracemalloc.start()
    for _ in document.watch(restored(number) for number in range(200)):
        pass
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1.5 * len(document.text())
