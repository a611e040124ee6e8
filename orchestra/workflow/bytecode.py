"""Bytecode: the name that a call's result is bound to, and code that would look past a placeholder.

Needs no source, and of Python nothing but `dis`. Tried with CPython 3.11, 3.12 and 3.13 (tests/workflow/test_builder_sources.py).
"""

from __future__ import annotations

import dis
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from types import CodeType

_SKIPPED = frozenset({"CACHE", "COPY", "NOP", "NOT_TAKEN", "EXTENDED_ARG"})
_BLIND = frozenset({"IS_OP", "MATCH_SEQUENCE", "MATCH_MAPPING"})


class Bindings:
    """The names that the calls of one code object are bound to; read once, for a function may have a thousand calls."""

    def __init__(self, code: CodeType) -> None:
        self.code = code
        used = [one for one in dis.get_instructions(code) if one.opname not in _SKIPPED]
        self._offsets = [one.offset for one in used]
        self._names = [_stored(one) for one in used]

    def name(self, last: int) -> str | None:
        """The name that the call at offset `last` is bound to: `passages` of `passages = search(...)`; None where it is used at once."""
        at = bisect_right(self._offsets, last)
        return self._names[at] if at < len(self._names) else None


def _stored(one: dis.Instruction) -> str | None:
    """The name that an instruction stores to.

    CPython 3.13 joins two stores, or a store and a load, into one instruction, whose value is then a pair of names.
    """
    if not one.opname.startswith("STORE_") or one.opname in ("STORE_ATTR", "STORE_SUBSCR", "STORE_SLICE"):
        return None
    return str(one.argval[0] if isinstance(one.argval, tuple) else one.argval)


def blind_spots(code: CodeType) -> Iterator[tuple[CodeType, int, str]]:
    """Where a function, or one that stands inside it, tests identity (`is`) or shape (`match`): code, offset, and which of the two."""
    for one in dis.get_instructions(code):
        if word := _tests(one):
            yield code, one.offset, word
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from blind_spots(constant)


def _tests(one: dis.Instruction) -> str:
    if one.opname in _BLIND or one.opname.endswith(("IF_NONE", "IF_NOT_NONE")):
        return "match" if one.opname.startswith("MATCH") else "is"
    return ""


def looked_past(code: CodeType, waiting: Iterable[str]) -> tuple[CodeType, int, str] | None:
    """The first blind spot of a function whose local variables of these names hold placeholders when it is entered.

    A test of identity is one where it names such a variable, or one that was made with such a variable; `match` is one anywhere.
    """
    used = [one for one in dis.get_instructions(code) if one.opname not in _SKIPPED]
    names = _spread(used, waiting)
    for at, one in enumerate(used):
        word = _tests(one)
        if word == "match" or (word and names & _operands(used, at)):
            return code, one.offset, word
        comprehended = isinstance(one.argval, CodeType) and one.argval.co_varnames[:1] == (".0",) and names & _gone_over(used, at)
        if comprehended and (found := looked_past(one.argval, {".0"})):
            return found
    return None


def _gone_over(used: list[dis.Instruction], at: int) -> set[str]:
    """The local variables that are named in what the comprehension goes over whose code is loaded there."""
    found: set[str] = set()
    for one in used[at + 1 :]:
        if one.opname == "GET_ITER":
            break
        found |= _variables(one)[1]
    return found


def _spread(used: list[dis.Instruction], waiting: Iterable[str]) -> set[str]:
    """These names, and those of variables that are bound to what was made with one of them."""
    names, before = set(waiting), 0
    while len(names) > before:
        before = len(names)
        read: set[str] = set()
        bound = False
        for one in used:
            stored, loaded = _variables(one)
            if one.opname.startswith("UNPACK"):
                continue
            if (bound and not stored) or one.opname == "POP_TOP" or one.opname.startswith("RETURN"):
                read = set()
            if read & names:
                names |= stored
            read = loaded if stored and loaded else read | loaded
            bound = bool(stored) and not loaded
    return names


def _operands(used: list[dis.Instruction], at: int) -> set[str]:
    """The local variables that are named in the operands of an instruction: what comes right before it, and within its place."""
    first = at
    while first > 0 and _within(used[first - 1], used[at]):
        first -= 1
    found = {name for one in used[first:at] for name in _variables(one)[1]}
    if first == at > 0 and _variables(used[at - 1])[1]:  # one of two loads that are one instruction stands elsewhere
        last = used[at - 1].argval
        found.add(last[-1] if isinstance(last, tuple) else last)
    return found


def _within(one: dis.Instruction, other: dis.Instruction) -> bool:
    a, b = one.positions, other.positions
    if a is None or b is None or None in a or None in b:
        return False
    return (b[0], b[2]) <= (a[0], a[2]) and (a[1], a[3]) <= (b[1], b[3])


def _variables(one: dis.Instruction) -> tuple[set[str], set[str]]:
    """The local variables that an instruction binds, and those that it reads."""
    words = one.opname.split("_")
    verbs = [words[at - 1] for at, word in enumerate(words) if word in ("FAST", "DEREF") and at > 0]
    given = one.argval if isinstance(one.argval, tuple) else (one.argval,) * len(verbs)
    pairs = [*zip(verbs, given, strict=False)]
    return {name for verb, name in pairs if verb == "STORE"}, {name for verb, name in pairs if verb == "LOAD"}


def last_return(code: CodeType) -> int:
    """The offset of a function's last `return`; -1 where there is none."""
    returns = [one.offset for one in dis.get_instructions(code) if one.opname in ("RETURN_VALUE", "RETURN_CONST")]
    return returns[-1] if returns else -1
