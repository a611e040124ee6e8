"""Where a user's function raised: the lines of code that a traceback names, without any value that stood in them."""

from __future__ import annotations

import sysconfig
from functools import cache
from pathlib import Path
from types import CodeType
from typing import TypeAlias

from orchestra.core.untrusted_text import keepable

MOST = 20
"""Lines that are kept; of more, as many from either end."""
OURS = str(Path(__file__).resolve().parent.parent) + "/"
"""Where Orchestra's own code is."""

Place: TypeAlias = tuple[CodeType, int]


def frames(error: BaseException) -> tuple[str, ...]:
    """The lines through which an exception came, the outermost first, as `FILE:LINE in FUNCTION`: the user's own, and that which raised."""
    found = _called(error)
    kept = _own(found)
    kept += [place for place in found[-1:] if place not in kept[-1:]]
    lines = [keepable(f"{code.co_filename}:{line} in {code.co_qualname}") for code, line in kept]
    return tuple(lines if len(lines) <= MOST else [*lines[: MOST // 2], *lines[-MOST // 2 :]])


def place(error: BaseException) -> str:
    """The user's own line that was the last, as ` (FILE:LINE in FUNCTION)` without its folder; empty where there is none."""
    own = _own(_called(error))
    return "".join(f" ({Path(code.co_filename).name}:{line} in {code.co_qualname})" for code, line in own[-1:])


def _called(error: BaseException) -> list[Place]:
    """All lines from the function on that Orchestra called."""
    found: list[Place] = []
    trace = error.__traceback__
    while trace is not None:
        if found or not _between(trace.tb_frame.f_code.co_filename):
            found.append((trace.tb_frame.f_code, trace.tb_lineno))
        trace = trace.tb_next
    return found


def _own(found: list[Place]) -> list[Place]:
    """Those that are no library's; but a tool that is installed is the user's own as well, with what lies beside it."""
    beside = Path(found[0][0].co_filename).parent if found else None
    python, packages = _folders()
    return [
        (code, line)
        for code, line in found
        if Path(code.co_filename).parent == beside or not code.co_filename.startswith((OURS, "<frozen", *python, *packages))
    ]


def _between(name: str) -> bool:
    """Whether a file is Orchestra's or Python's own, by which a call comes to the user's function."""
    python, packages = _folders()
    return name.startswith((OURS, "<frozen", *python)) and not name.startswith(packages)


@cache
def _folders() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The folders of Python's own library, and of the packages that are installed."""
    paths = sysconfig.get_paths()
    return (f"{paths['stdlib']}/", f"{paths['platstdlib']}/"), tuple(f"{paths[key]}/" for key in ("purelib", "platlib"))
