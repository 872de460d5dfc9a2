"""A run folder: what is in it, how it is written so that a kill at any moment loses nothing, how it is opened again.

recipe.toml          every value in force; `restormer train RUN/recipe.toml --out NEW` is the same run again
environment.json     versions, device, processes, threads, command line
metrics.jsonl        a line per iteration; per validation and rollback, the iteration as `validation`, `rolled_back`
weights.safetensors  the newest checkpoint's result (the average where the recipe keeps one)
checkpoints/         the newest `checkpoint.keep` states to go on from; `none-yet` until there is one
pictures/            up to four per validation: input, output, target
curves.png           loss, learning rate, PSNR; drawn when a run ends or is stopped
.lock                process id and host of who trains in it now
"""

import errno
import json
import os
import zipfile
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, Any

import torch

from restormer_cli.errors import Failed, RestormerError, UserError
from restormer_cli.files import locked, make_folder, sweep, write_atomically
from restormer_cli.recipe import Recipe
from restormer_cli.recipe_files import differences, resolved

FORMAT = 1
"""Version of the checkpoint format."""

LOCK = ".lock"

ACCEPT = "--accept-changes"


class Run:
    """The files of a run folder; only the main process writes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.pictures = folder / "pictures"
        self.metrics = folder / "metrics.jsonl"
        self.weights = folder / "weights.safetensors"
        self.first_to_come = self.checkpoints / "none-yet"

    def newest(self, *, sound: bool = False) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest whole checkpoint (`sound`: with a finite last step), or None; and what had to be passed over.

        Raises Failed for one that is there and cannot be read, UserError for another version's: to pass over these
        would be to train again what is not lost.
        """
        problems: list[str] = []
        for path in sorted(self.checkpoints.glob("*.pt"), reverse=True):
            try:
                state = _load(path)
            except RestormerError:
                raise
            except Exception as error:  # torn: zipfile, torch and pickle meet it with many kinds
                problems.append(f"{path}: is damaged ({_first_line(error)})")
                continue
            if not (sound and state["in_a_row"]):
                return state, problems
        return None, problems

    def iterations(self) -> list[int]:
        """Iterations of the checkpoints in the folder, whole or not; ascending."""
        return sorted(int(path.stem) for path in self.checkpoints.glob("*.pt") if path.stem.isdigit())

    def write(self, name: str, text: str) -> None:
        """A small text file, atomically."""
        write_atomically(self.folder / name, lambda stream: stream.write(text.encode()))

    def lock(self) -> AbstractContextManager[None]:
        """Held for the run's life: two runs in one folder would delete each other's checkpoints.

        Entering it raises UserError where another process holds it.
        """
        return locked(
            self.folder / LOCK,
            lambda holder: UserError(f"{self.folder}: {holder} trains in it: stop that one, or choose another --out"),
        )

    def expect_first(self) -> None:
        """Remember that no checkpoint has been yet: weights are written before the first one, and mean nothing then."""
        make_folder(self.checkpoints)
        write_atomically(self.first_to_come, lambda stream: None)
        _sync(self.checkpoints)

    def save(self, state: dict[str, Any], keep: int, *, later: bool = False, sound: int = 0) -> None:
        """A checkpoint, atomically and safely on the disk; older ones beyond `keep` go, and with `later` later ones.

        `sound`: the iteration of one that stays in any case, to go back to.

        Raises Failed where it cannot be written; the older ones are then still there.
        """
        make_folder(self.checkpoints)
        write_atomically(self.checkpoints / f"{state['iteration']:08d}.pt", lambda stream: _store(state, stream))
        _sync(self.checkpoints)  # the new name too is on the disk before an old file goes
        self.first_to_come.unlink(missing_ok=True)
        numbers = self.iterations()
        kept = [number for number in numbers if number <= state["iteration"]][-keep:]
        for number in set(numbers) - {*kept, sound}:
            if number > state["iteration"] and not later:
                continue
            (self.checkpoints / f"{number:08d}.pt").unlink(missing_ok=True)


class MetricsLog:
    """metrics.jsonl, open for appending; every line is flushed, so that others can follow it."""

    def __init__(self, path: Path, length: int) -> None:
        """Go on after `length` bytes: what a killed run wrote after its last checkpoint goes."""
        self.path = path
        try:
            self.stream: IO[bytes] = path.open("ab")
            kept = min(length, self.stream.tell())
            self.stream.truncate(_end_of_line(path, kept))
        except OSError as error:
            raise self._failed(error) from None

    def append(self, entry: dict[str, Any]) -> None:
        """One line. Raises Failed on a full disk."""
        try:
            self.stream.write(json.dumps(entry).encode() + b"\n")
            self.stream.flush()
        except OSError as error:
            raise self._failed(error) from None

    def sync(self) -> int:
        """Bring it to the disk; its length in bytes, for a checkpoint."""
        try:
            os.fsync(self.stream.fileno())
            return self.stream.tell()
        except OSError as error:
            raise self._failed(error) from None

    def close(self) -> None:
        with suppress(OSError):  # a full disk has been told already
            self.stream.close()

    def _failed(self, error: OSError) -> Failed:
        return Failed(f"{self.path}: cannot be written: {error.strerror}")


