"""Errors of settings files with their locations. Imported when one is raised."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from orchestra.core.errors import InputError, SourceLocation


def depth_error(path: Path, text: str, at: int, limit: int) -> InputError:
    """Returns the error of a file with more levels than `limit`, at a position in its text."""
    line, begin = text.count("\n", 0, at) + 1, text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    excerpt = text[begin : end if end >= 0 else len(text)]
    hint = f"use at most {limit} levels of tables, arrays and dotted keys"
    return InputError(
        "C003",
        f"{path.name} has too many levels",
        location=SourceLocation(str(path), line, at - begin + 1, excerpt),
        hint=hint,
    )


def toml_error(path: Path, text: str, error: tomllib.TOMLDecodeError) -> InputError:
    """Returns the error of a file that is not TOML, with the location that the parser states."""
    match = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
    lines = text.splitlines() or [""]
    line, column = (int(match[1]), int(match[2])) if match else (len(lines), 1)
    message = str(error)[: match.start()] if match else str(error).removesuffix(" (at end of document)")
    source_line = lines[min(line, len(lines)) - 1]
    return InputError(
        "C003",
        f"not TOML: {message}",
        location=SourceLocation(str(path), line, column, source_line),
        hint='write `key = "value"`; quote strings',
    )
