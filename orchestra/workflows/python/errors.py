"""Errors in workflow functions: the user's line, its text, and the code to write instead.

The location is that of the frame that called into this package: its instruction has a line and columns (`co_positions`,
Python 3.11 and later). The text of the line comes from `linecache`, which has files and notebook cells. Without it the
report has no caret.
"""

from __future__ import annotations

import ast
import linecache
import os
import sys
import sysconfig
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FrameType

from orchestra.core.errors import InputError, SourceLocation
from orchestra.workflows.python.suggestions import Position, TryBlock, rewrite, swallowing_blocks, to_comprehension


class UnknownValue:
    """Base class of values that are not known while a workflow function is traced."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class CodeLocation:
    """An instruction of a code object: a frame's position without the frame. `offset` is in bytes, -1 for none."""

    code: CodeType
    offset: int

    @property
    def position(self) -> tuple[int, int, int, int]:
        """First line, last line, first column, last column. Columns count UTF-8 bytes from 0."""
        positions = list(self.code.co_positions()) if 0 <= self.offset < len(self.code.co_code) else [(None,) * 4]
        return to_position(self.code, positions[self.offset // 2 if len(positions) > 1 else 0])

    @property
    def is_foreign(self) -> bool:
        """Whether the code belongs to the standard library or an installed package."""
        return self.code.co_filename.startswith(_library_paths()) and not _in_project(self.code.co_filename)


def to_position(code: CodeType, found: tuple[int | None, ...]) -> Position:
    """Returns the position of an instruction from `co_positions`, with gaps filled."""
    line, end, column, end_column = found
    line = line or code.co_firstlineno
    return line, end or line, column or 0, end_column or 0


@lru_cache(maxsize=1)
def _library_paths() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return (*{paths[key] + os.sep for key in ("stdlib", "platstdlib", "purelib", "platlib")}, "<frozen ")


def _in_project(file: str) -> bool:
    return not file.startswith("<") and not os.path.exists(file) and file in linecache.cache


def _is_own_frame(frame: FrameType) -> bool:
    """Whether a frame belongs to this package."""
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "orchestra"


def caller_stack() -> list[CodeLocation]:
    """Returns the locations of the frames outside of this package, innermost first."""
    code_locations: list[CodeLocation] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not _is_own_frame(frame):
            code_locations.append(CodeLocation(frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return code_locations


def user_stack() -> tuple[CodeLocation, ...]:
    """Returns the location of the frame that called into this package, and of its callers up to the next frame of this
    package.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_own_frame(frame):
        frame = frame.f_back
    code_locations: list[CodeLocation] = []
    while frame is not None and not _is_own_frame(frame):
        code_locations.append(CodeLocation(frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(code_locations)


def user_location() -> CodeLocation:
    """Returns the location of the frame that called into this package."""
    frame = sys._getframe(1)
    while _is_own_frame(frame) and frame.f_back is not None:
        frame = frame.f_back
    return CodeLocation(frame.f_code, frame.f_lasti)


def user_locals() -> dict[str, object]:
    """Returns the local names of the frame that called into this package. They may include types of a decorated
    function.
    """
    frame = sys._getframe(1)
    while _is_own_frame(frame) and frame.f_back is not None:
        frame = frame.f_back
    return dict(frame.f_locals)


def innermost_user_location(error: BaseException, user_files: Collection[str]) -> CodeLocation | None:
    """Returns the innermost user line of an exception's traceback. `user_files` are user code wherever they are."""
    trace, last = error.__traceback__, None
    while trace is not None:
        location = CodeLocation(trace.tb_frame.f_code, trace.tb_lasti)
        if not _is_own_frame(trace.tb_frame) and (not location.is_foreign or location.code.co_filename in user_files):
            last = location
        trace = trace.tb_next
    return last


def function_error(name: str, error: Exception, file: str) -> InputError:
    """Returns the error of a workflow function in `file` that raised an exception while it was traced."""
    location, text = innermost_user_location(error, (file,)), " ".join(_exception_text(error).split())
    description = f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
    return InputError(
        "W028",
        f"reading the workflow {name} failed: {description}",
        location=location_of(location) if location is not None else None,
        why="the body of a workflow runs once, before any value is known",
        hint="correct this line; code that needs the values of a run belongs in a tool",
    )


def _exception_text(error: Exception) -> str:
    """Returns the text of an exception. Unknown values are shown by their expression, since they have no text."""
    if any(issubclass(type(part), UnknownValue) for part in error.args):
        return ", ".join(map(repr, error.args))
    return str(error)


def location_of(location: CodeLocation) -> SourceLocation:
    """Returns the source location of an instruction, with the text of its line if the source is available."""
    line, end, first, last = location.position if location.offset >= 0 else _definition(location)
    text = linecache.getline(location.code.co_filename, line).rstrip("\r\n")
    column = _character_count(text, first) if text else first
    width = _character_count(text, last) - column if end == line else len(text) - column
    return SourceLocation(_display_path(location.code.co_filename), line, column + 1, text, max(1, width))


def _definition(location: CodeLocation) -> tuple[int, int, int, int]:
    """Returns the position of a function's `def`, below its decorators."""
    start = location.code.co_firstlineno
    for line in range(start, start + 40):
        text = linecache.getline(location.code.co_filename, line)
        if text.lstrip().startswith(("def ", "async def ")):
            indent = len(text) - len(text.lstrip())
            return line, line, indent, len(text.rstrip().encode())
    return start, start, 0, 0


def _character_count(text: str, size: int) -> int:
    """Returns the number of characters in the first bytes of a text."""
    return len(text.encode()[:size].decode("utf-8", "ignore"))


def _display_path(file: str) -> str:
    """Returns a file's path, relative if it is below the working directory."""
    if not os.path.isabs(file):
        return file
    try:
        below = os.path.relpath(file)
    except (ValueError, OSError):  # another drive, or a deleted working directory
        return file
    return file if below.startswith(os.pardir) else below


@lru_cache(maxsize=8)
def _parse_source(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        return None


def source_tree(location: CodeLocation) -> ast.Module | None:
    """Returns the syntax tree of a location's file, if the source is available."""
    return _parse_source("".join(linecache.getlines(location.code.co_filename)))


def rewrite_hint(location: CodeLocation) -> str:
    """Returns the code at a location rewritten for unknown values; empty if there is no rule or no source."""
    tree = source_tree(location)
    return rewrite(tree, location.position) if tree is not None else ""


def try_blocks_at(location: CodeLocation) -> list[TryBlock]:
    """Returns the blocks that catch every exception in a location's file, if its source is available."""
    tree = source_tree(location)
    return swallowing_blocks(tree) if tree is not None else []


def comprehension_hint(location: CodeLocation) -> str:
    """Returns the `map_` or `filter_` at a location as a comprehension, for known items; empty if the source is
    missing.
    """
    tree = source_tree(location)
    return to_comprehension(tree, location.position) if tree is not None else ""


def called_at(location: CodeLocation) -> str:
    """Returns the name of the function whose call is at a location, as written; empty if the source is missing."""
    tree = source_tree(location)
    if tree is None:
        return ""
    line, end, first, last = location.position
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (node.lineno, node.col_offset) <= (line, first)
        and (node.end_lineno or 0, node.end_col_offset or 0) >= (end, last)
    ]
    inner = max(calls, key=lambda node: (node.lineno, node.col_offset, -(node.end_col_offset or 0)), default=None)
    return ast.unparse(inner.func) if inner is not None else ""


def unknown_effect_error(tool: str, effect: object, known: Sequence[str]) -> InputError:
    """Returns the error W017 of a tool without a valid effect."""
    said_so = "does not declare its effect" if effect is None else f"has no effect {effect!r}"
    hint = "@tool(effect='pure'), or one of " + ", ".join(known[1:])
    return error_at("W017", f"{tool} {said_so}", hint=hint, why="retries depend on it")


def unknown_label_error(tool: str, label: object, known: Sequence[str]) -> InputError:
    """Returns the error W017 of a tool with an unknown label."""
    return error_at("W017", f"{tool} has no label {label!r}", hint=f"label= is one of {', '.join(known)}")


def error_at(
    code: str, message: str, *, hint: str = "", why: str = "", location: CodeLocation | None = None
) -> InputError:
    """Returns an error at the user's line."""
    return InputError(code, message, location=location_of(location or user_location()), hint=hint, why=why)
