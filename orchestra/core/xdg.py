"""Base directories of the user (https://specifications.freedesktop.org/basedir-spec). A user in a container may have no
home.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestra.core.errors import InputError


def base_folder(environ: Mapping[str, str], variable: str, default: str, *alternatives: str) -> Path:
    """Returns the folder of a variable, or a folder in the home directory. Relative values are ignored, as the
    specification demands.

    Raises:
        InputError: C050 without a variable and a home; `alternatives` are other settings for the hint.
    """
    root = Path(environ.get(variable) or "")
    return root if root.is_absolute() else home_folder(environ, variable, *alternatives) / default


def home_folder(environ: Mapping[str, str], *alternatives: str) -> Path:
    """Returns the home directory. Raises `InputError` C050 without one; `alternatives` go into the hint."""
    try:
        return Path(environ.get("HOME") or Path.home())
    except RuntimeError as error:
        raise no_home_error(*alternatives) from error


def expand_home(path: str | Path) -> Path:
    """Expands `~` in a path. Raises `InputError` C050 without a home directory."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise no_home_error(f"write the full path instead of {path}") from error


def no_home_error(*alternatives: str) -> InputError:
    """Returns the error of a user without a home directory."""
    reason = "the variable HOME is not set, and this user is not in /etc/passwd"
    return InputError("C050", "there is no home folder", why=reason, hint=f"set HOME, or {', or '.join(alternatives)}")
