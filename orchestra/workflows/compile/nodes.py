"""Drafts: nodes compiled as far as their kind goes, before they have indices. One function a kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, assert_never

import msgspec

from orchestra.agents.contract import Contract, Schema
from orchestra.schema.json_schema import ANY, NULL, nullable, show, union
from orchestra.workflows import model
from orchestra.workflows.compile import agent_choice, tool_agents
from orchestra.workflows.compile.inputs import Path, Types, compiled, fits, known_inputs, unreferenced, wired
from orchestra.workflows.compile.ordering import Uses, names_in, uses
from orchestra.workflows.expressions.coverage import covers, of_when
from orchestra.workflows.expressions.parser import KEYWORDS
from orchestra.workflows.expressions.three_valued import decided
from orchestra.workflows.model import RETRY, AnyNode, AtLeast, Retry
from orchestra.workflows.program import Acceptance, CompiledNode, Expression, Planning, Program, Using
from orchestra.workflows.python.signatures import NAME

if TYPE_CHECKING:
    from orchestra.workflows.compile.compiler import Called, Compiler

Names = dict[str, Schema]
"""The types of the names that can be read, by name. One mapping for a whole workflow: bodies add their names and take them away again."""
BOOL: Schema = {"type": "boolean"}
STR: Schema = {"type": "string"}


class Draft(msgspec.Struct, kw_only=True, gc=False):
    """What `CompiledNode` has, without what only its place among the others tells."""

    kind: str
    output: Schema = {}
    contract: Contract | None = None
    inputs: Expression | None = None
    when: Expression | None = None
    each: Expression | None = None
    variable: str = ""
    limit: int = 10_000
    concurrency: int | None = None
    at_least: AtLeast | None = None
    arms: tuple[Expression, ...] = ()
    body: Program | None = None
    until: Expression | None = None
    at_most: int = 1
    value: Expression | None = None
    fallback: Expression | None = None
    retry: Retry = RETRY
    timeout: float | None = None
    acceptance: Acceptance | None = None
    planning: Planning | None = None
    using: Using | None = None
    escalate: Expression | None = None
    sure: bool = True
    """Whether its kind always gives a value, failures apart."""

    def node(
        self, index: int, name: str, source: AnyNode, needs: tuple[int, ...], children: tuple[int, ...], soft: frozenset[int], height: int
    ) -> CompiledNode:
        """The node, given its place: its index, its name, what it needs, who needs it, and how far it is from the end."""
        # Named one by one the fields would take twice as long, and compiling a tenth more.
        return CompiledNode(index, name, self.kind, source, self.output, needs, children, bool(soft), soft, height, *_own(self))


_FIELDS = CompiledNode.__struct_fields__
_own = attrgetter(*_FIELDS[_FIELDS.index("contract") : _FIELDS.index("sample")])
"""What a draft has of a node's fields, in the order in which the node has them."""


def drafted(compiler: Compiler, name: str, node: AnyNode, types: Names, path: Path, reads: Uses) -> Draft:
    """A node as its kind has it. Faults are noted; what depends on them is left open."""
    match node:
        case model.ToolNode():
            return _call(compiler, node, "tool", node.tool, types, path, reads)
        case model.AgentNode():
            if isinstance(node.agent, model.Choice):
                return agent_choice.drafted(compiler, node, node.agent, types, path)
            return _call(compiler, node, "agent", node.agent, types, path, reads)
        case model.CallNode():
            return _workflow(compiler, node, types, path)
        case model.FirstOfNode():
            return _first_of(compiler, node, types, path)
        case model.LoopNode():
            return _loop(compiler, name, node, types, path)
        case model.PlanNode():
            return _plan(compiler, node, types, path)
        case model.VerifyNode():
            value = compiled(node.verify, types, compiler.findings, (*path, "verify"))
            if value is not None and not value.references:
                hint = unreferenced(node.verify) or "${node}"
                compiler.findings.fault("L118", "`verify` judges a constant", compiler.findings.at(*path, "verify"), hint=f"verify: {hint}")
            return Draft(kind="verify", output=value.schema if value else ANY, value=value)
        case model.AskNode():
            return _ask(compiler, node, types, path)
        case _:
            assert_never(node)


