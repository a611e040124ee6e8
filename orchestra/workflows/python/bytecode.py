"""Bytecode analysis: the name that a call's result is bound to, and code that bypasses a placeholder.

Needs only `dis`, and no source. Tested with CPython 3.11, 3.12 and 3.13 (tests/workflows/test_builder_sources.py).
"""

from __future__ import annotations

import dis
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from types import CodeType

_IGNORED_OPCODES = frozenset({"CACHE", "COPY", "NOP", "NOT_TAKEN", "EXTENDED_ARG"})
_UNSUPPORTED_OPCODES = frozenset({"IS_OP", "MATCH_SEQUENCE", "MATCH_MAPPING"})


class CallBindings:
    """The names that the calls of one code object are bound to, read once, since a function may have a thousand
    calls.
    """

    def __init__(self, code: CodeType) -> None:
        self.code = code
        instructions = [
            instruction for instruction in dis.get_instructions(code) if instruction.opname not in _IGNORED_OPCODES
        ]
        self._offsets = [instruction.offset for instruction in instructions]
        self._names = [_stored_name(instruction) for instruction in instructions]
        self.has_handlers = any(instruction.opname == "PUSH_EXC_INFO" for instruction in instructions)
        """Whether it has a `try` or a `with`."""

    @cached_property
    def positions(self) -> list[tuple[int | None, int | None, int | None, int | None]]:
        """For each instruction: first line, last line, first column, last column."""
        return [*self.code.co_positions()]

    def target_name(self, last: int) -> str | None:
        """Returns the name that the call at offset `last` is bound to: `passages` of `passages = search(...)`; None if
        it is used directly.
        """
        at = bisect_right(self._offsets, last)
        return self._names[at] if at < len(self._names) else None


def _stored_name(instruction: dis.Instruction) -> str | None:
    """Returns the name that an instruction stores to.

    CPython 3.13 joins two stores, or a store and a load, into one instruction, whose value is a pair of names.
    """
    if not instruction.opname.startswith("STORE_") or instruction.opname in (
        "STORE_ATTR",
        "STORE_SUBSCR",
        "STORE_SLICE",
    ):
        return None
    return str(instruction.argval[0] if isinstance(instruction.argval, tuple) else instruction.argval)


def unsupported_tests(code: CodeType) -> Iterator[tuple[CodeType, int, str]]:
    """Yields the tests of identity (`is`) or shape (`match`) in a function and its inner functions: code, offset, and
    kind.
    """
    for instruction in dis.get_instructions(code):
        if instruction.opname in _UNSUPPORTED_OPCODES or instruction.opname.endswith(("IF_NONE", "IF_NOT_NONE")):
            yield code, instruction.offset, "match" if instruction.opname.startswith("MATCH") else "is"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from unsupported_tests(constant)


def single_return_offset(code: CodeType) -> int:
    """Returns the offset of the only `return` of a function; -1 if it has several or none."""
    positions = [*code.co_positions()]
    returns = {
        positions[instruction.offset // 2]: instruction.offset
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("RETURN_VALUE", "RETURN_CONST")
    }
    return returns.popitem()[1] if len(returns) == 1 else -1
