"""The compiler: turns a frozen graph and a catalog into a program, or reports all errors with locations and hints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from orchestra.agents.card_types import TYPE_NAME_HINT, invalid_type_name, resolve_types
from orchestra.agents.contract import Catalog, Contract
from orchestra.core.errors import InputError
from orchestra.core.labels import Label, is_allowed, join
from orchestra.schema.json_schema import ANY, Schema, bundle_definitions, map_result_type, nullable, object_type
from orchestra.schema.types import RESERVED_TYPE_NAMES, Validator
from orchestra.workflows.compile.assemble import NodeDraft, assemble_nodes
from orchestra.workflows.compile.context import CompileContext, CompiledBody, TypeScope
from orchestra.workflows.compile.diagnostics import (
    Findings,
    KeyPath,
    TooManyErrors,
    Types,
    check_assignable,
    join_names,
    suggestion,
    try_compile,
)
from orchestra.workflows.compile.nodes import compile_node
from orchestra.workflows.compile.ordering import NodeReferences, node_references, referenced_names, topological_order
from orchestra.workflows.expressions.condition_analysis import (
    names_tested_absent,
    parse_conditions,
)
from orchestra.workflows.expressions.evaluation import ListExpression
from orchestra.workflows.expressions.parser import KEYWORDS
from orchestra.workflows.expressions.templates import compile_template
from orchestra.workflows.model import (
    AnyNode,
    FirstOfNode,
    Graph,
)
from orchestra.workflows.program import (
    CalledWorkflow,
    CompiledNode,
    Expression,
    InputField,
    Program,
)
from orchestra.workflows.yaml.reader import MAX_EDGES, MAX_NODES, SourcePlaces

MAX_LOOPS = 4
"""The maximum depth of nested loops. To find the type of `previous`, each body is compiled up to three times."""


MAX_TYPE_PARTS = 5_000


MAX_TYPE_DEPTH = 100
"""Limits of the type of one value. A type that doubles at every node would not fit into memory."""


_RESERVED_NAMES = KEYWORDS | {"input"}


def compile_graph(
    graph: Graph,
    catalog: Catalog,
    places: SourcePlaces | None = None,
    *,
    called: Mapping[str, CalledWorkflow] | None = None,
) -> Program:
    """Compiles a workflow.

    Args:
        graph: The frozen graph.
        catalog: The agents, tools, workflows, checks and certificates that it may refer to.
        places: The locations of its parts in its file.
        called: Compiled workflows by the names under which this one calls them.

    Raises:
        InputError: One error (L040 to L063, L105 to L121, A002).
        InputErrors: All of several errors.
    """
    return _compile_graph(graph, catalog, (), dict(called or {}), places).program


def _compile_graph(
    graph: Graph,
    catalog: Catalog,
    above: tuple[str, ...],
    programs: dict[str, CalledWorkflow | None],
    places: SourcePlaces | None = None,
) -> CalledWorkflow:
    """Compiles a workflow and collects what its callers need."""
    findings = Findings(graph.name, places)
    context = CompileContext(graph, catalog, findings, (*above, graph.name), compile_body, _compile_graph, programs)
    inputs: Mapping[str, InputField] = {}
    body = CompiledBody((), null_expression(), {}, True, {}, frozenset(), False)
    try:
        inputs = _compile_inputs(context)
        input_schema = {"title": "input", **object_type({name: entry.schema for name, entry in inputs.items()})}
        body = compile_body(context, graph.nodes, graph.output, {"input": bundle_definitions(input_schema)}, ())
        if graph.accept is not None:
            from orchestra.workflows.compile.checks import enclose_workflow

            body = enclose_workflow(context, graph, body)
    except TooManyErrors:
        pass
    findings.raise_errors()
    warnings = tuple(findings.warnings)
    labels = [label for label in (graph.label, *context.labels) if label is not None]
    label = join((graph.label or "internal", *labels))
    program = Program(
        graph.name,
        body.nodes,
        body.output,
        body.schema,
        inputs,
        graph=graph,
        budget=graph.budget,
        label=label,
        warnings=warnings,
    )
    return CalledWorkflow(program, body.always_present, body.has_effects, join(labels) if labels else None)


def _compile_inputs(context: CompileContext) -> dict[str, InputField]:
    """Compiles the workflow's inputs: resolves their types and checks their defaults."""
    if context.graph.name in KEYWORDS:
        hint = f"call it {context.graph.name}_"
        context.findings.error(
            "L115",
            f"{context.graph.name!r} is a word of the expression language",
            context.findings.location_of("name"),
            hint=hint,
        )
    context.models = dict(context.catalog.models)
    for name, body in context.graph.types.items():
        _declare_type(context, name, body)
    input_fields: dict[str, InputField] = {}
    for name, entry in context.graph.input.items():
        _check_name(context, name, ("input", name))
        schema = context.resolve_type(entry.type, ("input", name))
        default = try_compile(entry.default, {}, context.findings, ("input", name)) if entry.optional else None
        if default is not None and schema != ANY:
            check_assignable(f"the default of {name!r}", default.schema, schema, context.findings, ("input", name))
        value = default.evaluate({}) if default is not None else None
        input_fields[name] = InputField(schema, not entry.optional, value, entry.description)
    return input_fields


def _declare_type(context: CompileContext, name: str, body: Mapping[str, Any]) -> None:
    """Declares a type of `types:`. An invalid one becomes `ANY`, so that its error is reported once."""
    if not name.isidentifier() or name in RESERVED_TYPE_NAMES:
        context.findings.error(
            "L105", invalid_type_name(name), context.findings.location_of("types", name, key=True), hint=TYPE_NAME_HINT
        )
        return
    context.models[name] = ANY
    with context.findings.collect_errors():
        resolved_type = resolve_types(
            {name: body}, context.models, lambda part: context.findings.location_of("types", name, part)
        )[name]
        if too_large := type_size_error(resolved_type):
            location = context.findings.location_of("types", name, key=True)
            raise InputError(
                "L106", f"the type {name} {too_large}", location=location, hint="leave a part open: dict[str, T]"
            )
        try:
            Validator(resolved_type)
        except InputError as error:
            raise InputError(
                error.code,
                f"{name}: {error.message}",
                location=context.findings.location_of("types", name),
                hint=error.hint,
                why=error.why,
            ) from None
        context.models[name] = resolved_type


def compile_body(
    context: CompileContext, given: Mapping[str, AnyNode], output: Any, types: TypeScope, base: KeyPath
) -> CompiledBody:
    """Compiles nodes in the scope `types`, with their output. Errors are recorded; invalid parts have the type `ANY`.

    `types` is unchanged at the end.
    """
    path = (*base, "nodes")
    reads = {name: node_references(node) for name, node in given.items()}
    _check_size(context, reads, path)
    hidden_types = {name: types[name] for name in given if name in types}
    for name, node in given.items():
        if name in _RESERVED_NAMES or name in types or (context.enclosing_nodes and context.is_in_scope(name, types)):
            _check_name(context, name, (*path, name), types)
        if node.after:
            _check_after(context, node, given, (*path, name))
    context.enclosing_nodes.append(given)
    names = frozenset(given)
    required_names = {
        name: references.all if references.all <= names else references.all & names
        for name, references in reads.items()
    }
    order, cycle = topological_order(required_names)
    if cycle:
        _report_cycle(context, cycle, path)
        pending_names = [name for name in given if name not in set(order)]
        types.update(dict.fromkeys(pending_names, ANY))
        order += pending_names
    drafts: dict[str, NodeDraft] = {}
    for name in order:
        draft = drafts[name] = compile_node(context, name, given[name], types, reads[name], (*path, name))
        schema = types[name] = map_result_type(draft.output) if given[name].each is not None else draft.output
        if id(schema) not in context.sized_types:
            _limit_type_size(context, types, name, path)
    output_expression = _compile_output(context, output, types, (*base, "output"))
    _check_optional_choices(context, given, reads, drafts, path)
    effect_names = [name for name, node in given.items() if context.has_effects(node)]
    _warn_unused(context, given, required_names, referenced_names(output).union(effect_names), path)
    _warn_unconditional_effects(context, effect_names, given, required_names, output, path)
    context.enclosing_nodes.pop()
    node_types = {name: types.pop(name) for name in order}
    types.update(hidden_types)
    parts = output_expression.parts
    always_present = (
        context.all_present(output_expression.references)
        if parts is None
        else any(context.all_present(part.references) for part in parts.values())
    )
    schema = _output_schema(context, output_expression)
    certain = frozenset(name for name in given if context.always_present.pop(name))
    return CompiledBody(
        assemble_nodes(given, order, drafts, reads, required_names),
        output_expression,
        schema,
        always_present,
        node_types,
        certain,
        bool(effect_names),
    )


