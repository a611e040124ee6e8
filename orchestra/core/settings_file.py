"""Settings files: TOML with a limit of size and of nesting, both checked before the text is parsed.

`tomllib` recurses once for each nested array or table, and takes quadratic time for a dotted key. So the levels of a text are counted
without parsing it. A file that passes costs little time, whatever it holds.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra.core import trust
from orchestra.core.errors import InputError, SourceLocation

MAX_BYTES = 64 << 10
"""Bytes of a settings file at most."""
MAX_LEVELS = 16
"""Levels of a settings file at most: the parts of a table's name and of a dotted key, and arrays and tables inside each other."""
MAX_INTEGER = 1 << 63
"""TOML promises integers of 64 bits; Python prints no integer of more than 4,300 digits."""
SECTION = "tool.orchestra"
"""The table of `pyproject.toml` that holds settings."""
_TOKENS = re.compile(
    r"""
      (?P<string> \"{3} (?: [^\\\"] | \\. | \"(?!\"\") )*+ (?: \"{3,5} | \\?\Z )
                | '{3} (?: [^'] | '(?!'') )*+ (?: '{3,5} | \Z )
                | \" (?: [^"\\\n] | \\. )*+ (?: \" | (?=\n) | \Z )?
                | ' [^'\n]*+ (?: ' | (?=\n) | \Z ) )
    | (?P<comment> \# [^\n]*+ )
    | (?P<mark> [\[\]{}=.,\n] )
    """,
    re.VERBOSE | re.DOTALL,
)
"""What the levels of a TOML text depend on. A string without an end goes as far as TOML lets it: the text behind it is never parsed."""


@dataclass(frozen=True)
class SettingsFile:
    """A settings file that was read."""

    path: Path
    table: Mapping[str, Any]
    lines: tuple[str, ...]
    header: str
    """The TOML table that holds the settings; empty for the top level."""

    def location(self, key: str, start: Path) -> SourceLocation:
        """The line of a key. `tomllib` keeps no lines, so the key is searched; else the header of its table, else line 1."""
        name = str(self.path.relative_to(start)) if self.path.is_relative_to(start) else str(self.path)
        inside, fallback = not self.header, 1
        wanted = re.compile(rf"""\s*(["']?){re.escape(key)}\1\s*[=.]""")
        for number, line in enumerate(self.lines, 1):
            if table := re.match(r"\s*\[+\s*([^]]*?)\s*\]", line):
                if (inside and table[1] == key) or table[1] == f"{self.header}.{key}":
                    return SourceLocation(name, number, line.index("[") + 1, line, len(line.strip()))
                inside = table[1] == self.header
                fallback = number if inside else fallback
            elif inside and wanted.match(line):
                return SourceLocation(name, number, len(line) - len(line.lstrip()) + 1, line, len(key))
        return SourceLocation(name, fallback, 1, self.lines[fallback - 1] if self.lines else "")


def settings_path(folder: Path) -> Path | None:
    """The settings file of a folder: `orchestra.toml`, else a `pyproject.toml`, which need not hold settings."""
    return next((path for name in ("orchestra.toml", "pyproject.toml") if os.path.isfile(path := folder / name)), None)


def find(folder: Path, policy: trust.TrustPolicy, environ: Mapping[str, str]) -> SettingsFile | None:
    """The settings of a folder, if it has any.

    Raises:
        InputError: C003 for a file that cannot be read, C061 for a link out of a folder that is not trusted.
    """
    if (path := settings_path(folder)) is None:
        return None
    if policy == "recorded":
        trust.check_settings_file(path, environ)
    return read(path)


