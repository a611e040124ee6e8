"""Where a user's function raised: the lines of code that a traceback names, without any value that stood in them."""

from __future__ import annotations

import sysconfig
from functools import cache
from pathlib import Path
from types import CodeType
from typing import TypeAlias

from orchestra.core.untrusted_text import to_storable

MAX_FRAMES = 20
"""Lines that are kept; of more, as many from either end."""
PACKAGE_FOLDER = str(Path(__file__).resolve().parent.parent) + "/"
"""Where Orchestra's own code is."""

CodeLine: TypeAlias = tuple[CodeType, int]


def user_frames(error: BaseException) -> tuple[str, ...]:
    """The lines through which an exception came, the outermost first, as `FILE:LINE in FUNCTION`: the user's own, and
    that
    which raised.
    """
    found = _tool_frames(error)
    kept = _user_code(found)
    kept += [place for place in found[-1:] if place not in kept[-1:]]
    lines = [to_storable(f"{code.co_filename}:{line} in {code.co_qualname}") for code, line in kept]
    return tuple(lines if len(lines) <= MAX_FRAMES else [*lines[: MAX_FRAMES // 2], *lines[-MAX_FRAMES // 2 :]])


def last_user_line(error: BaseException) -> str:
    """The user's own line that was the last, as ` (FILE:LINE in FUNCTION)` without its folder; empty where there is
    none.
    """
    own = _user_code(_tool_frames(error))
    return "".join(f" ({Path(code.co_filename).name}:{line} in {code.co_qualname})" for code, line in own[-1:])


def _tool_frames(error: BaseException) -> list[CodeLine]:
    """All lines from the function on that Orchestra called."""
    found: list[CodeLine] = []
    trace = error.__traceback__
    while trace is not None:
        if found or not _is_internal(trace.tb_frame.f_code.co_filename):
            found.append((trace.tb_frame.f_code, trace.tb_lineno))
        trace = trace.tb_next
    return found


def _user_code(found: list[CodeLine]) -> list[CodeLine]:
    """Those that are no library's; but a tool that is installed is the user's own as well, with what lies beside it."""
    beside = Path(found[0][0].co_filename).parent if found else None
    python, packages = _library_folders()
    return [
        (code, line)
        for code, line in found
        if Path(code.co_filename).parent == beside
        or not code.co_filename.startswith((PACKAGE_FOLDER, "<frozen", *python, *packages))
    ]


def _is_internal(name: str) -> bool:
    """Whether a file is Orchestra's or Python's own, by which a call comes to the user's function."""
    python, packages = _library_folders()
    return name.startswith((PACKAGE_FOLDER, "<frozen", *python)) and not name.startswith(packages)


@cache
def _library_folders() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The folders of Python's own library, and of the packages that are installed."""
    paths = sysconfig.get_paths()
    return (f"{paths['stdlib']}/", f"{paths['platstdlib']}/"), tuple(f"{paths[key]}/" for key in ("purelib", "platlib"))
