"""Drafts: nodes compiled as far as their kind goes, before they have indices. One function a kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, assert_never

from orchestra.agent.contract import Contract, Schema
from orchestra.values.schema import ANY, NULL, nullable, show, union
from orchestra.workflow import nodes
from orchestra.workflow.expressions import compile_template
from orchestra.workflow.nodes import AnyNode, Retry
from orchestra.workflow.program import Acceptance, CompiledNode, Expression, Program
from orchestra.workflow.wiring import fits, wired

if TYPE_CHECKING:
    from orchestra.workflow.compiler import Compiler

Types = Mapping[str, Schema]
Path = tuple[str | int, ...]
BOOL: Schema = {"type": "boolean"}
STR: Schema = {"type": "string"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What `CompiledNode` has, without what only its place among the others tells."""

    kind: str
    output: Schema = field(default_factory=dict)
    contract: Contract | None = None
    inputs: Expression | None = None
    when: Expression | None = None
    each: Expression | None = None
    variable: str = ""
    limit: int = 10_000
    concurrency: int | None = None
    arms: tuple[Expression, ...] = ()
    body: Program | None = None
    until: Expression | None = None
    at_most: int = 1
    value: Expression | None = None
    fallback: Expression | None = None
    retry: Retry = Retry()  # noqa: RUF009  # frozen
    timeout: float | None = None
    acceptance: Acceptance | None = None

    def node(self, *, source: AnyNode, needs: tuple[int, ...], soft: frozenset[int], **rest: Any) -> CompiledNode:
        """The node, given its place: its index, its name, who needs it, and what it needs."""
        own = {name: getattr(self, name) for name in self.__slots__}
        return CompiledNode(source=source, needs=needs, soft=soft, tolerant=bool(soft), **own, **rest)


def drafted(compiler: Compiler, name: str, node: AnyNode, types: Types, path: Path) -> Draft:
    """A node as its kind has it. Faults are noted; what depends on them is left open."""
    match node:
        case nodes.AgentNode(agent=callee):
            return _call(compiler, node, "agent", callee, compiler.catalog.agents, types, path)
        case nodes.ToolNode(tool=callee):
            return _call(compiler, node, "tool", callee, compiler.catalog.tools, types, path)
        case nodes.CallNode():
            return _workflow(compiler, node, types, path)
        case nodes.FirstOfNode():
            return _first_of(compiler, node, types, path)
        case nodes.LoopNode():
            return _loop(compiler, name, node, types, path)
        case nodes.PlanNode():
            return _plan(compiler, node, types, path)
        case nodes.VerifyNode():
            value = template(compiler, node.verify, types, (*path, "verify"))
            return Draft(kind="verify", output=value.schema if value else ANY, value=value)
        case nodes.AskNode():
            return _ask(compiler, node, types, path)
        case _:
            assert_never(node)


def template(compiler: Compiler, given: Any, types: Types, path: Path, wanted: Schema | None = None) -> Expression | None:
    """A template of a node, of the wanted type; None where it has faults, which are noted."""
    with compiler.findings.collecting():
        found = compile_template(given, types, lambda part: compiler.findings.at(*path, *part))
        if wanted is not None and found.schema != ANY:
            fits(f"`{path[-1]}`", found.schema, wanted, compiler.findings, compiler.findings.at(*path), given)
        return found
    return None


def _call(
    compiler: Compiler,
    node: nodes.AgentNode | nodes.ToolNode,
    kind: str,
    callee: str,
    known: Mapping[str, Contract],
    types: Types,
    path: Path,
) -> Draft:
    contract = known.get(callee)
    if contract is None:
        other = compiler.catalog.tools if kind == "agent" else compiler.catalog.agents
        if callee in other:
            right = "tool" if kind == "agent" else "agent"
            place = compiler.findings.at(*path, kind)
            compiler.findings.fault(
                "L111", f"{callee!r} is {'a tool' if right == 'tool' else 'an agent'}", place, hint=f"{right}: {callee}"
            )
        else:
            compiler.unknown(kind, callee, known, (*path, kind))
        for key, value in node.with_.items():
            template(compiler, value, types, (*path, "with", key))
        return Draft(kind=kind)
    inputs = wired(node.with_, contract.input, callee, types, compiler.findings, (*path, "with"))
    return Draft(kind=kind, contract=contract, inputs=inputs, output=contract.output)


def _workflow(compiler: Compiler, node: nodes.CallNode, types: Types, path: Path) -> Draft:
    if isinstance(node.call, nodes.Block):
        if node.with_:
            place = compiler.findings.at(*path, "with", key=True)
            compiler.findings.fault("L117", "a block takes no `with:`", place, hint="it sees the names around it; refer to them inside")
        return _block(compiler, "call", "", node.call, types, (*path, "call"))
    program = compiler.called(node.call, (*path, "call"))
    if program is None:
        return Draft(kind="call")
    wanted: Schema = {
        "type": "object",
        "properties": {name: entry.schema for name, entry in program.inputs.items()},
        "required": [name for name, entry in program.inputs.items() if entry.required],
        "additionalProperties": False,
    }
    inputs = wired(node.with_, wanted, node.call, types, compiler.findings, (*path, "with"))
    return Draft(kind="call", body=program, inputs=inputs, output=program.output_schema)


