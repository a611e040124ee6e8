"""Locations of exceptions in user code: lines of a traceback, without values."""

from __future__ import annotations

import sysconfig
from functools import cache
from pathlib import Path
from types import CodeType
from typing import TypeAlias

from orchestra.core.untrusted_text import to_storable

MAX_FRAMES = 20
"""Maximum number of lines. Of a longer traceback, half are kept from each end."""
PACKAGE_FOLDER = str(Path(__file__).resolve().parent.parent) + "/"
"""The folder of Orchestra's own code."""

CodeLine: TypeAlias = tuple[CodeType, int]


def user_frames(error: BaseException) -> tuple[str, ...]:
    """Returns the traceback's lines of user code and the line that raised, the outermost first, as `FILE:LINE in
    FUNCTION`.
    """
    tool_frames = _tool_frames(error)
    user_code_frames = _user_code(tool_frames)
    user_code_frames += [place for place in tool_frames[-1:] if place not in user_code_frames[-1:]]
    lines = [to_storable(f"{code.co_filename}:{line} in {code.co_qualname}") for code, line in user_code_frames]
    return tuple(lines if len(lines) <= MAX_FRAMES else [*lines[: MAX_FRAMES // 2], *lines[-MAX_FRAMES // 2 :]])


def last_user_line(error: BaseException) -> str:
    """Returns the last line of user code as ` (FILE:LINE in FUNCTION)` without its folder; empty if there is none."""
    frames = _user_code(_tool_frames(error))
    return "".join(f" ({Path(code.co_filename).name}:{line} in {code.co_qualname})" for code, line in frames[-1:])


def _tool_frames(error: BaseException) -> list[CodeLine]:
    """Returns all lines from the function on that Orchestra called."""
    tool_frames: list[CodeLine] = []
    trace = error.__traceback__
    while trace is not None:
        if tool_frames or not _is_internal(trace.tb_frame.f_code.co_filename):
            tool_frames.append((trace.tb_frame.f_code, trace.tb_lineno))
        trace = trace.tb_next
    return tool_frames


def _user_code(tool_frames: list[CodeLine]) -> list[CodeLine]:
    """Returns the lines that are not in libraries. For an installed tool, its own package counts as user code."""
    beside = Path(tool_frames[0][0].co_filename).parent if tool_frames else None
    python, packages = _library_folders()
    return [
        (code, line)
        for code, line in tool_frames
        if Path(code.co_filename).parent == beside
        or not code.co_filename.startswith((PACKAGE_FOLDER, "<frozen", *python, *packages))
    ]


def _is_internal(name: str) -> bool:
    """Whether a file is Orchestra's or Python's own code between the engine and the user's function."""
    python, packages = _library_folders()
    return name.startswith((PACKAGE_FOLDER, "<frozen", *python)) and not name.startswith(packages)


@cache
def _library_folders() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the folders of Python's standard library and of installed packages."""
    paths = sysconfig.get_paths()
    return (f"{paths['stdlib']}/", f"{paths['platstdlib']}/"), tuple(f"{paths[key]}/" for key in ("purelib", "platlib"))