def template(compiler: Compiler, given: Any, types: Types, path: Path, wanted: Schema) -> Expression | None:
    """A template of a node, of the wanted type; None where it has faults, which are noted."""
    found = compiled(given, types, compiler.findings, path)
    if found is not None:
        fits(f"`{path[-1]}`", found.schema, wanted, compiler.findings, path, given)
    return found


def condition(compiler: Compiler, text: str, types: Types, path: Path) -> Expression | None:
    """A condition: a bool that depends on something (L114, L118); warned of where it is the same in every run."""
    findings, word = compiler.findings, path[-1]
    found = compiled(text, types, findings, path)
    if found is None:
        return None
    if "${" not in text:
        hint = f"{word}: {unreferenced(text) or '${condition}'}"
        findings.fault("L114", f"`{word}` takes a condition, got the text {text[:60]!r}", findings.at(*path), hint=hint)
        return None
    before = len(findings.faults)
    fits(f"`{word}`", found.schema, BOOL, findings, path, text)
    if len(findings.faults) > before:
        return found
    constant = found.evaluate({}) if not found.references else None
    if constant is not None:
        hint = "leave it out" if (word == "when") == constant else "leave the node out" if word == "when" else "write what ends the loop"
        if word == "escalate":
            hint = "name the larger model in the agent's card" if constant else "leave it out"
        findings.fault("L118", f"`{word}` is always {str(constant).lower()}", findings.at(*path), hint=hint)
    elif (known := decided(text, types)) is not None:
        means = {("when", False): "the node never runs", ("until", False): "the loop always takes `at_most` turns"}
        usual = {"when": "it has no effect", "escalate": f"the larger model is {'always' if known else 'never'} asked at once"}
        says = means.get((str(word), known), usual.get(str(word), "the loop ends after one turn"))
        findings.warn(f"`{word}` is {str(known).lower()} whatever happens: {says}", findings.at(*path))
    return found


def _call(
    compiler: Compiler,
    node: model.AgentNode | model.ToolNode,
    kind: str,
    callee: str,
    types: Names,
    path: Path,
    reads: Uses,
) -> Draft:
    catalog, findings = compiler.catalog, compiler.findings
    known, other = (catalog.agents, catalog.tools) if kind == "agent" else (catalog.tools, catalog.agents)
    contract = known.get(callee)
    if contract is not None:
        takes = compiler.takes(contract)
        inputs = known_inputs(reads, takes, types, findings)
        if inputs is None:
            inputs = wired(node.with_, takes, callee, types, findings, (*path, "with"))
        using = (
            tool_agents.using(compiler, node, contract, path)
            if isinstance(node, model.AgentNode) and (contract.kit or node.tools)
            else None
        )
        return Draft(kind=kind, contract=contract, inputs=inputs, output=contract.output, using=using)
    if callee in other:
        right, said = ("tool", "a tool") if kind == "agent" else ("agent", "an agent")
        findings.fault("L111", f"{callee!r} is {said}", findings.at(*path, kind), hint=f"{right}: {callee}")
    else:
        compiler.unknown(kind, callee, known, (*path, kind))
    compiled(dict(node.with_), types, findings, (*path, "with"))
    return Draft(kind=kind)


def _workflow(compiler: Compiler, node: model.CallNode, types: Names, path: Path) -> Draft:
    if isinstance(node.call, model.Block):
        if node.with_:
            place = compiler.findings.at(*path, "with", key=True)
            compiler.findings.fault("L117", "a block takes no `with:`", place, hint="it sees the names around it; refer to them inside")
        body = compiler.body(node.call.nodes, node.call.output, types, (*path, "call"))
        return Draft(kind="call", body=body.program(""), output=body.schema, sure=body.sure)
    called = compiler.called(node.call, (*path, "call"))
    if called is None:
        compiled(dict(node.with_), types, compiler.findings, (*path, "with"))
        return Draft(kind="call")
    program = called.program
    tool_agents.called(compiler, node, program, path)
    inputs = wired(node.with_, called.takes, node.call, types, compiler.findings, (*path, "with"))
    return Draft(kind="call", body=program, inputs=inputs, output=program.output_schema, sure=called.sure)


