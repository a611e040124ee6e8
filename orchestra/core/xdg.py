"""Folders of whoever runs this (https://specifications.freedesktop.org/basedir-spec); in a container he may have no home."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestra.core.errors import InputError


def base_folder(environ: Mapping[str, str], variable: str, default: str, *alternatives: str) -> Path:
    """The root that a variable names, else a folder of the home; a relative root is to be ignored, says the specification.

    Raises `InputError` C050 where neither is there; `instead` is what else may be set.
    """
    root = Path(environ.get(variable) or "")
    return root if root.is_absolute() else home_folder(environ, variable, *alternatives) / default


def home_folder(environ: Mapping[str, str], *alternatives: str) -> Path:
    """The home folder. Raises `InputError` C050 where there is none; `instead` is what may be set for it."""
    try:
        return Path(environ.get("HOME") or Path.home())
    except RuntimeError as error:
        raise no_home_error(*alternatives) from error


def expand_home(path: str | Path) -> Path:
    """A path with the home folder for a `~`. Raises `InputError` C050."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise no_home_error(f"the whole path instead of {path}") from error


def no_home_error(*alternatives: str) -> InputError:
    """The error of a user without a home."""
    why = "the variable HOME is not set, and this user is not in the system's list (/etc/passwd)"
    return InputError("C050", "there is no home folder", why=why, hint=f"set HOME, or {', or '.join(alternatives)}")
