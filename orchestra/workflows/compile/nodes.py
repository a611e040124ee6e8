"""Drafts: nodes compiled as far as their kind goes, before they have indices. One function a kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, assert_never

import msgspec

from orchestra.agents.contract import Contract, Schema
from orchestra.schema.json_schema import ANY, NULL, format_type, nullable, union
from orchestra.workflows import model
from orchestra.workflows.compile import agent_choice, tool_agents
from orchestra.workflows.compile.inputs import KeyPath, Types, as_reference, bind_inputs, bind_plain_inputs, check_assignable, try_compile
from orchestra.workflows.compile.ordering import NodeReferences, node_references, referenced_names
from orchestra.workflows.expressions.coverage import covers, when_conditions
from orchestra.workflows.expressions.parser import KEYWORDS
from orchestra.workflows.expressions.three_valued import static_truth
from orchestra.workflows.model import DEFAULT_RETRY, AnyNode, AtLeast, Retry
from orchestra.workflows.program import Acceptance, CompiledNode, Expression, NodeToolUse, PlanSettings, Program
from orchestra.workflows.python.signatures import NAME_PATTERN

if TYPE_CHECKING:
    from orchestra.workflows.compile.compiler import CalledWorkflow, Compiler

TypeScope = dict[str, Schema]
"""The types of the names that can be read, by name. One mapping for a whole workflow: bodies add their names and take them away again."""
BOOL: Schema = {"type": "boolean"}
STR: Schema = {"type": "string"}


class NodeDraft(msgspec.Struct, kw_only=True, gc=False):
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
    retry: Retry = DEFAULT_RETRY
    timeout: float | None = None
    acceptance: Acceptance | None = None
    plan_settings: PlanSettings | None = None
    tool_use: NodeToolUse | None = None
    escalate: Expression | None = None
    always_present: bool = True
    """Whether its kind always gives a value, failures apart."""

    def build_node(
        self, index: int, name: str, source: AnyNode, needs: tuple[int, ...], children: tuple[int, ...], soft: frozenset[int], height: int
    ) -> CompiledNode:
        """The node, given its place: its index, its name, what it needs, who needs it, and how far it is from the end."""
        # Named one by one the fields would take twice as long, and compiling a tenth more.
        return CompiledNode(index, name, self.kind, source, self.output, needs, children, bool(soft), soft, height, *_own_fields(self))


_FIELDS = CompiledNode.__struct_fields__
_own_fields = attrgetter(*_FIELDS[_FIELDS.index("contract") : _FIELDS.index("sample")])
"""What a draft has of a node's fields, in the order in which the node has them."""


def compile_kind(compiler: Compiler, name: str, node: AnyNode, types: TypeScope, path: KeyPath, reads: NodeReferences) -> NodeDraft:
    """A node as its kind has it. Faults are noted; what depends on them is left open."""
    match node:
        case model.ToolNode():
            return _compile_call(compiler, node, "tool", node.tool, types, path, reads)
        case model.AgentNode():
            if isinstance(node.agent, model.AgentChoice):
                return agent_choice.compile_choice(compiler, node, node.agent, types, path)
            return _compile_call(compiler, node, "agent", node.agent, types, path, reads)
        case model.CallNode():
            return _compile_workflow_call(compiler, node, types, path)
        case model.FirstOfNode():
            return _compile_first_of(compiler, node, types, path)
        case model.LoopNode():
            return _compile_loop(compiler, name, node, types, path)
        case model.PlanNode():
            return _compile_plan(compiler, node, types, path)
        case model.VerifyNode():
            value = try_compile(node.verify, types, compiler.findings, (*path, "verify"))
            if value is not None and not value.references:
                hint = as_reference(node.verify) or "${node}"
                compiler.findings.error(
                    "L118", "`verify` judges a constant", compiler.findings.place_of(*path, "verify"), hint=f"verify: {hint}"
                )
            return NodeDraft(kind="verify", output=value.schema if value else ANY, value=value)
        case model.AskNode():
            return _compile_ask(compiler, node, types, path)
        case _:
            assert_never(node)


def compile_typed(compiler: Compiler, given: Any, types: Types, path: KeyPath, wanted: Schema) -> Expression | None:
    """A template of a node, of the wanted type; None where it has faults, which are noted."""
    found = try_compile(given, types, compiler.findings, path)
    if found is not None:
        check_assignable(f"`{path[-1]}`", found.schema, wanted, compiler.findings, path, given)
    return found


