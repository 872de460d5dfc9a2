"""`restormer restore` with the document of `--json`, but without the diagnosis of each picture that `--json` brings.

python scripts/measure/undiagnosed.py IN OUT --weights FILE [--threads N] [--memory M] [--dry-run] [--skip-existing]

For measurements on many small pictures, whose diagnosis takes several times as long as restoring them does.
"""

import argparse
import sys
from pathlib import Path

from restormer_cli.commands.restore import run
from restormer_cli.commands.restore.document import RestoreDocument
from restormer_cli.commands.restore.types import Diagnosis, Request
from restormer_cli.errors import RestormerError


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--weights")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--memory")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--skip-existing", action="store_true")
    request = Request(**vars(parser.parse_args()), device="cpu")
    document = RestoreDocument(request)
    run.diagnose = lambda *_, **__: Diagnosis({}, "", None, "")  # of a dry run
    try:
        for _ in document.watch(run.restore(request)):
            pass
    except RestormerError as error:
        document.stopped(error)
    print(document.text())
    sys.exit(document.values()["exit_code"])


if __name__ == "__main__":
    main()
