"""Compilers of nodes: the kinds, the modifiers, choices of agents, and the inputs of calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from orchestra.agents.contract import Contract
from orchestra.core.suggestions import closest_match
from orchestra.schema.json_schema import (
    ANY,
    MAP_MARKER,
    NULL,
    Schema,
    element_type,
    enum_values,
    format_type,
    nullable,
    resolve,
    subschema,
    union,
    union_members,
)
from orchestra.workflows import model
from orchestra.workflows.compile import tool_agents
from orchestra.workflows.compile.agent_choice import (
    ChoiceCondition,
    ChoiceOutput,
    agent_nodes,
    choice_of,
    label_values,
    labels_by_agent,
    missing_labels,
    outer_node,
)
from orchestra.workflows.compile.assemble import NodeDraft, assemble_nodes
from orchestra.workflows.compile.context import CompileContext, TypeScope
from orchestra.workflows.compile.diagnostics import (
    Findings,
    KeyPath,
    Types,
    as_reference,
    check_assignable,
    is_assignable,
    join_names,
    suggestion,
    try_compile,
    widen_constant_list,
)
from orchestra.workflows.compile.ordering import NO_NAMES, NodeReferences, node_references, referenced_names
from orchestra.workflows.expressions.condition_analysis import combine_conditions, covers, static_truth, when_conditions
from orchestra.workflows.expressions.evaluation import MappingExpression
from orchestra.workflows.expressions.evaluation import PathExpression as PathExpression
from orchestra.workflows.expressions.parser import KEYWORDS, sole_reference
from orchestra.workflows.expressions.templates import compile_template, resolve_steps
from orchestra.workflows.model import DEFAULT_RETRY, AgentChoice, AgentNode, AnyNode
from orchestra.workflows.program import (
    CalledWorkflow,
    CalleeInputs,
    Expression,
    PlanSettings,
    Program,
)
from orchestra.workflows.python.signatures import NAME_PATTERN

BOOL: Schema = {"type": "boolean"}


STR: Schema = {"type": "string"}


_MODIFIERS = frozenset(model.Node.model_fields) - {"after"} | {"escalate"}
"""A bare node sets none of these keys."""


def compile_node(
    context: CompileContext, name: str, node: AnyNode, types: TypeScope, reads: NodeReferences, path: KeyPath
) -> NodeDraft:
    """Compiles a node: first its kind, then its modifiers. Records whether it always has a value."""
    if not reads.is_plain_call:
        return _compile_node(context, name, node, types, reads, path)
    draft = _compile_kind(context, name, node, types, path, reads)
    if draft.contract is not None and draft.contract.checks:
        _apply_modifiers(context, node, draft, types, path)
    else:
        draft.retry, draft.timeout = context.defaults.retry or DEFAULT_RETRY, context.defaults.timeout
    context.always_present[name] = draft.acceptance is None and context.all_present(reads.hard)
    if not context.always_present[name]:
        context.presence_conditions[name] = context.conditions_of(reads.hard) if draft.acceptance is None else None
    return draft


def _compile_node(
    context: CompileContext, name: str, node: AnyNode, types: TypeScope, reads: NodeReferences, path: KeyPath
) -> NodeDraft:
    bare = node.model_fields_set.isdisjoint(_MODIFIERS)
    items, element_schema = (None, ANY) if bare else _compile_each(context, node, types, path)
    hidden_type = types.get(node.as_) if node.as_ else None
    if node.as_:
        types[node.as_] = element_schema
    draft = _compile_kind(context, name, node, types, path, reads)
    draft.each = items
    if isinstance(node, model.AgentNode) and choice_of(node) is not None:
        _apply_modifiers(context, outer_node(node), draft, types, path)
        draft.timeout = None  # The timeout applies to an attempt of each agent.
    elif bare and not isinstance(node, model.VerifyNode) and (draft.contract is None or not draft.contract.checks):
        draft.retry, draft.timeout = context.defaults.retry or DEFAULT_RETRY, context.defaults.timeout
    else:
        _apply_modifiers(context, node, draft, types, path)
    if node.as_:
        del types[node.as_]
        if hidden_type is not None:
            types[node.as_] = hidden_type
    alone = node.each is not None or (draft.always_present and draft.acceptance is None)
    is_alone = alone and (node.when is None or _is_per_element(node)) and context.all_present(reads.hard)
    fallback = draft.fallback
    context.always_present[name] = is_alone or (fallback is not None and context.all_present(fallback.references))
    if not context.always_present[name]:
        own_conditions = () if _is_per_element(node) else when_conditions(node.when)
        context.presence_conditions[name] = (
            combine_conditions((own_conditions, context.conditions_of(reads.hard))) if alone else None
        )
    return draft


def _is_per_element(node: AnyNode) -> bool:
    """Whether `when` is evaluated for each element. It then drops elements instead of the node."""
    return node.as_ is not None and node.as_ in referenced_names(node.when)


def _compile_each(
    context: CompileContext, node: AnyNode, types: TypeScope, path: KeyPath
) -> tuple[Expression | None, Schema]:
    """Returns the compiled list of a node under `each`, and the type of one element."""
    findings = context.findings
    if node.each is None:
        for key in ("as_", "limit", "concurrency", "at_least"):
            if getattr(node, key) is not None:
                word = key.rstrip("_")
                findings.error(
                    "L117",
                    f"`{word}` goes with `each`",
                    findings.location_of(*path, word, key=True),
                    hint="each: ${list}",
                )
        return None, ANY
    items = try_compile(node.each, types, findings, (*path, "each"))
    element_schema: Schema = ANY
    if items is not None and items.schema != ANY:
        element = element_type(widen_constant_list(items.schema))
        if isinstance(element, str):
            hint = (
                f"each: {as_reference(node.each)}" if as_reference(node.each) else _list_hint(items.schema, node.each)
            )
            findings.error(
                "L114",
                f"`each` takes a list, got {format_type(items.schema)}",
                findings.location_of(*path, "each"),
                hint=hint,
            )
        else:
            element_schema = element
    if node.as_ is None:
        hint = "as: item, which the other keys then refer to"
        findings.error("L117", "`each` needs `as`", findings.location_of(*path, "each", key=True), hint=hint)
        return items, element_schema
    if node.as_ in KEYWORDS:
        hint = f"call it {node.as_}_"
        findings.error(
            "L115", f"{node.as_!r} is a word of the expression language", findings.location_of(*path, "as"), hint=hint
        )
    elif context.is_in_scope(node.as_, types):
        hint = "give the element a name of its own"
        findings.error("L115", f"{node.as_!r} hides another of that name", findings.location_of(*path, "as"), hint=hint)
    return items, element_schema


def _list_hint(schema: Schema, written_text: str) -> str:
    """Returns a hint: a list field of the record, or a default for null."""
    text = sole_reference(written_text)
    if text and any(part.get("type") == "null" for part in union_members(schema)):
        return f"give a default for null: ${{{text} != null ? {text} : []}}"
    fields = resolve(schema).get("properties", {})
    lists = [name for name, part in fields.items() if isinstance(element_type(subschema(schema, part)), dict) and part]
    return f"did you mean ${{{text}.{lists[0]}}}?" if text and lists else "give it a list, such as ${documents}"


def _apply_modifiers(context: CompileContext, node: AnyNode, draft: NodeDraft, types: Types, path: KeyPath) -> None:
    """Compiles the modifiers. `types` is the scope of one element."""
    if node.when is not None:
        draft.when = _compile_condition(context, node.when, types, (*path, "when"))
    if node.fallback is not None:
        draft.fallback = try_compile(node.fallback, types, context.findings, (*path, "fallback"))
        if draft.fallback is not None and draft.output != ANY:
            check_assignable(
                "`fallback`", draft.fallback.schema, draft.output, context.findings, (*path, "fallback"), node.fallback
            )
    draft.variable = node.as_ or ""
    draft.limit = node.limit or 10_000
    draft.concurrency, draft.at_least = node.concurrency, node.at_least
    if isinstance(node.at_least, int) and node.at_least > draft.limit:
        message = f"`at_least: {node.at_least}` can never be met: the list has {draft.limit:,} elements at most"
        context.findings.error(
            "L118",
            message,
            context.findings.location_of(*path, "at_least"),
            hint=f"at_least: {draft.limit}, or at_least: all",
        )
    draft.retry = node.retry or context.defaults.retry or DEFAULT_RETRY
    draft.timeout = node.timeout or context.defaults.timeout
    if node.checks or (draft.contract is not None and draft.contract.checks):
        from orchestra.workflows.compile.checks import compile_acceptance

        draft.acceptance = compile_acceptance(context, node, draft, types, path)
    else:
        _reject_check_keys(context, node, path)
    if isinstance(node, model.AgentNode) and node.escalate is not None:
        draft.escalate = _compile_escalation(context, node.escalate, draft, types, (*path, "escalate"))


def _compile_escalation(
    context: CompileContext, text: str, draft: NodeDraft, types: Types, path: KeyPath
) -> Expression | None:
    """Compiles the condition of a direct call of the larger model. Agents with tools have no such condition."""
    findings = context.findings
    if draft.contract is not None and draft.contract.tool_use is not None:
        reason = f"{draft.contract.name} uses tools, and each of its lines is a call of its own"
        hint = "name the larger model in the agent's card"
        findings.error(
            "L117",
            "`escalate` goes with an agent without tools",
            findings.location_of(*path, key=True),
            hint=hint,
            why=reason,
        )
    if draft.acceptance is not None and draft.acceptance.certificate is not None:
        findings.warn(
            "a direct answer of the larger model is not covered by the certificate", findings.location_of(*path)
        )
    return _compile_condition(context, text, types, path)


def _reject_check_keys(context: CompileContext, node: AnyNode, path: KeyPath) -> None:
    """Reports the keys of checks on a node without checks."""
    findings = context.findings
    for key in ("against", "score", "accept", "otherwise"):
        if getattr(node, key) not in (None, ()):
            findings.error(
                "L117",
                f"`{key}` goes with `checks`",
                findings.location_of(*path, key, key=True),
                hint="checks: [quote]",
            )
    if isinstance(node, model.VerifyNode):
        findings.error(
            "L117", "a `verify` node needs `checks`", findings.location_of(*path, key=True), hint="checks: [quote]"
        )


def _compile_kind(
    context: CompileContext, name: str, node: AnyNode, types: TypeScope, path: KeyPath, reads: NodeReferences
) -> NodeDraft:
    """Compiles a node by its kind. Errors are recorded; what depends on an invalid part stays unset."""
    match node:
        case model.ToolNode():
            return _compile_call(context, node, "tool", node.tool, types, path, reads)
        case model.AgentNode():
            if isinstance(node.agent, model.AgentChoice):
                return _compile_choice(context, node, node.agent, types, path)
            return _compile_call(context, node, "agent", node.agent, types, path, reads)
        case model.CallNode():
            return _compile_workflow_call(context, node, types, path)
        case model.FirstOfNode():
            return _compile_first_of(context, node, types, path)
        case model.LoopNode():
            return _compile_loop(context, name, node, types, path)
        case model.PlanNode():
            return _compile_plan(context, node, types, path)
        case model.VerifyNode():
            value = try_compile(node.verify, types, context.findings, (*path, "verify"))
            if value is not None and not value.references:
                hint = as_reference(node.verify) or "${node}"
                context.findings.error(
                    "L118",
                    "`verify` checks a constant",
                    context.findings.location_of(*path, "verify"),
                    hint=f"verify: {hint}",
                )
            return NodeDraft(kind="verify", output=value.schema if value else ANY, value=value)
        case model.AskNode():
            return _compile_ask(context, node, types, path)
        case _:
            assert_never(node)


def _compile_typed(
    context: CompileContext, template: Any, types: Types, path: KeyPath, expected_schema: Schema
) -> Expression | None:
    """Compiles a template of an expected type. Returns None if it has errors, which are recorded."""
    expression = try_compile(template, types, context.findings, path)
    if expression is not None:
        check_assignable(f"`{path[-1]}`", expression.schema, expected_schema, context.findings, path, template)
    return expression


def _compile_condition(context: CompileContext, text: str, types: Types, path: KeyPath) -> Expression | None:
    """Compiles a condition: a bool that is not constant (L114, L118). Warns if it has the same value in every run."""
    findings, word = context.findings, path[-1]
    expression = try_compile(text, types, findings, path)
    if expression is None:
        return None
    if "${" not in text:
        hint = f"{word}: {as_reference(text) or '${condition}'}"
        findings.error(
            "L114", f"`{word}` takes a condition, got the text {text[:60]!r}", findings.location_of(*path), hint=hint
        )
        return None
    before = len(findings.errors)
    check_assignable(f"`{word}`", expression.schema, BOOL, findings, path, text)
    if len(findings.errors) > before:
        return expression
    constant = expression.evaluate({}) if not expression.references else None
    if constant is not None:
        hint = (
            "leave it out"
            if (word == "when") == constant
            else "leave the node out"
            if word == "when"
            else "write what ends the loop"
        )
        if word == "escalate":
            hint = "name the larger model in the agent's card" if constant else "leave it out"
        findings.error("L118", f"`{word}` is always {str(constant).lower()}", findings.location_of(*path), hint=hint)
    elif (static_value := static_truth(text, types)) is not None:
        means = {("when", False): "the node never runs", ("until", False): "the loop always takes `at_most` turns"}
        usual = {
            "when": "it has no effect",
            "escalate": f"the larger model is {'always' if static_value else 'never'} called at once",
        }
        says = means.get((str(word), static_value), usual.get(str(word), "the loop ends after one turn"))
        findings.warn(f"`{word}` is {str(static_value).lower()} in every run: {says}", findings.location_of(*path))
    return expression


def _compile_call(
    context: CompileContext,
    node: model.AgentNode | model.ToolNode,
    kind: str,
    callee: str,
    types: TypeScope,
    path: KeyPath,
    reads: NodeReferences,
) -> NodeDraft:
    catalog, findings = context.catalog, context.findings
    contracts, other_contracts = (catalog.agents, catalog.tools) if kind == "agent" else (catalog.tools, catalog.agents)
    contract = contracts.get(callee)
    if contract is not None:
        takes = context.callee_inputs(contract)
        inputs = bind_plain_inputs(reads, takes, types, findings)
        if inputs is None:
            inputs = bind_inputs(node.with_, takes, callee, types, findings, (*path, "with"))
        tool_use = (
            tool_agents.compile_tool_use(context, node, contract, path)
            if isinstance(node, model.AgentNode) and (contract.tool_use or node.tools)
            else None
        )
        return NodeDraft(kind=kind, contract=contract, inputs=inputs, output=contract.output, tool_use=tool_use)
    if callee in other_contracts:
        right, kind_text = ("tool", "a tool") if kind == "agent" else ("agent", "an agent")
        findings.error(
            "L111", f"{callee!r} is {kind_text}", findings.location_of(*path, kind), hint=f"{right}: {callee}"
        )
    else:
        context.report_unknown(kind, callee, contracts, (*path, kind))
    try_compile(dict(node.with_), types, findings, (*path, "with"))
    return NodeDraft(kind=kind)


def _compile_workflow_call(context: CompileContext, node: model.CallNode, types: TypeScope, path: KeyPath) -> NodeDraft:
    if isinstance(node.call, model.NodeBlock):
        if node.with_:
            location = context.findings.location_of(*path, "with", key=True)
            context.findings.error(
                "L117", "a block takes no `with:`", location, hint="it sees the names around it; refer to them inside"
            )
        body = context.compile_body(node.call.nodes, node.call.output, types, (*path, "call"))
        return NodeDraft(kind="call", body=body.to_program(""), output=body.schema, always_present=body.always_present)
    called_workflow = context.resolve_workflow(node.call, (*path, "call"))
    if called_workflow is None:
        try_compile(dict(node.with_), types, context.findings, (*path, "with"))
        return NodeDraft(kind="call")
    program = called_workflow.program
    tool_agents.check_called_workflow(context, node, program, path)
    inputs = bind_inputs(node.with_, called_workflow.inputs, node.call, types, context.findings, (*path, "with"))
    return NodeDraft(
        kind="call",
        body=program,
        inputs=inputs,
        output=program.output_schema,
        always_present=called_workflow.always_present,
    )


def _compile_loop(
    context: CompileContext, name: str, node: model.LoopNode, types: TypeScope, path: KeyPath
) -> NodeDraft:
    loop, findings = node.loop, context.findings
    inner = (*path, "loop")
    around = {word: types.get(word) for word in ("turn", "previous")}
    if not context.loop_depth:
        for word in around:
            if context.is_in_scope(word, types):
                hint = f"rename {word!r}"
                findings.error(
                    "L115",
                    f"inside a loop {word!r} is the loop's own",
                    findings.location_of(*path, key=True),
                    hint=hint,
                )
    context.loop_depth += 1
    types["turn"] = {"type": "integer", "minimum": 1, "maximum": loop.at_most}
    types["previous"] = NULL
    if any(
        "previous" in node_references(body_node).all for body_node in loop.nodes.values()
    ) or "previous" in referenced_names(loop.output):
        # `previous` has the type of the output, which may read `previous`. A first pass finds the type, the last pass
        # checks with it.
        element_schema: Schema = ANY
        with findings.discard_findings():
            before = len(findings.errors)
            element_schema = context.compile_body(loop.nodes, loop.output, types, inner).schema
            element_schema = element_schema if len(findings.errors) == before else ANY
        if element_schema == ANY:
            types["previous"] = ANY
            with findings.discard_findings():
                element_schema = context.compile_body(loop.nodes, loop.output, types, inner).schema
        types["previous"] = nullable(element_schema) if element_schema != ANY else ANY
    body = context.compile_body(loop.nodes, loop.output, types, inner)
    if types["previous"] == NULL:
        types["previous"] = nullable(body.schema) if body.schema != ANY else ANY
    shadowed_types = {type_name: types[type_name] for type_name in body.types if type_name in types}
    types.update(body.types)
    until = _compile_condition(context, loop.until, types, (*inner, "until"))
    _restore_scope(types, body.types, shadowed_types)
    _restore_scope(types, around, {word: schema for word, schema in around.items() if schema is not None})
    context.loop_depth -= 1
    if until is not None and not until.references <= body.present_nodes | types.keys() | {"turn", "previous"}:
        unsure = min(until.references - body.present_nodes - types.keys() - {"turn", "previous"})
        findings.warn(f"`until` fails where {unsure!r} is skipped or withheld", findings.location_of(*inner, "until"))
    return NodeDraft(
        kind="loop",
        body=body.to_program(name),
        output=body.schema,
        until=until,
        at_most=loop.at_most,
        always_present=body.always_present,
    )


def _restore_scope(types: TypeScope, added_names: Mapping[str, Any], shadowed_types: Types) -> None:
    for name in added_names:
        types.pop(name, None)
    types.update(shadowed_types)


def _compile_first_of(context: CompileContext, node: model.FirstOfNode, types: TypeScope, path: KeyPath) -> NodeDraft:
    findings = context.findings
    arms = [try_compile(arm, types, findings, (*path, "first_of", number)) for number, arm in enumerate(node.first_of)]
    arm_expressions = tuple(arm for arm in arms if arm is not None)
    for number, arm in enumerate(arms[:-1]):
        if arm is not None and not arm.references:
            findings.warn(
                "an arm behind a constant is never taken", findings.location_of(*path, "first_of", number + 1)
            )
            break
    always_present = (
        len(arm_expressions) < len(arms)
        or any(context.all_present(arm.references) for arm in arm_expressions)
        or _is_exhaustive(context, node, arm_expressions)
    )
    return NodeDraft(
        kind="first_of",
        arms=arm_expressions,
        output=union([arm.schema for arm in arm_expressions]) if len(arm_expressions) == len(arms) else ANY,
        always_present=always_present,
    )


def _is_exhaustive(context: CompileContext, node: model.FirstOfNode, arms: Sequence[Expression]) -> bool:
    """Whether the last arm runs if no earlier one does."""
    if len(arms) < 2 or node.each is not None:
        return False
    around = when_conditions(node.when)
    nodes = context.enclosing_nodes[-1]

    def first_of_arms(name: str) -> Sequence[Any] | None:
        arm_node = nodes.get(name)
        return (
            arm_node.first_of
            if isinstance(arm_node, model.FirstOfNode) and arm_node.model_fields_set <= {"first_of", "when"}
            else None
        )

    return around is not None and covers(
        around, [(arm.references, context.conditions_of(arm.references)) for arm in arms], first_of_arms
    )


def _compile_plan(context: CompileContext, node: model.PlanNode, types: TypeScope, path: KeyPath) -> NodeDraft:
    catalog = context.catalog
    goal = _compile_typed(context, node.plan, types, (*path, "plan"), STR)
    inputs = try_compile(dict(node.with_), types, context.findings, (*path, "with"))
    for name in node.with_:
        if not NAME_PATTERN.fullmatch(name) or name in KEYWORDS:
            location = context.findings.location_of(*path, "with", name, key=True)
            hint = f"call it {name.lower()}_" if name.lower() in KEYWORDS else "lower case letters, digits and _"
            context.findings.error("L115", f"a plan cannot read a value that is called {name!r}", location, hint=hint)
    capabilities, workflows = _resolve_capabilities(context, node, path)
    tool_agents.check_plan_effects(context, node, capabilities, workflows, path)
    for name in node.hearsay:
        if name not in node.with_:
            context.report_unknown("value", name, node.with_, (*path, "hearsay"))
    if node.larger is not None and node.larger not in catalog.agents:
        context.report_unknown("agent", node.larger, catalog.agents, (*path, "larger"))
    plan_settings = None
    if goal is not None:
        values = dict(inputs.parts or {}) if inputs is not None else {}
        router = catalog.agents.get(node.router)
        contracts = tool_agents.reachable_contracts(context, capabilities, (*path, "agents"))
        plan_settings = PlanSettings(
            goal=goal,
            values=values,
            router=router,
            capabilities=tuple(capabilities),
            workflows=workflows,
            models=context.models,
            limits=node.limits,
            repairs=node.repairs,
            replans=node.replans,
            streaming=node.streaming,
            reachable=contracts,
            larger=catalog.agents.get(node.larger) if node.larger is not None else None,
            votes=node.votes,
            cache=node.cache,
            stepwise=node.stepwise,
            copied=node.copied,
            literals=node.literals,
            confirm=node.confirm,
            grounding_values=tuple(name for name in values if node.with_[name] != node.plan) if node.grounded else (),
            each_part=node.each_part,
            rules=node.rules,
            hearsay=node.hearsay,
            anyway=node.anyway,
            shortlist=node.shortlist,
            judges=tool_agents.card_judges(context, (*capabilities, *contracts), path),
        )
    anything = node.returns == model.ANYTHING and model.ANYTHING not in context.models
    output = ANY if anything else context.resolve_type(node.returns, (*path, "returns"))
    return NodeDraft(kind="plan", inputs=inputs, output=output, plan_settings=plan_settings)


def _resolve_capabilities(
    context: CompileContext, node: model.PlanNode, path: KeyPath
) -> tuple[tuple[Contract, ...], dict[str, CalledWorkflow]]:
    """Returns the agents and tools a plan may use, and the workflows by name. Reports unknown (L111) and ambiguous
    (L063) names.
    """
    catalog, findings = context.catalog, context.findings
    known_names = {
        "agents": frozenset(catalog.agents),
        "tools": frozenset(catalog.tools),
        "workflows": frozenset(catalog.workflows),
    }
    keys_by_name: dict[str, str] = {}
    capabilities: dict[str, Contract] = {}
    workflows: dict[str, CalledWorkflow] = {}
    for key, names in (("agents", node.agents), ("tools", node.tools), ("workflows", node.workflows)):
        for number, name in enumerate(names):
            place = (*path, key, number)
            if keys_by_name.setdefault(name, key) != key:
                message = (
                    f"{name!r} is under `{keys_by_name[name]}` and under `{key}`, and a plan cannot distinguish them"
                )
                findings.error("L063", message, findings.location_of(*place), hint="rename one, or leave one out")
            elif (
                name not in known_names[key]
                and (
                    other_key := next((candidate for candidate in known_names if name in known_names[candidate]), None)
                )
                is not None
            ):
                message = f"{name!r} is {'an agent' if other_key == 'agents' else f'a {other_key[:-1]}'}"
                findings.error("L111", message, findings.location_of(*place), hint=f"{other_key}: [{name}]")
            elif key == "workflows":
                if (workflow := context.resolve_workflow(name, place)) is not None:
                    workflows[name] = workflow
            elif name in known_names[key]:
                capabilities[name] = (catalog.agents if key == "agents" else catalog.tools)[name]
            else:
                context.report_unknown(key[:-1], name, known_names[key], place)
    if not keys_by_name:
        findings.warn(
            "the plan may use nothing: list `agents`, `tools` or `workflows`",
            findings.location_of(*path, "plan", key=True),
        )
    return tuple(capabilities.values()), workflows


def _compile_ask(context: CompileContext, node: model.AskNode, types: TypeScope, path: KeyPath) -> NodeDraft:
    text = _compile_typed(context, node.ask, types, (*path, "ask"), STR)
    schema = context.resolve_type(node.returns, (*path, "returns"))
    if node.options and schema not in (STR, ANY):
        location = context.findings.location_of(*path, "returns")
        context.findings.error(
            "L117", f"options are texts, and `returns` is {format_type(schema)}", location, hint="leave one of them out"
        )
    return NodeDraft(kind="ask", value=text, output={"enum": list(node.options)} if node.options else schema)


def _compile_choice(
    context: CompileContext, node: AgentNode, choice: AgentChoice, types: TypeScope, path: KeyPath
) -> NodeDraft:
    """Compiles a choice of agents to a block. Reports labels without an agent (L122), impossible labels (L054) and
    unknown agents (L111).
    """

    by = _compile_label(context, choice, types, path)
    contracts = _choice_agents(context, choice, path)
    tools = _allowed_tools(node, contracts)
    sources = {name: agent_node for name, agent_node in agent_nodes(node, choice).items() if name in contracts}
    drafts: dict[str, NodeDraft] = {}
    always_present = by is not None and len(contracts) == len(labels_by_agent(choice))
    for name, source in sources.items():
        plain = source.model_copy(update={"when": None, "tools": tools[name]})
        before = context.always_present.pop(name, None)
        drafts[name] = compile_node(context, name, plain, types, node_references(plain), path)
        always_present &= context.always_present.pop(name)
        if before is not None:
            context.always_present[name] = before
        drafts[name].when = ChoiceCondition(by, choice, name) if by is not None else None
    if not sources:
        return NodeDraft(kind="call", always_present=True)
    output = union([draft.output for draft in drafts.values()]) if len(drafts) == len(labels_by_agent(choice)) else ANY
    nodes = assemble_nodes(
        sources,
        [*sources],
        drafts,
        dict.fromkeys(sources, NodeReferences(NO_NAMES, NO_NAMES, NO_NAMES)),
        dict.fromkeys(sources, NO_NAMES),
    )
    body = Program(
        "", nodes, ChoiceOutput(frozenset(sources), output), output, {}, sees_outer_scope=True, runs_one_node=True
    )
    return NodeDraft(kind="call", body=body, output=output, value=by, always_present=always_present)


def _choice_agents(context: CompileContext, choice: AgentChoice, path: KeyPath) -> dict[str, Contract]:
    """Returns the known agents of a choice, by name."""
    catalog, contracts = context.catalog, {}
    places: list[tuple[str, KeyPath]] = [(name, (*path, "agent", "of", label)) for label, name in choice.of.items()]
    places += [(choice.otherwise, (*path, "agent", "otherwise"))] if choice.otherwise is not None else []
    for name, place in places:
        if (contract := catalog.agents.get(name)) is not None:
            contracts[name] = contract
        elif name in catalog.tools:
            hint = "a choice is of agents; for a tool, `when` and `first_of`"
            context.findings.error("L111", f"{name!r} is a tool", context.findings.location_of(*place), hint=hint)
        else:
            context.report_unknown("agent", name, catalog.agents, place)
    return contracts


def _allowed_tools(node: AgentNode, contracts: Mapping[str, Contract]) -> dict[str, tuple[str, ...]]:
    """Returns the tools with effects that each agent may use here.

    An agent gets the tools of its own card. A tool that is on no card goes to the first agent, whose compilation
    reports it.
    """
    cards = {
        name: contract.tool_use.tools if contract.tool_use is not None else () for name, contract in contracts.items()
    }
    nobodys = [tool for tool in node.tools if not any(tool in tool_names for tool_names in cards.values())]
    return {
        name: tuple(tool for tool in node.tools if tool in tool_names or (not number and tool in nobodys))
        for number, (name, tool_names) in enumerate(cards.items())
    }


def _compile_label(context: CompileContext, choice: AgentChoice, types: TypeScope, path: KeyPath) -> Expression | None:
    """Compiles `by` and checks that it is a label, a bool or null (L114), and that each value has an agent (L054,
    L122).
    """
    findings, at = context.findings, (*path, "agent", "by")
    by = try_compile(choice.by, types, findings, at)
    if by is None:
        return None
    if not by.references:
        hint = f"by: {as_reference(choice.by) or '${intent.intent}'}"
        findings.error("L118", "`by` is the same in every run", findings.location_of(*at), hint=hint)
        return None
    parts = union_members(by.schema)
    texts = [part for part in parts if part.get("type") not in ("null", "boolean") and enum_values(part) != [None]]
    before = len(findings.errors)
    if by.schema == ANY and not findings.errors:
        hint = "give its producer a type, such as `Literal['a', 'b']`"
        findings.error("L114", "`by` takes a text or a bool, got anything", findings.location_of(*at), hint=hint)
    elif texts and not all(_is_label_type(part) for part in texts):
        check_assignable("`by`", union(texts), STR, findings, at, choice.by)
    if by.schema != ANY and len(findings.errors) == before:
        _check_labels(context, choice, by.schema, path)
    return by


def _is_label_type(part: Schema) -> bool:
    """Whether all values of a part of a type are labels."""
    values = enum_values(part)
    return (
        part.get("type") == "string"
        if values is None
        else all(isinstance(value, str | bool | None) for value in values)
    )


def _check_labels(context: CompileContext, choice: AgentChoice, schema: Schema, path: KeyPath) -> None:
    """Reports impossible labels, and labels without an agent."""
    findings = context.findings
    labels, any_text, null = label_values(schema)
    by = sole_reference(choice.by) or choice.by
    for label in choice.of if not any_text else ():
        if label not in labels:
            near = closest_match(label, labels)
            hint = f"did you mean {near!r}?" if near else f"it is one of {join_names(labels)}"
            location = findings.location_of(*path, "agent", "of", label, key=True)
            findings.error("L054", f"{by} is {format_type(schema)}: it is never {label!r}", location, hint=hint)
    if missing := missing_labels(choice, schema):
        hint = "otherwise: AGENT, for all that is not listed"
        findings.error("L122", missing, findings.location_of(*path, "agent", "of", key=True), hint=hint)
    elif choice.otherwise is not None and not any_text and not null and choice.of.keys() >= labels.keys():
        findings.warn(
            "`otherwise` is never used: each label has an agent", findings.location_of(*path, "agent", "otherwise")
        )
    if len(labels_by_agent(choice)) == 1:
        findings.warn("all labels have the same agent", findings.location_of(*path, "agent", "of"))


def bind_inputs(
    given: Mapping[str, Any], wanted: CalleeInputs, callee: str, types: Types, findings: Findings, path: KeyPath
) -> Expression | None:
    """Compiles the inputs of a call and checks them against the callee's. Returns None if they have errors (L112 to
    L114).
    """
    before = len(findings.errors)
    fields = wanted.fields
    for name in given:
        if name not in fields:
            hint = suggestion(name, fields, f"{callee} takes {_signature(wanted.schema)}")
            findings.error(
                "L112", f"{callee} has no input {name!r}", findings.location_of(*path, name, key=True), hint=hint
            )
    missing = [name for name in wanted.required if name not in given]
    if missing:
        location = findings.location_of(*path) if given else findings.location_of(*path[:-1], key=True)
        names_text = ", ".join(repr(name) for name in missing)
        hint = f"with: {{{', '.join(f'{name}: ${{...}}' for name in missing)}}}"
        findings.error(
            "L113", f"{callee} needs the input{'s' if len(missing) > 1 else ''} {names_text}", location, hint=hint
        )
    expression = try_compile(dict(given), types, findings, path)
    if expression is None:
        return None
    for name, schema in _input_schemas(expression, given):
        if name in fields:
            check_assignable(f"{callee}({name}=...)", schema, fields[name], findings, (*path, name), given[name])
    return expression if len(findings.errors) == before else None


def bind_plain_inputs(
    reads: NodeReferences, wanted: CalleeInputs, types: Types, findings: Findings
) -> Expression | None:
    """Fast path of `bind_inputs` for plain paths to assignable types, which most inputs are. Returns None for other
    inputs.
    """
    if (paths := reads.paths) is None:
        return None
    for name in wanted.required:
        if name not in paths:
            return None
    if not paths:
        return _NO_INPUTS
    fields, assignable_pairs, ends = wanted.fields, findings.assignable_pairs, findings.path_ends
    parts: dict[str, Expression] = {}
    for name, path in paths.items():
        if (field_schema := fields.get(name)) is None or (start := types.get(path.root)) is None:
            return None
        if path.steps:
            way = (id(start), path.steps)
            if (known_end := ends.get(way)) is None:
                known_end = ends[way] = (start, resolve_steps(start, path.steps))
            if (end := known_end[1]) is None:
                return None
            part = PathExpression(
                path.root,
                path.steps,
                end.schema,
                path.source,
                path.references,
                end.checks_each_step,
                end.collects_values,
                end.defaults,
            )
        elif MAP_MARKER in start:
            return None
        else:
            part = PathExpression(path.root, (), start, path.source, path.references)
        if (
            part.schema is not field_schema
            and (id(part.schema), id(field_schema)) not in assignable_pairs
            and not is_assignable(part.schema, field_schema, findings)
        ):
            return None
        parts[name] = part
    return MappingExpression(
        parts, reads.hard if reads.is_plain_call else frozenset([path.root for path in paths.values()])
    )


_NO_INPUTS = compile_template({}, {})


def _input_schemas(expression: Expression, templates: Mapping[str, Any]) -> list[tuple[str, Schema]]:
    """Returns the names of the inputs with the types of the passed values."""
    if expression.parts is not None:
        return [(name, part.schema) for name, part in expression.parts.items()]
    return [(name, compile_template(value, {}).schema) for name, value in templates.items()]


def _signature(schema: Schema) -> str:
    required = schema.get("required", ())
    fields = [(name, format_type(subschema(schema, part))) for name, part in schema.get("properties", {}).items()]
    return (
        join_names(f"{name}: {kind}{'' if name in required else ' (optional)'}" for name, kind in fields)
        if fields
        else "no inputs"
    )