def check_unused(folder: Path, *, resume: bool) -> bool:
    """Whether there is no folder, or nothing in it; makes none. Raises UserError for one in use without `resume`."""
    try:
        unused = not folder.exists() or all(path.name == LOCK for path in folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot hold a run: {error.strerror}") from None
    if not (unused or resume):
        raise UserError(f"{folder}: is not empty: go on with --resume, or choose another --out")
    return unused


def make_run_folder(folder: Path) -> None:
    """Make it, with those above. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot hold a run: {error.strerror}") from None


def open_run(
    folder: Path, recipe: Recipe, *, resume: bool, accept_changes: bool
) -> tuple[dict[str, Any] | None, list[str]]:
    """Make or open a run folder: the checkpoint to go on from (None: afresh), and what the user should know.

    Raises UserError for a folder in use without `resume`, or a recipe that differs from the checkpoint's; what
    `Run.newest` raises.
    """
    run = Run(folder)
    make_run_folder(folder)
    if check_unused(folder, resume=resume):
        return None, [f"{folder}: nothing to go on from; a new training begins"] if resume else []
    for place in (run.folder, run.checkpoints, run.pictures):
        sweep(place)
    state, notes = run.newest()
    if state is None and not notes and run.first_to_come.exists():
        return None, [f"{folder}: ended before its first checkpoint; a new training begins"]
    if state is None and (notes or run.weights.is_file()):
        why = notes[0] if notes else f"{run.checkpoints}: no checkpoint is left"
        raise UserError(
            f"{why}; starting again would overwrite the trained weights: put a checkpoint back, or choose another --out"
        )
    if notes:
        where = f"from iteration {state['iteration']}, the one before" if state else ""
        notes = [f"{note}; going on {where}" for note in notes]
    if state is not None:
        changed = list(differences(json.loads(state["recipe"]), json.loads(resolved(recipe))))
        if changed and not accept_changes:
            raise UserError(
                f"{folder}: was trained with another recipe: {'; '.join(changed)}. Undo that, or go on with {ACCEPT}"
            )
        if state["iteration"] >= recipe.iterations:
            notes.append(f"{folder}: is finished: all {recipe.iterations:,} iterations are done")
        notes += [f"changed since iteration {state['iteration']}: {change}" for change in changed]
    return state, notes


def _store(state: dict[str, Any], stream: IO[bytes]) -> None:
    """torch.save, but a full disk is told as the system tells it, not as "unexpected pos 64 vs 0"."""
    told: list[OSError] = []

    class Listener:
        def write(self, data: bytes) -> int:
            try:
                return stream.write(data)
            except OSError as error:
                told.append(error)
                raise

        def flush(self) -> None:
            stream.flush()

    try:
        torch.save(state, Listener())  # pyright: ignore[reportArgumentType]
    except RuntimeError:
        if told:
            raise told[0] from None
        raise


def _load(path: Path) -> dict[str, Any]:
    """Raises something for a file that is not whole; torch alone does not look at the checksums.

    Raises Failed for one that cannot be read, UserError for another version's.
    """
    try:
        with path.open("rb") as stream:
            with zipfile.ZipFile(stream) as archive:
                broken = archive.testzip()
            if broken is not None:
                raise ValueError(f"{broken} has a wrong checksum")
            stream.seek(0)
            state = torch.load(stream, map_location="cpu", weights_only=True)
    except (OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which is a torn file's wrong offset
            raise Failed(f"{path}: cannot be read: {error.strerror}") from None
        if isinstance(error, MemoryError) or "memory" in str(error):
            raise Failed(f"{path}: not enough memory to read it") from None
        raise
    if state.get("format") != FORMAT:
        raise UserError(f"{path}: is another version's checkpoint: go on with that version, or give another --out")
    return state


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:80]


def _end_of_line(path: Path, length: int) -> int:
    """The end of the last whole line within so many bytes."""
    with path.open("rb") as stream:
        return stream.read(length).rfind(b"\n") + 1


def _sync(folder: Path) -> None:
    with suppress(OSError, AttributeError):  # Windows cannot open folders
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