def read(path: Path) -> SettingsFile | None:
    """The settings of a file; None for a `pyproject.toml` without the table `tool.orchestra`.

    Raises:
        InputError: C003 for a file that cannot be read, is too large, has too many levels, or is not TOML.
    """
    shared = path.name == "pyproject.toml"
    data = _read_bytes(path, MAX_BYTES << 4 if shared else MAX_BYTES)
    if shared and b"orchestra" not in data:
        return None
    if len(data) > MAX_BYTES:
        hint = "move [tool.orchestra] into an orchestra.toml; an empty one beside this file will do" if shared else "settings are small"
        raise InputError("C003", f"{path} is larger than {MAX_BYTES >> 10} KiB", hint=hint)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("C003", f"{path} cannot be read: {error}") from error
    table: Any = _parse(path, text)
    header = SECTION if shared else ""
    for part in header.split(".") if header else ():
        table = table.get(part) if isinstance(table, Mapping) else None
    if shared and table is None:
        return None
    if not isinstance(table, Mapping):
        raise InputError("C003", f"{path}: {header} is no table")
    if _has_large_integer(table):
        raise InputError("C003", f"{path}: an integer has more than 64 bits")
    return SettingsFile(path, table, tuple(text.splitlines()), header)


def check_levels(path: Path, text: str) -> None:
    """Counts the levels of a TOML text.

    Raises:
        InputError: C003 with the place where the text exceeds `MAX_LEVELS`.
    """
    table = depth = dots = 0
    header, is_value, outer = False, False, list[tuple[int, bool]]()
    for token in _TOKENS.finditer(text):
        mark = token["mark"]
        if mark == ".":
            dots += not is_value  # the dot of a number is no level
        elif mark == "[" and not (outer or header) and _is_line_start(text, token.start()):
            header, dots = True, 0
        elif mark == "\n":
            if header:
                table, header = dots + 1, False
            depth = depth if outer else table
            dots, is_value = 0, _in_array(outer)
        elif mark is None or header:
            continue
        elif mark == "=":
            is_value = True
        elif mark in "[{":
            outer.append((depth, mark == "["))
            depth, dots, is_value = depth + dots + 1, 0, mark == "["
        else:
            depth = outer.pop()[0] if mark in "]}" and outer else depth
            dots, is_value = 0, _in_array(outer)
        if mark in ".[{=" and (0 if header else depth) + dots + 1 > MAX_LEVELS:
            raise _depth_error(path, text, token.start())


def _in_array(outer: Sequence[tuple[int, bool]]) -> bool:
    return bool(outer) and outer[-1][1]


def _is_line_start(text: str, at: int) -> bool:
    return not text[text.rfind("\n", 0, at) + 1 : at].strip(" \t\r\ufeff")


def _depth_error(path: Path, text: str, at: int) -> InputError:
    line, begin = text.count("\n", 0, at) + 1, text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    shown = text[begin : end if end >= 0 else len(text)]
    hint = f"at most {MAX_LEVELS} levels of tables, arrays and dotted keys are read"
    return InputError(
        "C003", f"{path.name} has too many levels", location=SourceLocation(str(path), line, at - begin + 1, shown), hint=hint
    )


def _parse(path: Path, text: str) -> Mapping[str, Any]:
    """The tables of a TOML text. Raises `InputError` C003."""
    check_levels(path, text)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _toml_error(path, text, error) from error
    except (ValueError, RecursionError) as error:  # an integer of more than 4,300 digits; RecursionError only by a fault of `check_levels`
        raise InputError("C003", f"{path} cannot be read: {error}", hint="settings are small") from error


def _toml_error(path: Path, text: str, error: tomllib.TOMLDecodeError) -> InputError:
    where = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
    lines = text.splitlines() or [""]
    line, column = (int(where[1]), int(where[2])) if where else (len(lines), 1)
    message = str(error)[: where.start()] if where else str(error).removesuffix(" (at end of document)")
    shown = lines[min(line, len(lines)) - 1]
    return InputError(
        "C003",
        f"not TOML: {message}",
        location=SourceLocation(str(path), line, column, shown),
        hint='write `key = "value"`; texts in quotes',
    )


def _read_bytes(path: Path, limit: int) -> bytes:
    """The bytes of a file, at most one more than the limit. Raises `InputError` C003."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise InputError("C003", f"{path} cannot be read: {error}") from error


def _has_large_integer(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_large_integer, value.values()))
    if isinstance(value, list):
        return any(map(_has_large_integer, value))
    return isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER
