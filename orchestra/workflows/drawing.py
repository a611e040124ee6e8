"""Drawings of programs: as text for a terminal, and as Mermaid for web pages. `svg_drawing` draws them as SVG."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from orchestra.core.errors import display_width
from orchestra.core.untrusted_text import escape_invisible
from orchestra.schema.json_schema import format_type
from orchestra.workflows.analysis import callee_name, layers, max_shown_depth, walk_programs
from orchestra.workflows.model import AgentChoice, AgentNode, CallNode, FirstOfNode, LoopNode, NodeBlock, PlanNode
from orchestra.workflows.program import CompiledNode, Expression, Program

MIN_WIDTH = 40
"""The minimum width of a drawing in columns."""
_MIN_BODY_WIDTH = 26
"""The width in columns below which the nodes of a body are counted instead of drawn."""
_MAX_REFERENCE_LENGTH = 120
"""The maximum number of characters of a reference."""


def draw(program: Program, width: int = 100) -> str:
    """Draws a program as text of at most `width` columns: node by node, in layers from the inputs to the output.

    A line ends with `←` and the needs of the node; `name?` is a need that may have no value. Bodies of loops and calls
    are indented below their node.
    """
    width = max(width, MIN_WIDTH)
    lines = [*wrap_text(signature(program), width), "│", *_draw_body(program, "", width, max_shown_depth(program))]
    if _has_soft(program):
        lines += ["", *wrap_text("name?  runs all the same where that node gives no value", width)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def signature(program: Program) -> str:
    """Returns the name of a program with its inputs and its output, on one line."""
    inputs = (
        f"{name}: {format_type(field.schema)}{'' if field.required else ' = …'}"
        for name, field in program.inputs.items()
    )
    return sanitize(f"{program.name}({', '.join(inputs)}) -> {format_type(program.output_schema)}")


def _draw_body(program: Program, prefix: str, width: int, level: int) -> Iterator[str]:
    """Returns the lines of a program's nodes and its output, each with a prefix, down to a number of levels of
    bodies.
    """
    if width - len(prefix) < _MIN_BODY_WIDTH or level < 0:
        count = len(program.nodes)
        yield f"{prefix}… {count} node{'s' * (count != 1)}"
        return
    column = min(max(len(node.name) for node in program.nodes), max(8, (width - len(prefix)) // 3))
    for layer in layers(program):
        for node in layer:
            yield from _draw_node(program, node, prefix, column, width, level)
        yield f"{prefix}▼"
    yield from (f"{prefix}{line}" for line in wrap_text(f"output {_arrow(output_nodes(program))}", width - len(prefix)))


def _draw_node(program: Program, node: CompiledNode, prefix: str, column: int, width: int, level: int) -> Iterator[str]:
    under = f"{prefix}│  "
    texts = _describe_lines(program, node, width - len(under) - column - 2)
    if len(node.name) > column:
        first, *rest = wrap_text(node.name, width - len(under))
        yield f"{prefix}├─ {first}"
        yield from (f"{under}{line}" for line in rest)
    else:
        yield f"{prefix}├─ {node.name:{column}}  {texts.pop(0)}"
    yield from (f"{under}{' ' * column}  {text}" for text in texts)
    if node.body is not None:
        yield from _draw_body(node.body, under, width, level - 1)


def _describe_lines(program: Program, node: CompiledNode, room: int) -> list[str]:
    """Returns the lines of a node's description and its needs; one line if they fit."""
    text_lines = [line for sentence in describe_node(node) for line in wrap_text(sentence, room)]
    needs = _arrow(_need_names(program, node))
    if needs and display_width(text_lines[-1]) + 2 + display_width(needs) <= room:
        return [*text_lines[:-1], f"{text_lines[-1]}  {needs}"]
    return [*text_lines, *(wrap_text(needs, room) if needs else ())]


def describe_node(node: CompiledNode) -> list[str]:
    """Describes a node: its kind, then its modifiers, as short texts without line breaks."""
    lines = [_headline(node)]
    if node.each is not None:
        limit_text = f", at most {node.limit:,}" if node.source.limit is not None else ""
        together = f", {node.concurrency:,} at once" if node.concurrency is not None else ""
        needed_text = (
            ""
            if node.at_least is None
            else ", all needed"
            if node.at_least == "all"
            else f", at least {node.at_least:,}"
        )
        lines.append(f"each {node.variable} of {_truncate(node.source.each)}{limit_text}{together}{needed_text}")
    if node.source.when is not None:
        lines.append(f"when {_truncate(node.source.when)}")
    if isinstance(node.source, AgentNode) and node.source.escalate is not None:
        lines.append(f"the larger model at once when {_truncate(node.source.escalate)}")
    if node.acceptance is not None:
        accept = node.source.accept if node.source.accept == "certified" else f"{node.acceptance.accept:g}"
        otherwise = f"; otherwise {', '.join(node.acceptance.otherwise)}" if node.acceptance.otherwise else ""
        score = "; score combined" if node.source.score else ""
        lines.append(f"checks {', '.join(node.acceptance.checks)}{score}; accept {accept}{otherwise}")
    limits = [f"retry {node.source.retry.attempts}"] if node.source.retry is not None else []
    limits += [f"timeout {node.timeout:g} s"] if node.timeout is not None else []
    limits += ["with a fallback"] if node.fallback is not None else []
    return [sanitize(text) for text in (*lines, *([", ".join(limits)] if limits else []))]


