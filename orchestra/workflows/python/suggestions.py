"""Rewrites Python code that needs a known value into functions of the workflow language."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

Position = tuple[int, int, int, int]
"""First line, last line, first column, last column."""

_REWRITABLE = (
    ast.BoolOp,
    ast.UnaryOp,
    ast.IfExp,
    ast.Compare,
    ast.JoinedStr,
    ast.FormattedValue,
    ast.ListComp,
    ast.GeneratorExp,
)


def rewrite(tree: ast.Module, position: Position) -> str:
    """Returns the expression or statement at a position, rewritten; empty if nothing changes or there is no rule."""
    chain = _enclosing_nodes(tree, position)
    statement = next((node for node in reversed(chain) if isinstance(node, ast.stmt)), None)
    last = len(chain) - 1
    while last >= 0 and not isinstance(chain[last], _REWRITABLE):
        last -= 1
    if last >= 0 and (statement is None or chain.index(statement) < last):
        first = last
        while first > 0 and isinstance(chain[first - 1], _REWRITABLE):
            first -= 1
        outer = chain[first]
        if isinstance(outer, ast.expr):
            new = _DslRewriter().visit(_copy(outer))
            text, before = _unparse(new), _unparse(outer)
            if text != before and not (isinstance(statement, ast.If) and _is_whole_test(statement, outer)):
                return text
    if rewritten_call := _rewrite_builtin(chain):
        return rewritten_call
    if isinstance(statement, ast.If):
        return _rewrite_if(tree, statement)
    if isinstance(statement, ast.For):
        return _rewrite_for(statement)
    if isinstance(statement, ast.While):
        return "loop(lambda previous: ..., at_most=5, until=lambda value: ...)"
    return _rewrite_unpacking(statement) if isinstance(statement, ast.Assign) else ""


def _rewrite_builtin(chain: list[ast.AST]) -> str:
    """Rewrites a call of a built-in function that needs the values of its arguments."""
    match chain[-1] if chain else None:
        case ast.Call(func=ast.Name(id="max" | "min" as name), args=[first, second], keywords=[]):
            a, b = ast.unparse(first), ast.unparse(second)
            return f"choose({a} {'>' if name == 'max' else '<'} {b}, {a}, {b})"
        case ast.Call(
            func=ast.Name(id="all" | "any" as name),
            args=[ast.List(elts=[_, *_] as tests) | ast.Tuple(elts=[_, *_] as tests)],
        ):
            return f"{name}_of({', '.join(map(ast.unparse, tests))})"
        case ast.Call(
            func=ast.Name(
                id="sorted" | "sum" | "max" | "min" | "zip" | "enumerate" | "set" | "dict" | "reversed" as name
            )
        ):
            return f"do it in a @tool(effect='pure') that calls {name}"
        case _:
            return ""


def _unparse(node: ast.AST) -> str:
    return ast.unparse(node)


def _copy(node: ast.expr) -> ast.expr:
    return ast.parse(ast.unparse(node), mode="eval").body


def _is_whole_test(statement: ast.If, expression: ast.AST) -> bool:
    """Whether the expression is the whole test of an `if` statement that can be rewritten."""
    return statement.test is expression


def _enclosing_nodes(tree: ast.Module, position: Position) -> list[ast.AST]:
    """Returns the nodes that contain a position, outermost first."""
    line, end, first, last = position
    chain: list[ast.AST] = []
    current_node: ast.AST = tree
    while True:
        inner = next(
            (node for node in ast.iter_child_nodes(current_node) if _spans(node, (line, first), (end, last))), None
        )
        if inner is None:
            return chain
        if hasattr(inner, "lineno"):
            chain.append(inner)
        current_node = inner


def _spans(node: ast.AST, start: tuple[int, int], end: tuple[int, int]) -> bool:
    if isinstance(node, ast.comprehension):
        return any(_spans(part, start, end) for part in ast.iter_child_nodes(node))
    if isinstance(node, ast.arguments | ast.arg | ast.keyword | ast.withitem | ast.match_case) and not hasattr(
        node, "lineno"
    ):
        return any(_spans(part, start, end) for part in ast.iter_child_nodes(node))
    if not isinstance(node, ast.stmt | ast.expr | ast.keyword):
        return False
    return (node.lineno, node.col_offset) <= start and (node.end_lineno or 0, node.end_col_offset or 0) >= end


class _DslRewriter(ast.NodeTransformer):
    """Rewrites conditions, choices, comprehensions and f-strings with functions that accept unknown values."""

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        return _call("all_of" if isinstance(node.op, ast.And) else "any_of", node.values)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return _call("not_", [node.operand]) if isinstance(node.op, ast.Not | ast.Invert) else node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        sides = [node.left, *node.comparators]
        parts = [
            _rewrite_comparison(left, op, right)
            for left, op, right in zip(sides, node.ops, node.comparators, strict=False)
        ]
        return parts[0] if len(parts) == 1 else _call("all_of", parts)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        return _rewrite_choice([(node.test, node.body)], node.orelse)

    def visit_ListComp(self, node: ast.ListComp) -> ast.AST:
        return self._comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> ast.AST:
        return self._comprehension(node)

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp) -> ast.AST:
        self.generic_visit(node)
        if len(node.generators) != 1 or not isinstance(node.generators[0].target, ast.Name):
            return node
        part, name = node.generators[0], node.generators[0].target
        items = part.iter
        for test in part.ifs:
            items = _call("filter_", [_lambda(name.id, test), items])
        if isinstance(node.elt, ast.Name) and node.elt.id == name.id:
            return items
        return _call("map_", [_lambda(name.id, node.elt), items])

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        parts: list[ast.expr] = []
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                if value.format_spec is not None or value.conversion != -1:
                    return node
                parts.append(value.value)
            else:
                parts.append(value)
        if not parts:
            return node
        text_expression = parts[0]
        for part in parts[1:]:
            text_expression = ast.BinOp(text_expression, ast.Add(), part)
        return text_expression


def _call(name: str, args: list[ast.expr], keywords: list[ast.keyword] | None = None) -> ast.Call:
    return ast.Call(ast.Name(name), args, keywords or [])


def _lambda(name: str | None, body: ast.expr) -> ast.Lambda:
    args = [] if name is None else [ast.arg(name)]
    return ast.Lambda(ast.arguments(posonlyargs=[], args=args, kwonlyargs=[], kw_defaults=[], defaults=[]), body)


_PURE_WORDS = frozenset(
    ["all_of", "any_of", "as_text", "build", "choose", "contains", "filter_", "has_value", "length", "not_", "or_else"]
)
"""Functions that compute and call no step."""


def _has_calls(node: ast.AST) -> bool:
    """Whether an expression visibly calls an agent, a tool or a workflow."""
    calls = (inner.func for inner in ast.walk(node) if isinstance(inner, ast.Call))
    return any(not (isinstance(call, ast.Name) and call.id in _PURE_WORDS) for call in calls)


def _rewrite_comparison(left: ast.expr, op: ast.cmpop, right: ast.expr) -> ast.expr:
    none = isinstance(right, ast.Constant) and right.value is None
    match op:
        case ast.In():
            return _call("contains", [right, left])
        case ast.NotIn():
            return _call("not_", [_call("contains", [right, left])])
        case ast.Is() if none:
            return _call("not_", [_call("has_value", [left])])
        case ast.IsNot() if none:
            return _call("has_value", [left])
        case ast.Is():
            return ast.Compare(left, [ast.Eq()], [right])
        case ast.IsNot():
            return ast.Compare(left, [ast.NotEq()], [right])
        case _:
            return ast.Compare(left, [op], [right])


def _rewrite_if(tree: ast.Module, statement: ast.If) -> str:
    """Rewrites an `if` statement whose branches each return or bind one value; else returns an outline."""
    arms: list[tuple[ast.expr, list[ast.stmt]]] = []
    rest: list[ast.stmt] = [statement]
    while len(rest) == 1 and isinstance(rest[0], ast.If):
        test = _DslRewriter().visit(_copy(rest[0].test))
        arms.append((test, rest[0].body))
        rest = rest[0].orelse
    if not rest:
        rest = _following_statements(tree, statement)[:1]
    ends = [_single_result(body) for _, body in arms]
    last = _single_result(rest)
    if last is not None and all(end is not None and end[0] == last[0] for end in ends):
        value = _rewrite_choice([(test, end[1]) for (test, _), end in zip(arms, ends, strict=True) if end], last[1])
        return f"{last[0]} {ast.unparse(value)}"
    return f"first_of(when({ast.unparse(arms[0][0])}, lambda: ...), otherwise=lambda: ...)"


def _rewrite_choice(arms: list[tuple[ast.expr, ast.expr]], otherwise: ast.expr) -> ast.expr:
    """Rewrites a choice so that only the chosen branch runs. Without calls, `choose` is enough."""
    (test, value), *other_arms = arms
    rest = _rewrite_choice(other_arms, otherwise) if other_arms else otherwise
    if isinstance(rewritten_test := _rewrite_none_test(test, value, rest), ast.expr):
        return rewritten_test
    if not _has_calls(value):
        if not _has_calls(rest):
            return _call("choose", [test, value, rest])
        return _call(
            "first_of",
            [_call("when", [_negate(test), _lambda(None, rest)])],
            [ast.keyword("otherwise", _lambda(None, value))],
        )
    arm = _call("when", [test, _lambda(None, value)])
    return _call("first_of", [arm], [ast.keyword("otherwise", _lambda(None, rest))])


def _negate(test: ast.expr) -> ast.expr:
    match test:
        case ast.Call(func=ast.Name(id="not_"), args=[inner]):
            return inner
        case _:
            return _call("not_", [test])


def _rewrite_none_test(test: ast.expr, then: ast.expr, otherwise: ast.expr) -> ast.expr | None:
    """Rewrites `x if x is not None else y` as `or_else(x, y)`. For a field of `x` the user must state the default of
    `x`.
    """
    match test:
        case ast.Call(func=ast.Name(id="has_value"), args=[ast.Name(id=name) as tested_name]):
            present_branch, absent_branch = then, otherwise
        case ast.Call(
            func=ast.Name(id="not_"),
            args=[ast.Call(func=ast.Name(id="has_value"), args=[ast.Name(id=name) as tested_name])],
        ):
            present_branch, absent_branch = otherwise, then
        case _:
            return None
    if ast.dump(present_branch) == ast.dump(tested_name):
        return None if _has_calls(absent_branch) else _call("or_else", [tested_name, absent_branch])
    match present_branch:
        case ast.Call(func=ast.Name(id="or_else"), args=[ast.Attribute(value=ast.Name(id=of)) as field, _]) if (
            of == name
        ):
            present_branch = field
        case _:
            pass
    if _has_calls(absent_branch) or _has_calls(present_branch) or not _reads_fields(present_branch, name):
        return None
    rewritten: ast.expr = _NoneDefaultInserter(name).visit(present_branch)
    return rewritten


def _reads_fields(tree: ast.expr, name: str) -> bool:
    """Whether an expression reads fields of a name."""
    return any(
        isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
        for node in ast.walk(tree)
    )


class _NoneDefaultInserter(ast.NodeTransformer):
    """Inserts a default for None before the fields of a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id == self.name:
            return ast.Attribute(_call("or_else", [node.value, ast.Constant(...)]), node.attr, ast.Load())
        self.generic_visit(node)
        return node


