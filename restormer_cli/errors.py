"""Every error that a user can cause, and how text becomes one line of a message.

    RestormerError
    ├── UserError        the request, recipe or input is wrong      exit 2
    ├── CheckFailed      a result fell below its threshold          exit 4
    └── Failed           the work could not be done                 exit 1
        ├── NoRoom       nothing more can be written there          exit 1
        └── AlreadyThere somebody else has made the file meanwhile  exit 1

The message is one line: what was wrong, where, and the cure. `cli` prints it in red and exits;
anything that is not a RestormerError is a defect of ours and keeps its traceback.
"""


class RestormerError(Exception):
    """An outcome that the command line reports as one line and an exit code."""

    exit_code = 1


class UserError(RestormerError):
    """The request, the recipe or an input file is wrong; the message names the cure."""

    exit_code = 2


class CheckFailed(RestormerError):
    """A result is sound but fell below the threshold it was asked to meet."""

    exit_code = 4


class Failed(RestormerError):
    """The request was right but the work could not be done (permission denied, no memory, …)."""

    exit_code = 1


class NoRoom(Failed):
    """The disk is full, the quota used up, the medium read-only: the next file would fare no better."""


class AlreadyThere(Failed):
    """A file that was to be new appeared while it was made; it is left as it is."""


def printable(text: str) -> str:
    """Text without control characters, which file names may hold."""
    return "".join(c if c.isprintable() else "?" for c in text)


def one_line(text: str) -> str:
    """Text without line breaks and control characters, for a message."""
    return printable(" ".join(text.split()))