def _headline(node: CompiledNode) -> str:
    match node.source:
        case AgentNode(agent=AgentChoice() as choice):
            return f"one agent by {_truncate(choice.by)}"
        case LoopNode(loop=loop):
            return f"loop, at most {loop.at_most} turn{'s' * (loop.at_most != 1)}, until {_truncate(loop.until)}"
        case FirstOfNode(first_of=arms):
            return f"first of {', '.join(_truncate(arm) for arm in arms)}"
        case PlanNode(agents=agents, tools=tools, workflows=workflows, limits=limits):
            return f"plan of at most {limits.steps} steps with {', '.join((*agents, *tools, *workflows)) or 'nothing'}"
        case CallNode(call=NodeBlock()):
            return "block"
        case _:
            return f"{node.kind} {callee_name(node)}".rstrip()


def _truncate(template: Any) -> str:
    text = str(template)
    return text if len(text) <= _MAX_REFERENCE_LENGTH else text[: _MAX_REFERENCE_LENGTH - 1] + "…"


def _need_names(program: Program, node: CompiledNode) -> list[str]:
    names = ["input"] if program.inputs and "input" in expression_references(node) else []
    return names + [program.nodes[need].name + "?" * (need in node.soft_needs) for need in node.needs]


def expression_references(node: CompiledNode) -> frozenset[str]:
    """Returns the names that a node's own expressions read, without those of its body."""
    against = node.acceptance.against if node.acceptance is not None else None
    expressions: tuple[Expression | None, ...] = (
        node.inputs,
        node.escalate,
        node.when,
        node.each,
        *node.arms,
        node.value,
        node.fallback,
        against,
    )
    return frozenset().union(*(expression.references for expression in expressions if expression is not None))


def output_nodes(program: Program) -> list[str]:
    """Returns the nodes that a program's output reads, in order; `input` if it reads only that."""
    references = program.output.references
    return [node.name for node in program.nodes if node.name in references] or ["input"] * ("input" in references)


def _has_soft(program: Program) -> bool:
    return any(node.soft_needs for inner in walk_programs(program) for node in inner.nodes)


def _arrow(names: list[str]) -> str:
    return f"← {', '.join(names)}" if names else ""


def sanitize(text: str) -> str:
    """Returns the text in one line, without control sequences of a terminal."""
    return escape_invisible(" ".join(text.split()), keep="")


def wrap_text(text: str, room: int) -> list[str]:
    """Wraps a text at spaces to at most `room` columns. Later lines are indented."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1].strip() else f"{lines[-1]}{word}"
        if display_width(longer) <= room:
            lines[-1] = longer
            continue
        first, *rest = _wrap_anywhere(f"  {word}" if lines[-1] else word, room)
        lines = [*(lines if lines[-1] else lines[:-1]), first, *rest]
    return lines


def _wrap_anywhere(text: str, room: int) -> list[str]:
    """Wraps a text at any character to at most `room` columns."""
    lines = [""]
    for char in text:
        if display_width(lines[-1]) + display_width(char) > room:
            lines.append("")
        lines[-1] += char
    return lines


def mermaid(program: Program) -> str:
    """Returns a program as a Mermaid flowchart: dashed edges from needs that may have no value, subgraphs for bodies.

    Ids are generated and labels escaped, so that no name or text can end a label or be read as syntax.
    """
    lines = ["flowchart TD", *_mermaid_lines(program, "n", "  ", max_shown_depth(program))]
    return "".join(f"{line}\n" for line in lines)


def _mermaid_lines(program: Program, stem: str, pad: str, level: int) -> Iterator[str]:
    """Returns nodes, then edges. The ids of a body's nodes begin with the id of its node. Bodies are drawn to a number
    of levels.
    """
    if program.inputs:
        inputs = (f"{name}: {format_type(field.schema)}" for name, field in program.inputs.items())
        yield f'{pad}{stem}_in(["{_mermaid_label("input", *inputs)}"])'
    for node in program.nodes:
        name = f"{stem}{node.index}"
        text = _mermaid_label(node.name, *describe_node(node))
        if node.body is None or not level:
            left, right = _SHAPES.get(node.kind, ("[", "]"))
            yield f'{pad}{name}{left}"{text}"{right}'
        else:
            yield f'{pad}subgraph {name}["{text}"]'
            yield from _mermaid_lines(node.body, f"{name}_", pad + "  ", level - 1)
            yield f"{pad}end"
    yield f'{pad}{stem}_out(["{_mermaid_label("output", format_type(program.output_schema))}"])'
    yield from (f"{pad}{edge}" for edge in _mermaid_edges(program, stem))


def _mermaid_edges(program: Program, stem: str) -> Iterator[str]:
    references = program.output.references
    for node in program.nodes:
        if program.inputs and "input" in expression_references(node):
            yield f"{stem}_in --> {stem}{node.index}"
        for need in node.needs:
            yield f"{stem}{need} {'-.->' if need in node.soft_needs else '-->'} {stem}{node.index}"
    if program.inputs and "input" in references:
        yield f"{stem}_in --> {stem}_out"
    yield from (f"{stem}{node.index} --> {stem}_out" for node in program.nodes if node.name in references)


_SHAPES = {
    "agent": ("(", ")"),
    "first_of": ("{{", "}}"),
    "verify": ("{{", "}}"),
    "ask": ("[/", "/]"),
    "plan": ("[[", "]]"),
}
_SAFE = re.compile(r"[A-Za-z0-9 _.,()/=+-]")


def _mermaid_label(*texts: str) -> str:
    """Returns a label of several lines. ASCII signs become entity codes of Mermaid, such as `#quot;` or `#35;`."""
    return "<br/>".join("".join(_mermaid_entity(char) for char in sanitize(_truncate(text))) for text in texts)


def _mermaid_entity(char: str) -> str:
    if not char.isascii() or _SAFE.fullmatch(char):
        return char
    return "#quot;" if char == '"' else f"#{ord(char)};"