def _check_size(context: CompileContext, reads: Mapping[str, NodeReferences], path: KeyPath) -> None:
    if context.loop_depth > MAX_LOOPS:
        hint = "make one of them a workflow of its own, and `call` it"
        context.findings.abort(
            "L106", f"more than {MAX_LOOPS} loops inside each other", context.findings.location_of(*path), hint=hint
        )
    context.node_count += len(reads)
    context.edge_count += sum([len(references.all) for references in reads.values()])
    # The body of a loop that reads `previous` is compiled three times at most.
    for kind, count, max_count in (
        ("nodes", context.node_count, MAX_NODES * 3),
        ("references", context.edge_count, MAX_EDGES * 3),
    ):
        if count > (max_count if context.loop_depth else max_count // 3):
            hint = "move a part into a workflow of its own, and `call` it"
            limit_text = (
                f"more than {max_count // 3:,} {kind}"
                if not context.loop_depth
                else f"more than {max_count:,} {kind}, counting loops within loops"
            )
            context.findings.abort("L106", limit_text, context.findings.location_of(*path), hint=hint)


def _limit_type_size(context: CompileContext, types: TypeScope, name: str, path: KeyPath) -> None:
    if too_large := type_size_error(types[name]):
        hint = "pass on the parts that are needed, and not all of it"
        context.findings.error(
            "L106", f"the type of {name!r} {too_large}", context.findings.location_of(*path, name, key=True), hint=hint
        )
        types[name] = ANY
    else:
        context.sized_types[id(types[name])] = types[name]


def _report_cycle(context: CompileContext, cycle: list[str], path: KeyPath) -> None:
    way = list(reversed(cycle))
    if len(way) > 9:
        way = [*way[:4], "...", *way[-4:]]
    hint = "let one of them read something else, or make the repetition a `loop:`"
    context.findings.error(
        "L110", f"a cycle: {' -> '.join(way)}", context.findings.location_of(*path, cycle[0], key=True), hint=hint
    )


def _compile_output(context: CompileContext, output: Any, types: Types, path: KeyPath) -> Expression:
    output_expression = try_compile(output, types, context.findings, path)
    if output_expression is None:
        return null_expression()
    if not output_expression.references:
        location = context.findings.location_of(*path)
        hint = 'output: ${node}, or a mapping: {answer: "${node}"}'
        context.findings.error("L121", "the output refers to nothing", location, hint=hint)
    return output_expression


def _output_schema(context: CompileContext, output: Expression) -> Schema:
    """Returns the type of an output. A part that may be skipped or withheld may be null."""
    if isinstance(output, ListExpression):
        return output.tuple_schema([_part_schema(context, item) for item in output.items])
    if output.parts is None:
        return output.schema
    return bundle_definitions(
        {"title": "output", **object_type({key: _part_schema(context, part) for key, part in output.parts.items()})}
    )


def _part_schema(context: CompileContext, part: Expression) -> Schema:
    return part.schema if context.all_present(part.references) else nullable(part.schema)


def _check_name(context: CompileContext, name: str, path: KeyPath, types: Types | None = None) -> None:
    location_of, message = context.findings.location_of, ""
    if name in KEYWORDS:
        message = f"{name!r} is a word of the expression language"
    elif name == "input":
        message = "`input` is the name of the workflow's inputs"
    elif types is not None and context.is_in_scope(name, types):
        message = f"{name!r} hides another of that name"
    if message:
        context.findings.error("L115", message, location_of(*path, key=True), hint=f"call it {name}_")


def _check_after(context: CompileContext, node: AnyNode, nodes: Mapping[str, AnyNode], path: KeyPath) -> None:
    for index, after_name in enumerate(node.after):
        if after_name not in nodes:
            message = f"there is no node {after_name!r} here"
            context.findings.error(
                "L111",
                message,
                context.findings.location_of(*path, "after", index),
                hint=suggestion(after_name, nodes, f"nodes here: {join_names(nodes)}"),
            )


def _check_optional_choices(
    context: CompileContext,
    nodes: Mapping[str, AnyNode],
    reads: Mapping[str, NodeReferences],
    drafts: Mapping[str, NodeDraft],
    path: KeyPath,
) -> None:
    """Reports choices that may have no value although other nodes read them as plain values (L120)."""
    choices = [name for name, node in nodes.items() if isinstance(node, FirstOfNode) and node.each is None]
    read_names = frozenset().union(*(references.hard for references in reads.values())) if choices else ()
    for name in choices:
        if name in read_names and not drafts[name].always_present and not context.always_present[name]:
            hint = "add a last arm that is a plain value or a node without `when` and checks, or a `fallback:`"
            location = context.findings.location_of(*path, name, "first_of", len(drafts[name].arms) - 1)
            context.findings.error(
                "L120", f"all arms of {name!r} may be without a value, and other nodes read it", location, hint=hint
            )


def _warn_unused(
    context: CompileContext,
    nodes: Mapping[str, AnyNode],
    needs_by_node: Mapping[str, frozenset[str]],
    used_names: frozenset[str],
    path: KeyPath,
) -> None:
    """Warns of unused nodes. A node is used if the output or a used node reads it, or if it has an effect."""
    line = [name for name in nodes if name in used_names]
    visited_names = set(line)
    while line:
        new = needs_by_node[line.pop()] - visited_names
        visited_names |= new
        line += new
    for name in nodes if len(visited_names) < len(nodes) else ():
        if name not in visited_names:
            context.findings.warn(
                f"nothing needs the node {name!r}", context.findings.location_of(*path, name, key=True)
            )


def _warn_unconditional_effects(
    context: CompileContext,
    effect_names: Sequence[str],
    nodes: Mapping[str, AnyNode],
    needs_by_node: Mapping[str, frozenset[str]],
    output: Any,
    path: KeyPath,
) -> None:
    """Warns of effects that always happen, although their only reader is a later arm of `first_of` or a `fallback`."""
    readers: dict[str, list[str]] = {name: [] for name in effect_names}
    for reader, needed_names in needs_by_node.items() if readers else ():
        for name in needed_names:
            if name in readers:
                readers[name].append(reader)
    returned_names = referenced_names(output)
    for name, reader_names in readers.items():
        if len(reader_names) == 1 and name not in returned_names and context.always_present.get(name, True):
            _warn_effect_as_fallback(context, name, reader_names[0], nodes[reader_names[0]], path)
    choices = (
        {name: node.first_of for name, node in nodes.items() if isinstance(node, FirstOfNode)} if effect_names else {}
    )
    for name in effect_names if choices else ():
        _warn_effects_after_failure(context, name, nodes[name].when, choices, path)


def _warn_effects_after_failure(
    context: CompileContext, name: str, when: str | None, choices: Mapping[str, Sequence[Any]], path: KeyPath
) -> None:
    """Warns of an effect that replaces a withheld value, since it also happens if that node failed."""
    conditions = (
        parse_conditions([when[2:-1]]) if when is not None and when.startswith("${") and when.endswith("}") else None
    )
    for tested_name in names_tested_absent(conditions or (), choices.get):
        if not context.always_present.get(tested_name, True) and context.presence_conditions.get(tested_name) is None:
            message = f"{name!r} has effects and runs where {tested_name!r} is withheld, and where it failed too"
            context.findings.warn(
                f"{message}; to tell them apart: docs/reference/language.md, A choice",
                context.findings.location_of(*path, name, "when"),
            )


def _warn_effect_as_fallback(context: CompileContext, name: str, by: str, reader: AnyNode, path: KeyPath) -> None:
    key = "fallback"
    soft = reader.fallback is not None and name in referenced_names(reader.fallback)
    if isinstance(reader, FirstOfNode):
        soft, key = soft or name not in referenced_names(reader.first_of[0]), key if soft else "first_of"
    if soft and name not in reader.after:
        message = f"{name!r} has effects and always runs, though {by!r} uses it only as an alternative"
        context.findings.warn(
            f"{message}: give it a `when` (docs/reference/language.md, A choice)",
            context.findings.location_of(*path, by, key),
        )


def null_expression() -> Expression:
    """The expression that replaces an invalid one."""
    return compile_template(None, {})


def type_size_error(schema: Schema) -> str:
    """Returns why a type is too large; an empty text if it is not. Shared parts count each time but are visited
    once.
    """
    parts, depth = _type_size(schema, {}, 1)
    if depth > MAX_TYPE_DEPTH:
        return f"is nested deeper than {MAX_TYPE_DEPTH}"
    return f"has {parts:,} parts; at most {MAX_TYPE_PARTS:,}" if parts > MAX_TYPE_PARTS else ""


def _type_size(part: Any, type_sizes: dict[int, tuple[int, int]], level: int) -> tuple[int, int]:
    """Returns the number of parts of a type and its depth."""
    inner = [child for child in (part.values() if isinstance(part, dict) else part) if isinstance(child, dict | list)]
    if not inner or level > MAX_TYPE_DEPTH:
        return 1, 1
    if (cached_size := type_sizes.get(id(part))) is None:
        sizes = [_type_size(child, type_sizes, level + 1) for child in inner]
        cached_size = type_sizes[id(part)] = (
            1 + sum(count for count, _ in sizes),
            1 + max(depth for _, depth in sizes),
        )
    return cached_size


def check_clearance(program: Program, places: SourcePlaces | None = None) -> None:
    """Checks that every called tool is cleared for the data of the workflow. Raises `InputError` or `InputErrors` T020.

    A run has at least the label of its program, so such a call would be refused at every run (F202). Tools that a plan
    or a model may choose are left out, since uncleared ones are not offered to them. Data with a stricter label than
    the program's, from `options(label=...)` or an enclosing run, is refused when the tool is called.
    """
    findings = Findings(program.name, places)
    with suppress(TooManyErrors):
        for node in program.nodes:
            for tool in called_tools(node):
                if not is_allowed(program.label, tool.label):
                    message = (
                        f"the tool {tool.name!r} is cleared for {tool.label!r} data, "
                        f"and {program.name} has {program.label!r} data"
                    )
                    findings.error(
                        "T020", message, findings.location_of("nodes", node.name), hint=_hint(tool.name, program.label)
                    )
    findings.raise_errors()


def _hint(tool: str, label: Label) -> str:
    server, dot, _ = tool.partition(".")  # only tools of MCP servers have such names
    label_text = f'label = "{label}" under [mcp.{server}]' if dot else f'label="{label}" in the @tool of {tool}'
    return f"{label_text}, if such data may go there; else another tool"


def called_tools(node: CompiledNode) -> Iterator[Contract]:
    """Yields the tools that a node calls itself, in its checks, or in its body."""
    if node.contract is not None and node.contract.kind == "tool":
        yield node.contract
    if node.acceptance is not None:
        yield from (judge for judge in node.acceptance.judges.values() if judge.kind == "tool")
    if node.body is not None:
        for inner in node.body.nodes:
            yield from called_tools(inner)
