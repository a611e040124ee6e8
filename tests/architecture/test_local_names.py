"""Local names are nouns: no variable or private parameter is a bare participle, pronoun or question word."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestra.app.certificates import CHECK_SOURCES

PACKAGE = Path(__file__).resolve().parents[2] / "orchestra"
WORDS = """
allowed another asked began begun both called came chosen cited come computed counted declined done drawn dropped
each ended found gathered gave given gone got has have heard held here joined kept known learnt listed looked lost
made marked meant mine moved named needed noted one ones other others ours packed passed put quoted received
recorded refused returned said saved seen sent shown stands started stated stored tagged taken that theirs them
there these thing things this those thought told took tried used wanted want wants was weighed what where which
who whole why written
"""
MORE_WORDS = """
accepted acted acting adapted added alarmed altered appended approved asking audited backed barred bounded broken
cached calibrated carried centred certified changed checked checking cleared closed coded combined coming compared
compiled confirmed confused converted copied corrected covered created cut dashed dated declared decoded deleted
delivered denied described disabled doubled drafted enclosed encoded ending every exchanged existing failed fed fenced
fetched few figured filled finished fitted fixed folded following forked freed frozen gained giving glued going
grouped grown guarded happened having hidden hit ignored inherited installed keyed labelled lacked lacking lasting
leaving loaded lowered many mapped measured merged missed modified more most notified numbered observed offered opened
ordered outdated own owned packaged padded paid parsed pinned planned posted predicted prepared priced printed
progressed quantized queued raised ranked rated reached read recalled registered rejected released renamed rendered
repaired repeated replaced reported requested resolved restored reused running same sampled scaled scored sealed
searched served settled several shadowed shared shut skimmed sleeping some spared speaking spent split spoken stacked
standing stopped stripped structured succeeded summed supported taking taught tested timed traced trained turned typed
unasked unconfirmed unplanned unpriced unread unset untouched untrained untuned untyped unused updated using verified
violated voided waited waiting wanting watched withheld won worded wrapped writing
"""
FIRST_WORDS, BANNED = frozenset(WORDS.split()), frozenset((WORDS + MORE_WORDS).split())
"""Say what the value is instead: `match`, `row`, `reason`, `start_time`, `remaining_tokens`."""

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
PENDING = ("tools/", "router/rules.py", "router/typed_values.py", "router/follow_ups.py")
PARTLY_PENDING = ("server/",)
"""Files whose names have not been revised, and those that may have the names of `MORE_WORDS`."""

SOURCES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if (place := path.relative_to(PACKAGE).as_posix()) not in CHECK_SOURCES and not place.startswith(PENDING)
]
"""A change of a file of `CHECK_SOURCES` voids certificates, so these keep their names."""


def parameters(function: Function) -> list[ast.arg]:
    """Returns all parameters of a function."""
    arguments = function.args
    optional = [part for part in (arguments.vararg, arguments.kwarg) if part is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *optional]


def is_own(function: Function, *, is_nested: bool) -> bool:
    """Whether only this module can name the parameters: those of lambdas, and of private and nested functions."""
    if isinstance(function, ast.Lambda):
        return [part.arg for part in parameters(function)][:1] != ["self"]  # an operator otherwise
    return is_nested or (function.name.startswith("_") and not function.name.startswith("__"))


def local_names(
    node: ast.AST, outer: frozenset[str] = frozenset(), *, in_function: bool = False
) -> Iterator[tuple[str, int]]:
    """Yields the names that functions, comprehensions and lambdas bind, with their lines. A parameter that is bound
    again counts once, as a parameter.
    """
    if isinstance(node, Function):
        if is_own(node, is_nested=in_function):
            yield from ((part.arg, part.lineno) for part in parameters(node))
        outer = outer | {part.arg for part in parameters(node)}
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and in_function and node.id not in outer:
        yield node.id, node.lineno
    if isinstance(node, ast.MatchAs | ast.MatchStar) and node.name is not None:
        yield node.name, node.lineno
    is_inside = (in_function or isinstance(node, Function | ast.comprehension)) and not isinstance(node, ast.ClassDef)
    for child in ast.iter_child_nodes(node):
        yield from local_names(child, outer, in_function=is_inside)


def banned_names(source: str, banned: frozenset[str] = BANNED) -> list[tuple[str, int]]:
    """Returns the banned names of a module, with their lines."""
    return [(name, line) for name, line in local_names(ast.parse(source)) if name in banned]


def words_for(path: Path) -> frozenset[str]:
    """Returns the words that are banned in a file."""
    return FIRST_WORDS if path.relative_to(PACKAGE).as_posix().startswith(PARTLY_PENDING) else BANNED


def test_local_names_say_what_the_value_is() -> None:
    faults = [
        f"{path.relative_to(PACKAGE.parent)}:{line}: {name}"
        for path in SOURCES
        for name, line in banned_names(path.read_text("utf-8"), words_for(path))
    ]
    assert faults == []


@pytest.mark.parametrize(
    "source",
    [
        "def read():\n    found = 1",
        "def read():\n    for one in rows:\n        pass",
        "def read():\n    if (found := search()):\n        pass",
        "rows = [one for one in rows]",
        "ORDER = sorted(rows, key=lambda one: one.name)",
        "def _read(given): ...",
        "def _read(**given): ...",
        "def read():\n    def inner(given): ...",
        "def read():\n    match row:\n        case Row() as found:\n            pass",
    ],
)
def test_banned_names_are_found(source: str) -> None:
    assert [name for name, _ in banned_names(source)]


@pytest.mark.parametrize(
    "source",
    [
        "def read(given): ...",
        "found = search()",
        "class Row:\n    found: int = 1",
        "class Row:\n    def __eq__(self, other): ...",
        "add = lambda self, other: self",
        "def read():\n    self.found = read(found=1)",
        "def read(given):\n    given = 1",
    ],
)
def test_public_names_are_free(source: str) -> None:
    assert banned_names(source) == []
