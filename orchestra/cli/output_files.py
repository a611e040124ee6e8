"""Files for results: looked for before the work that makes them, so that nothing is done in vain, and faults with a code."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from orchestra.core.errors import OrchestraError


def check_writable(target: Path, option: str, *, folder: bool = False) -> None:
    """Refuses a file, or a `folder`, that cannot be written, before there is anything to write. Raises `OrchestraError` C023."""
    there = next(path for path in (target, *target.absolute().parents) if os.path.lexists(path))
    if there.is_dir() != (folder or there != target):
        reason = "it is a folder" if there.is_dir() else f"{there} is no folder"
    elif not os.access(there, os.W_OK):
        reason = f"{there} may not be written"
    else:
        return
    raise _write_error(target, reason, option)


def check_replaceable(target: Path, option: str) -> None:
    """The same for a file that another one is put in the place of: its folder decides. Raises `OrchestraError` C023."""
    if target.is_dir():
        raise _write_error(target, "it is a folder", option)
    check_writable(target.parent, option, folder=True)


@contextlib.contextmanager
def writing_output(target: Path, option: str) -> Iterator[None]:
    """What is done in here writes `target`, whose folder is made. Raises `OrchestraError` C023 where it fails."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise _write_error(target, error.strerror or str(error), option) from error


def _write_error(target: Path, reason: str, option: str) -> OrchestraError:
    return OrchestraError("C023", f"{target} cannot be written: {reason}", hint=f"name another with {option}")