def _single_result(body: list[ast.stmt]) -> tuple[str, ast.expr] | None:
    """Returns `return` or `name =`, and the value, of a body with only that statement."""
    match body:
        case [ast.Return(value=ast.expr() as value)]:
            return "return", value
        case [ast.Assign(targets=[ast.Name(id=name)], value=value)]:
            return f"{name} =", value
        case _:
            return None


def _following_statements(tree: ast.Module, statement: ast.stmt) -> list[ast.stmt]:
    """Returns the statements that follow one in its block."""
    for block in _blocks(tree):
        if statement in block:
            return block[block.index(statement) + 1 :]
    return []


def _blocks(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                yield block


def _rewrite_for(statement: ast.For) -> str:
    """Rewrites `for x in xs: out.append(f(x))` as `out = map_(lambda x: f(x), xs)`; else returns an outline."""
    items = ast.unparse(statement.iter)
    name = statement.target.id if isinstance(statement.target, ast.Name) else "item"
    match statement.body:
        case [ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=out), attr="append"), args=[value]))]:
            return f"{out} = map_(lambda {name}: {ast.unparse(value)}, {items})"
        case [ast.Expr(value=ast.Call() as call)]:
            return f"map_(lambda {name}: {ast.unparse(call)}, {items})"
        case _:
            return f"map_(lambda {name}: ..., {items})"