def _block(compiler: Compiler, kind: str, name: str, block: nodes.Block, types: Types, path: Path) -> Draft:
    body = compiler.body(block.nodes, block.output, types, (*path, "nodes"), (*path, "output"))
    program = Program(name, body.nodes, body.output, body.schema, {}, lexical=True)
    return Draft(kind=kind, body=program, output=body.schema)


def _loop(compiler: Compiler, name: str, node: nodes.LoopNode, types: Types, path: Path) -> Draft:
    loop = node.loop
    for word in ("turn", "previous"):
        if word in types:
            place = compiler.findings.at(*path, key=True)
            compiler.findings.fault("L115", f"inside a loop {word!r} is the loop's own", place, hint=f"rename what is called {word!r}")
    inside = {**types, "turn": {"type": "integer", "minimum": 1}}
    faults, warnings = list(compiler.findings.faults), list(compiler.findings.warnings)
    # The type of `previous` is that of the output, which may read it: the first pass finds it, the second checks with it.
    first = _block(compiler, "loop", name, loop, {**inside, "previous": NULL}, (*path, "loop"))
    if first.output == ANY or len(compiler.findings.faults) > len(faults):
        compiler.findings.faults[:], compiler.findings.warnings[:] = faults, warnings
        first = _block(compiler, "loop", name, loop, {**inside, "previous": ANY}, (*path, "loop"))
    compiler.findings.faults[:], compiler.findings.warnings[:] = faults, warnings
    before = nullable(first.output) if first.output != ANY else ANY
    second = _block(compiler, "loop", name, loop, {**inside, "previous": before}, (*path, "loop"))
    seen = {**inside, "previous": before}
    if second.body is not None:
        seen |= {inner.name: inner.output for inner in second.body.nodes if inner.each is None}
    until = template(compiler, loop.until, seen, (*path, "loop", "until"), BOOL)
    constant(compiler, until, "until", (*path, "loop", "until"))
    return Draft(kind="loop", body=second.body, output=second.output, until=until, at_most=loop.at_most)


def constant(compiler: Compiler, found: Expression | None, what: str, path: Path) -> None:
    """Notes a condition that does not depend on anything (L118)."""
    if found is not None and not found.references:
        value = found.evaluate({})
        hint = "leave it out" if (what == "when") == bool(value) else "leave the node out" if what == "when" else "write what ends it"
        compiler.findings.fault("L118", f"`{what}` is always {str(value).lower()}", compiler.findings.at(*path), hint=hint)


def _first_of(compiler: Compiler, node: nodes.FirstOfNode, types: Types, path: Path) -> Draft:
    arms = [template(compiler, arm, types, (*path, "first_of", number)) for number, arm in enumerate(node.first_of)]
    found = tuple(arm for arm in arms if arm is not None)
    for number, arm in enumerate(arms[:-1]):
        if arm is not None and not arm.references:
            place = compiler.findings.at(*path, "first_of", number + 1)
            compiler.findings.warn("an arm behind a constant is never taken", place)
    return Draft(kind="first_of", arms=found, output=union([arm.schema for arm in found]) if len(found) == len(arms) else ANY)


def _plan(compiler: Compiler, node: nodes.PlanNode, types: Types, path: Path) -> Draft:
    template(compiler, node.plan, types, (*path, "plan"), STR)
    inputs = template(compiler, dict(node.with_), types, (*path, "with"))
    for key, names, known in (("agents", node.agents, compiler.catalog.agents), ("tools", node.tools, compiler.catalog.tools)):
        for number, name in enumerate(names):
            if name not in known:
                compiler.unknown(key[:-1], name, known, (*path, key, number))
    output: Schema = ANY
    with compiler.findings.collecting():
        output = compiler.type(node.returns, (*path, "returns"))
    return Draft(kind="plan", inputs=inputs, output=output)


def _ask(compiler: Compiler, node: nodes.AskNode, types: Types, path: Path) -> Draft:
    text = template(compiler, node.ask, types, (*path, "ask"), STR)
    output: Schema = {"enum": list(node.options)} if node.options else STR
    with compiler.findings.collecting():
        stated = compiler.type(node.returns, (*path, "returns"))
        if not node.options:
            output = stated
        elif stated != STR:
            place = compiler.findings.at(*path, "returns")
            compiler.findings.fault("L117", f"options are texts, and `returns` is {show(stated)}", place, hint="leave one of them out")
    return Draft(kind="ask", value=text, output=output)