def _loop(compiler: Compiler, name: str, node: model.LoopNode, types: Names, path: Path) -> Draft:
    loop, findings = node.loop, compiler.findings
    inner = (*path, "loop")
    around = {word: types.get(word) for word in ("turn", "previous")}
    if not compiler.loops:
        for word in around:
            if compiler.sees(word, types):
                hint = f"rename what is called {word!r}"
                findings.fault("L115", f"inside a loop {word!r} is the loop's own", findings.at(*path, key=True), hint=hint)
    compiler.loops += 1
    types["turn"] = {"type": "integer", "minimum": 1, "maximum": loop.at_most}
    types["previous"] = NULL
    if any("previous" in uses(one).all for one in loop.nodes.values()) or "previous" in names_in(loop.output):
        # The type of `previous` is that of the output, which may read it: a first pass finds it, the real one checks with it.
        found: Schema = ANY
        with findings.trying():
            before = len(findings.faults)
            found = compiler.body(loop.nodes, loop.output, types, inner).schema
            found = found if len(findings.faults) == before else ANY
        if found == ANY:
            types["previous"] = ANY
            with findings.trying():
                found = compiler.body(loop.nodes, loop.output, types, inner).schema
        types["previous"] = nullable(found) if found != ANY else ANY
    body = compiler.body(loop.nodes, loop.output, types, inner)
    if types["previous"] == NULL:
        types["previous"] = nullable(body.schema) if body.schema != ANY else ANY
    shadowed = {one: types[one] for one in body.types if one in types}
    types.update(body.types)
    until = condition(compiler, loop.until, types, (*inner, "until"))
    _undo(types, body.types, shadowed)
    _undo(types, around, {word: schema for word, schema in around.items() if schema is not None})
    compiler.loops -= 1
    if until is not None and not until.references <= body.certain | types.keys() | {"turn", "previous"}:
        unsure = min(until.references - body.certain - types.keys() - {"turn", "previous"})
        findings.warn(f"`until` fails where {unsure!r} is skipped or withheld", findings.at(*inner, "until"))
    return Draft(kind="loop", body=body.program(name), output=body.schema, until=until, at_most=loop.at_most, sure=body.sure)


def _undo(types: Names, added: Mapping[str, Any], shadowed: Types) -> None:
    for name in added:
        types.pop(name, None)
    types.update(shadowed)


def _first_of(compiler: Compiler, node: model.FirstOfNode, types: Names, path: Path) -> Draft:
    findings = compiler.findings
    arms = [compiled(arm, types, findings, (*path, "first_of", number)) for number, arm in enumerate(node.first_of)]
    found = tuple(arm for arm in arms if arm is not None)
    for number, arm in enumerate(arms[:-1]):
        if arm is not None and not arm.references:
            findings.warn("an arm behind a constant is never taken", findings.at(*path, "first_of", number + 1))
            break
    sure = len(found) < len(arms) or any(compiler.surely(arm.references) for arm in found) or _covered(compiler, node, found)
    return Draft(kind="first_of", arms=found, output=union([arm.schema for arm in found]) if len(found) == len(arms) else ANY, sure=sure)


def _covered(compiler: Compiler, node: model.FirstOfNode, arms: Sequence[Expression]) -> bool:
    """Whether the last arm runs where no earlier one does."""
    if len(arms) < 2 or node.each is not None:
        return False
    around = of_when(node.when)
    given = compiler.around[-1]

    def choice(name: str) -> Sequence[Any] | None:
        found = given.get(name)
        return found.first_of if isinstance(found, model.FirstOfNode) and found.model_fields_set <= {"first_of", "when"} else None

    return around is not None and covers(around, [(arm.references, compiler.conditions(arm.references)) for arm in arms], choice)


def _plan(compiler: Compiler, node: model.PlanNode, types: Names, path: Path) -> Draft:
    catalog = compiler.catalog
    goal = template(compiler, node.plan, types, (*path, "plan"), STR)
    inputs = compiled(dict(node.with_), types, compiler.findings, (*path, "with"))
    for name in node.with_:
        if not NAME.fullmatch(name) or name in KEYWORDS:
            place = compiler.findings.at(*path, "with", name, key=True)
            hint = f"call it {name.lower()}_" if name.lower() in KEYWORDS else "lower case letters, digits and _"
            compiler.findings.fault("L115", f"a plan cannot read a value that is called {name!r}", place, hint=hint)
    skills, workflows = _skills(compiler, node, path)
    tool_agents.planned(compiler, node, skills, workflows, path)
    for name in node.hearsay:
        if name not in node.with_:
            compiler.unknown("value", name, node.with_, (*path, "hearsay"))
    if node.larger is not None and node.larger not in catalog.agents:
        compiler.unknown("agent", node.larger, catalog.agents, (*path, "larger"))
    planning = None
    if goal is not None:
        values = dict(inputs.parts or {}) if inputs is not None else {}
        router = catalog.agents.get(node.router)
        reached = tool_agents.reached(compiler, skills, (*path, "agents"))
        planning = Planning(
            goal=goal,
            values=values,
            router=router,
            skills=tuple(skills),
            workflows=workflows,
            models=compiler.models,
            limits=node.limits,
            repairs=node.repairs,
            replans=node.replans,
            streaming=node.streaming,
            known=reached,
            larger=catalog.agents.get(node.larger) if node.larger is not None else None,
            votes=node.votes,
            cache=node.cache,
            stepwise=node.stepwise,
            copied=node.copied,
            literals=node.literals,
            confirm=node.confirm,
            grounds=tuple(name for name in values if node.with_[name] != node.plan) if node.grounded else (),
            each_part=node.each_part,
            hearsay=node.hearsay,
            anyway=node.anyway,
            shortlist=node.shortlist,
            judges=tool_agents.judges(compiler, (*skills, *reached), path),
        )
    anything = node.returns == model.ANYTHING and model.ANYTHING not in compiler.models
    output = ANY if anything else compiler.type(node.returns, (*path, "returns"))
    return Draft(kind="plan", inputs=inputs, output=output, planning=planning)


def _skills(compiler: Compiler, node: model.PlanNode, path: Path) -> tuple[tuple[Contract, ...], dict[str, Called]]:
    """What a plan may use: agents and tools, and workflows by name. Notes names that mean nothing (L111) or more than one thing (L063)."""
    catalog, findings = compiler.catalog, compiler.findings
    known = {"agents": frozenset(catalog.agents), "tools": frozenset(catalog.tools), "workflows": frozenset(catalog.workflows)}
    listed: dict[str, str] = {}
    skills: dict[str, Contract] = {}
    workflows: dict[str, Called] = {}
    for key, names in (("agents", node.agents), ("tools", node.tools), ("workflows", node.workflows)):
        for number, name in enumerate(names):
            place = (*path, key, number)
            if listed.setdefault(name, key) != key:
                said = f"{name!r} stands under `{listed[name]}` and under `{key}`, and a plan could not tell them apart"
                findings.fault("L063", said, findings.at(*place), hint="rename one, or leave one out")
            elif name not in known[key] and (other := next((one for one in known if name in known[one]), None)) is not None:
                said = f"{name!r} is {'an agent' if other == 'agents' else f'a {other[:-1]}'}"
                findings.fault("L111", said, findings.at(*place), hint=f"{other}: [{name}]")
            elif key == "workflows":
                if (called := compiler.called(name, place)) is not None:
                    workflows[name] = called
            elif name in known[key]:
                skills[name] = (catalog.agents if key == "agents" else catalog.tools)[name]
            else:
                compiler.unknown(key[:-1], name, known[key], place)
    if not listed:
        findings.warn("the plan may use nothing: list `agents`, `tools` or `workflows`", findings.at(*path, "plan", key=True))
    return tuple(skills.values()), workflows


def _ask(compiler: Compiler, node: model.AskNode, types: Names, path: Path) -> Draft:
    text = template(compiler, node.ask, types, (*path, "ask"), STR)
    stated = compiler.type(node.returns, (*path, "returns"))
    if node.options and stated not in (STR, ANY):
        place = compiler.findings.at(*path, "returns")
        compiler.findings.fault("L117", f"options are texts, and `returns` is {show(stated)}", place, hint="leave one of them out")
    return Draft(kind="ask", value=text, output={"enum": list(node.options)} if node.options else stated)
