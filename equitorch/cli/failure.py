"""What a user sees when something goes wrong: one short screen, an exit code, never a traceback."""

from __future__ import annotations

import difflib
import sys
import traceback
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

OK, INTERNAL, USER, DIVERGED, INTERRUPTED = 0, 1, 2, 3, 130

_folder: list[Path] = []


def logs_to(folder: Path | None) -> None:
    """Name the folder whose ``error.log`` receives the traceback of a failure."""
    _folder[:] = [folder] if folder is not None else []


class UserError(ValueError):
    """Something the user can put right; its text is the whole message."""


class Diverged(FloatingPointError):
    """A run whose numbers left the physical range; exit code 3."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest of the known words, or nothing.

    >>> nearest("trian.xyz", ["test.xyz", "train.xyz"])
    "; did you mean 'train.xyz'?"
    """
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{match[0]}'?" if match else ""


def existing(path: str | Path, what: str = "file") -> Path:
    """Return the path, or say that it does not exist and which neighbour comes nearest.

    Args:
        path: what the user wrote.
        what: the word for it in the message.

    Raises:
        UserError: if nothing is there.
    """
    path = Path(path)
    try:
        if path.exists():
            return path
        folder = path.parent
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"{what} '{path}' cannot be read: {error.strerror or error}") from error
    if not folder.is_dir():
        raise UserError(f"{what} '{path}' not found: there is no folder '{folder}'")
    raise UserError(f"{what} '{path}' not found{nearest(path.name, names)}")


def exit_code(error: BaseException) -> int:
    """Sort an exception into ok, user error, divergence, interruption or a fault of this library.

    >>> exit_code(UserError("no such file")), exit_code(KeyboardInterrupt()), exit_code(KeyError("x"))
    (2, 130, 1)
    """
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":  # the parser's, at a Ctrl-C
        return INTERRUPTED
    if isinstance(error, FloatingPointError):  # Diverged, or DivergedError of a training
        return DIVERGED
    if isinstance(error, ValueError | OSError | NotImplementedError):  # the library's errors are ValueErrors
        return USER
    return INTERNAL


def describe(error: BaseException, code: int) -> str:
    """Return the message of an error as the screen shows it: no class names, no stack."""
    if code == INTERRUPTED:
        return "Interrupted."
    if isinstance(error, OSError) and error.strerror:
        return f"'{error.filename}': {error.strerror}" if error.filename else error.strerror
    if code == INTERNAL:
        return f"this is a fault of equitorch, not yours: {type(error).__name__}: {error}"
    return str(error) or type(error).__name__


def write_log(error: BaseException, folder: Path | None = None) -> Path | None:
    """Append the traceback to ``error.log`` in the folder (that of :func:`logs_to` by default).

    What the user can put right is not logged, of a divergence the message alone. A folder that is not there,
    or cannot be written, is no second error.
    """
    folder = folder if folder is not None else next(iter(_folder), None)
    mistake = isinstance(error, UserError) or type(error).__name__ == "ConfigError"
    if folder is None or not folder.is_dir() or mistake:
        return None
    log = folder / "error.log"
    if isinstance(error, FloatingPointError):
        text = f"{error}\n"
    else:
        text = "".join(traceback.format_exception(error))
    try:
        with log.open("a", encoding="utf-8") as stream:
            stamp = datetime.now().isoformat(timespec="seconds")
            stream.write(f"# {stamp}  equitorch {' '.join(sys.argv[1:])}\n{text}\n")
    except OSError:
        return None
    return log