def compile_condition(compiler: Compiler, text: str, types: Types, path: KeyPath) -> Expression | None:
    """A condition: a bool that depends on something (L114, L118); warned of where it is the same in every run."""
    findings, word = compiler.findings, path[-1]
    found = try_compile(text, types, findings, path)
    if found is None:
        return None
    if "${" not in text:
        hint = f"{word}: {as_reference(text) or '${condition}'}"
        findings.error("L114", f"`{word}` takes a condition, got the text {text[:60]!r}", findings.place_of(*path), hint=hint)
        return None
    before = len(findings.errors)
    check_assignable(f"`{word}`", found.schema, BOOL, findings, path, text)
    if len(findings.errors) > before:
        return found
    constant = found.evaluate({}) if not found.references else None
    if constant is not None:
        hint = "leave it out" if (word == "when") == constant else "leave the node out" if word == "when" else "write what ends the loop"
        if word == "escalate":
            hint = "name the larger model in the agent's card" if constant else "leave it out"
        findings.error("L118", f"`{word}` is always {str(constant).lower()}", findings.place_of(*path), hint=hint)
    elif (known := static_truth(text, types)) is not None:
        means = {("when", False): "the node never runs", ("until", False): "the loop always takes `at_most` turns"}
        usual = {"when": "it has no effect", "escalate": f"the larger model is {'always' if known else 'never'} asked at once"}
        says = means.get((str(word), known), usual.get(str(word), "the loop ends after one turn"))
        findings.warn(f"`{word}` is {str(known).lower()} whatever happens: {says}", findings.place_of(*path))
    return found


def _compile_call(
    compiler: Compiler,
    node: model.AgentNode | model.ToolNode,
    kind: str,
    callee: str,
    types: TypeScope,
    path: KeyPath,
    reads: NodeReferences,
) -> NodeDraft:
    catalog, findings = compiler.catalog, compiler.findings
    known, other = (catalog.agents, catalog.tools) if kind == "agent" else (catalog.tools, catalog.agents)
    contract = known.get(callee)
    if contract is not None:
        takes = compiler.callee_inputs(contract)
        inputs = bind_plain_inputs(reads, takes, types, findings)
        if inputs is None:
            inputs = bind_inputs(node.with_, takes, callee, types, findings, (*path, "with"))
        tool_use = (
            tool_agents.compile_tool_use(compiler, node, contract, path)
            if isinstance(node, model.AgentNode) and (contract.tool_use or node.tools)
            else None
        )
        return NodeDraft(kind=kind, contract=contract, inputs=inputs, output=contract.output, tool_use=tool_use)
    if callee in other:
        right, said = ("tool", "a tool") if kind == "agent" else ("agent", "an agent")
        findings.error("L111", f"{callee!r} is {said}", findings.place_of(*path, kind), hint=f"{right}: {callee}")
    else:
        compiler.report_unknown(kind, callee, known, (*path, kind))
    try_compile(dict(node.with_), types, findings, (*path, "with"))
    return NodeDraft(kind=kind)


def _compile_workflow_call(compiler: Compiler, node: model.CallNode, types: TypeScope, path: KeyPath) -> NodeDraft:
    if isinstance(node.call, model.NodeBlock):
        if node.with_:
            place = compiler.findings.place_of(*path, "with", key=True)
            compiler.findings.error("L117", "a block takes no `with:`", place, hint="it sees the names around it; refer to them inside")
        body = compiler.compile_body(node.call.nodes, node.call.output, types, (*path, "call"))
        return NodeDraft(kind="call", body=body.to_program(""), output=body.schema, always_present=body.always_present)
    called = compiler.resolve_workflow(node.call, (*path, "call"))
    if called is None:
        try_compile(dict(node.with_), types, compiler.findings, (*path, "with"))
        return NodeDraft(kind="call")
    program = called.program
    tool_agents.check_called_workflow(compiler, node, program, path)
    inputs = bind_inputs(node.with_, called.inputs, node.call, types, compiler.findings, (*path, "with"))
    return NodeDraft(kind="call", body=program, inputs=inputs, output=program.output_schema, always_present=called.always_present)


def _compile_loop(compiler: Compiler, name: str, node: model.LoopNode, types: TypeScope, path: KeyPath) -> NodeDraft:
    loop, findings = node.loop, compiler.findings
    inner = (*path, "loop")
    around = {word: types.get(word) for word in ("turn", "previous")}
    if not compiler.loop_depth:
        for word in around:
            if compiler.is_in_scope(word, types):
                hint = f"rename what is called {word!r}"
                findings.error("L115", f"inside a loop {word!r} is the loop's own", findings.place_of(*path, key=True), hint=hint)
    compiler.loop_depth += 1
    types["turn"] = {"type": "integer", "minimum": 1, "maximum": loop.at_most}
    types["previous"] = NULL
    if any("previous" in node_references(one).all for one in loop.nodes.values()) or "previous" in referenced_names(loop.output):
        # The type of `previous` is that of the output, which may read it: a first pass finds it, the real one checks with it.
        found: Schema = ANY
        with findings.discard_findings():
            before = len(findings.errors)
            found = compiler.compile_body(loop.nodes, loop.output, types, inner).schema
            found = found if len(findings.errors) == before else ANY
        if found == ANY:
            types["previous"] = ANY
            with findings.discard_findings():
                found = compiler.compile_body(loop.nodes, loop.output, types, inner).schema
        types["previous"] = nullable(found) if found != ANY else ANY
    body = compiler.compile_body(loop.nodes, loop.output, types, inner)
    if types["previous"] == NULL:
        types["previous"] = nullable(body.schema) if body.schema != ANY else ANY
    shadowed = {one: types[one] for one in body.types if one in types}
    types.update(body.types)
    until = compile_condition(compiler, loop.until, types, (*inner, "until"))
    _restore_scope(types, body.types, shadowed)
    _restore_scope(types, around, {word: schema for word, schema in around.items() if schema is not None})
    compiler.loop_depth -= 1
    if until is not None and not until.references <= body.present_nodes | types.keys() | {"turn", "previous"}:
        unsure = min(until.references - body.present_nodes - types.keys() - {"turn", "previous"})
        findings.warn(f"`until` fails where {unsure!r} is skipped or withheld", findings.place_of(*inner, "until"))
    return NodeDraft(
        kind="loop", body=body.to_program(name), output=body.schema, until=until, at_most=loop.at_most, always_present=body.always_present
    )


def _restore_scope(types: TypeScope, added: Mapping[str, Any], shadowed: Types) -> None:
    for name in added:
        types.pop(name, None)
    types.update(shadowed)


def _compile_first_of(compiler: Compiler, node: model.FirstOfNode, types: TypeScope, path: KeyPath) -> NodeDraft:
    findings = compiler.findings
    arms = [try_compile(arm, types, findings, (*path, "first_of", number)) for number, arm in enumerate(node.first_of)]
    found = tuple(arm for arm in arms if arm is not None)
    for number, arm in enumerate(arms[:-1]):
        if arm is not None and not arm.references:
            findings.warn("an arm behind a constant is never taken", findings.place_of(*path, "first_of", number + 1))
            break
    always_present = (
        len(found) < len(arms) or any(compiler.all_present(arm.references) for arm in found) or _is_exhaustive(compiler, node, found)
    )
    return NodeDraft(
        kind="first_of",
        arms=found,
        output=union([arm.schema for arm in found]) if len(found) == len(arms) else ANY,
        always_present=always_present,
    )


def _is_exhaustive(compiler: Compiler, node: model.FirstOfNode, arms: Sequence[Expression]) -> bool:
    """Whether the last arm runs where no earlier one does."""
    if len(arms) < 2 or node.each is not None:
        return False
    around = when_conditions(node.when)
    given = compiler.enclosing_nodes[-1]

    def choice(name: str) -> Sequence[Any] | None:
        found = given.get(name)
        return found.first_of if isinstance(found, model.FirstOfNode) and found.model_fields_set <= {"first_of", "when"} else None

    return around is not None and covers(around, [(arm.references, compiler.conditions_of(arm.references)) for arm in arms], choice)