def to_comprehension(tree: ast.Module, position: Position) -> str:
    """Rewrites `map_(lambda x: f(x), xs)` as `[f(x) for x in xs]`, and `filter_` likewise; empty for another call."""
    for node in reversed(_enclosing_nodes(tree, position)):
        match node:
            case ast.Call(
                func=ast.Name(id="map_" | "filter_" as word),
                args=[ast.Lambda(args=ast.arguments(args=[ast.arg(arg=name)]), body=body), items],
            ):
                source, over = ast.unparse(body), ast.unparse(items)
                return (
                    f"[{source} for {name} in {over}]"
                    if word == "map_"
                    else f"[{name} for {name} in {over} if {source}]"
                )
            case _:
                continue
    return ""


def encloses(outer: Position, inner: Position) -> bool:
    """Whether code is inside other code of the same file."""
    return (outer[0], outer[2]) <= (inner[0], inner[2]) and (outer[1], outer[3]) >= (inner[1], inner[3])


class TryBlock(NamedTuple):
    """The body of a `try` whose `except` catches every exception and continues."""

    body: list[ast.stmt]
    functions: list[ast.AST]
    """The functions defined in it, which may be called elsewhere."""


def swallowing_blocks(tree: ast.Module) -> list[TryBlock]:
    """Returns all such blocks of a file."""
    try_blocks = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Try | ast.TryStar) and any(map(_swallows, node.handlers)):
            parts = (inner for part in node.body for inner in ast.walk(part))
            try_blocks.append(
                TryBlock(node.body, [inner for inner in parts if isinstance(inner, ast.FunctionDef | ast.Lambda)])
            )
    return try_blocks