def _compile_plan(compiler: Compiler, node: model.PlanNode, types: TypeScope, path: KeyPath) -> NodeDraft:
    catalog = compiler.catalog
    goal = compile_typed(compiler, node.plan, types, (*path, "plan"), STR)
    inputs = try_compile(dict(node.with_), types, compiler.findings, (*path, "with"))
    for name in node.with_:
        if not NAME_PATTERN.fullmatch(name) or name in KEYWORDS:
            place = compiler.findings.place_of(*path, "with", name, key=True)
            hint = f"call it {name.lower()}_" if name.lower() in KEYWORDS else "lower case letters, digits and _"
            compiler.findings.error("L115", f"a plan cannot read a value that is called {name!r}", place, hint=hint)
    capabilities, workflows = _resolve_capabilities(compiler, node, path)
    tool_agents.check_plan_effects(compiler, node, capabilities, workflows, path)
    for name in node.hearsay:
        if name not in node.with_:
            compiler.report_unknown("value", name, node.with_, (*path, "hearsay"))
    if node.larger is not None and node.larger not in catalog.agents:
        compiler.report_unknown("agent", node.larger, catalog.agents, (*path, "larger"))
    plan_settings = None
    if goal is not None:
        values = dict(inputs.parts or {}) if inputs is not None else {}
        router = catalog.agents.get(node.router)
        reached = tool_agents.reachable_contracts(compiler, capabilities, (*path, "agents"))
        plan_settings = PlanSettings(
            goal=goal,
            values=values,
            router=router,
            capabilities=tuple(capabilities),
            workflows=workflows,
            models=compiler.models,
            limits=node.limits,
            repairs=node.repairs,
            replans=node.replans,
            streaming=node.streaming,
            reachable=reached,
            larger=catalog.agents.get(node.larger) if node.larger is not None else None,
            votes=node.votes,
            cache=node.cache,
            stepwise=node.stepwise,
            copied=node.copied,
            literals=node.literals,
            confirm=node.confirm,
            grounding_values=tuple(name for name in values if node.with_[name] != node.plan) if node.grounded else (),
            each_part=node.each_part,
            hearsay=node.hearsay,
            anyway=node.anyway,
            shortlist=node.shortlist,
            judges=tool_agents.card_judges(compiler, (*capabilities, *reached), path),
        )
    anything = node.returns == model.ANYTHING and model.ANYTHING not in compiler.models
    output = ANY if anything else compiler.resolve_type(node.returns, (*path, "returns"))
    return NodeDraft(kind="plan", inputs=inputs, output=output, plan_settings=plan_settings)


def _resolve_capabilities(
    compiler: Compiler, node: model.PlanNode, path: KeyPath
) -> tuple[tuple[Contract, ...], dict[str, CalledWorkflow]]:
    """What a plan may use: agents and tools, and workflows by name. Notes names that mean nothing (L111) or more than one thing (L063)."""
    catalog, findings = compiler.catalog, compiler.findings
    known = {"agents": frozenset(catalog.agents), "tools": frozenset(catalog.tools), "workflows": frozenset(catalog.workflows)}
    listed: dict[str, str] = {}
    capabilities: dict[str, Contract] = {}
    workflows: dict[str, CalledWorkflow] = {}
    for key, names in (("agents", node.agents), ("tools", node.tools), ("workflows", node.workflows)):
        for number, name in enumerate(names):
            place = (*path, key, number)
            if listed.setdefault(name, key) != key:
                said = f"{name!r} stands under `{listed[name]}` and under `{key}`, and a plan could not tell them apart"
                findings.error("L063", said, findings.place_of(*place), hint="rename one, or leave one out")
            elif name not in known[key] and (other := next((one for one in known if name in known[one]), None)) is not None:
                said = f"{name!r} is {'an agent' if other == 'agents' else f'a {other[:-1]}'}"
                findings.error("L111", said, findings.place_of(*place), hint=f"{other}: [{name}]")
            elif key == "workflows":
                if (called := compiler.resolve_workflow(name, place)) is not None:
                    workflows[name] = called
            elif name in known[key]:
                capabilities[name] = (catalog.agents if key == "agents" else catalog.tools)[name]
            else:
                compiler.report_unknown(key[:-1], name, known[key], place)
    if not listed:
        findings.warn("the plan may use nothing: list `agents`, `tools` or `workflows`", findings.place_of(*path, "plan", key=True))
    return tuple(capabilities.values()), workflows


def _compile_ask(compiler: Compiler, node: model.AskNode, types: TypeScope, path: KeyPath) -> NodeDraft:
    text = compile_typed(compiler, node.ask, types, (*path, "ask"), STR)
    stated = compiler.resolve_type(node.returns, (*path, "returns"))
    if node.options and stated not in (STR, ANY):
        place = compiler.findings.place_of(*path, "returns")
        compiler.findings.error("L117", f"options are texts, and `returns` is {format_type(stated)}", place, hint="leave one of them out")
    return NodeDraft(kind="ask", value=text, output={"enum": list(node.options)} if node.options else stated)