def _swallows(handler: ast.ExceptHandler) -> bool:
    if handler.body and isinstance(handler.body[-1], ast.Raise):
        return False
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException")) for kind in kinds
    )


def is_caught(tried: TryBlock, position: Position) -> bool:
    """Whether a position is in the block, within its own function."""
    line, end, first, last = position
    start, stop = tried.body[0], tried.body[-1]
    within = (start.lineno, start.col_offset) <= (line, first) and (stop.end_lineno or 0, stop.end_col_offset or 0) >= (
        end,
        last,
    )
    return within and not any(_spans(inner, (line, first), (end, last)) for inner in tried.functions)


def _rewrite_unpacking(statement: ast.Assign) -> str:
    """Rewrites `first, second = items` as `first, second = items[0], items[1]` if the items have a name."""
    match statement:
        case ast.Assign(targets=[ast.Tuple(elts=names) | ast.List(elts=names)], value=value):
            items = ast.unparse(value)
            before = "" if isinstance(value, ast.Name) else f"items = {items}; "
            items = items if isinstance(value, ast.Name) else "items"
            parts = ", ".join(f"{items}[{index}]" for index in range(len(names)))
            return f"{before}{', '.join(map(ast.unparse, names))} = {parts}" if names else ""
        case _:
            return ""
