"""Hypothesis strategies of graphs with all kinds and modifiers: valid models with resolvable references.

Types, agents and tools are invented: such a graph can be written, read and drawn, but not always compiled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from orchestra.agents.contract import Contract, Schema
from orchestra.workflows.expressions.parser import KEYWORDS
from orchestra.workflows.model import (
    NODE_KINDS,
    AgentChoice,
    AgentNode,
    AnyNode,
    AskNode,
    Budget,
    CallNode,
    Defaults,
    FirstOfNode,
    Graph,
    Input,
    LoopBlock,
    LoopNode,
    NodeBlock,
    PlanLimits,
    PlanNode,
    Retry,
    ToolNode,
    VerifyNode,
)
from orchestra.workflows.program import Acceptance, CompiledNode, Expression, InputField, Program

AWKWARD = (
    *(
        "",
        " ",
        "no",
        "on",
        "y",
        "010",
        "1",
        "-1",
        "0x1F",
        "0o17",
        "1_000",
        "2026-01-01",
        "22:22",
        "1e3",
        ".5",
        ".inf",
        "~",
        "null",
        "Null",
        "true",
    ),
    *(
        "TRUE",
        "<<",
        "=",
        "- a",
        "-",
        "---",
        "...",
        "a: b",
        "a:",
        ":a",
        "a #b",
        "#a",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "%a",
        "@a",
        "`a`",
        "? a",
        "a, b",
    ),
    *(
        "[a]",
        "{a}",
        "'",
        '"',
        "''",
        "it's",
        'say "it"',
        """it's "it" """,
        "\\",
        "\\n",
        "a\\",
        " a",
        "a ",
        "a\nb",
        "\n",
        "a\n",
        "a\tb",
        "a\r\nb",
    ),
    *(
        "$",
        "$${not a reference}",
        "café",
        "日本",
        "\u2028",
        "\ufeff",
        "\u00a0",
        "😀",
        "👩\u200d🔬",
        "\ufffe",
        "x" * 120,
        "word " * 40,
    ),
)
"""Texts that YAML takes for something else, or that are hard to quote."""

REFERENCES = (
    "${%s}",
    "${%s.items[0]}",
    '${%s == "a"}',
    "${%s != 'it''s'}",
    "${has(%s.x) ? %s.x : {'a': 1}}",
    "${%s.filter(e, e.y > 0)}",
    "${%s['a: b #c']}",
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"

names = st.text(LETTERS + "0123456789_", min_size=1, max_size=12).filter(
    lambda text: text[0] in LETTERS and "__" not in text and text not in KEYWORDS | {"input", "turn", "previous"}
)
literal_texts = st.sampled_from(AWKWARD) | st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), max_size=30
).filter(lambda text: "${" not in text)
numbers = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | literal_texts
types = st.sampled_from(["str", "int", "list[Document]", "dict[str, int | null]", "Literal['a', 'b']", "str | null"])
catalog_names = st.sampled_from(["reader", "search", "cite_all", "null", "no", "010", "mcp/server.tool"])


def references(scope: tuple[str, ...]) -> st.SearchStrategy[str]:
    """References to what is in scope."""
    return st.builds(lambda form, name: form.replace("%s", name), st.sampled_from(REFERENCES), st.sampled_from(scope))


def templates(scope: tuple[str, ...]) -> st.SearchStrategy[Any]:
    """JSON whose texts may hold references."""
    mixed = st.builds(
        lambda before, reference, after: f"{before}{reference}{after}", literal_texts, references(scope), literal_texts
    )
    leaves = scalars | references(scope) | mixed.filter(lambda text: "$${" not in text)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(literal_texts, inner, max_size=3),
        max_leaves=6,
    )


def retries() -> st.SearchStrategy[Retry]:
    """Retries, with the usual wait and with others, within a time and without one."""
    seconds = st.floats(0, 3600) | st.integers(0, 3600).map(float)
    waits = st.just((0.5, 8.0)) | st.tuples(seconds, seconds)
    return st.builds(Retry, attempts=st.integers(1, 10), wait=waits, within=st.none() | timeouts)


timeouts = st.floats(0, 86_400, exclude_min=True, allow_subnormal=False) | st.integers(1, 86_400).map(float)
catalogs = st.lists(catalog_names, max_size=3, unique=True).map(tuple)


@st.composite
def modifiers(
    draw: st.DrawFn, scope: tuple[str, ...], before: tuple[str, ...]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Modifiers that go together, and the scope of the node's own templates."""
    found: dict[str, Any] = {}
    inner = scope
    if draw(st.booleans()):
        variable = draw(names.filter(lambda name: name not in scope))
        found |= {"each": draw(references(scope)), "as_": variable}
        wanted = st.just("all") | st.integers(1, 10_000)
        most: dict[str, Any] = {
            "limit": st.integers(1, 10_000),
            "concurrency": st.integers(1, 10_000),
            "at_least": wanted,
        }
        found |= draw(st.fixed_dictionaries({}, optional=most))
        inner = (*scope, variable)
    if draw(st.booleans()):
        found |= {"checks": draw(st.sampled_from([("quote",), ("quote", "numbers"), ("schema", "recompute")]))}
        found |= {"against": draw(references(inner))}
        actions: Any = st.lists(
            st.sampled_from(["retry", "escalate", "ask", "abstain"]), min_size=1, max_size=4, unique=True
        ).map(tuple)
        found |= draw(
            st.fixed_dictionaries({}, optional={"accept": st.just("certified") | st.floats(0, 1), "otherwise": actions})
        )
    more: dict[Any, st.SearchStrategy[Any]] = {
        "when": references(inner),
        "retry": retries(),
        "timeout": timeouts,
        "fallback": templates(inner),
    }
    if before:
        more["after"] = st.lists(st.sampled_from(before), max_size=2, unique=True).map(tuple)
    return found | draw(st.fixed_dictionaries({}, optional=more)), inner


@st.composite
def nodes(draw: st.DrawFn, scope: tuple[str, ...], before: tuple[str, ...], depth: int) -> AnyNode:
    """A node that may refer to what is in scope; `before` are the nodes of its own block before it."""
    common, inner = draw(modifiers(scope, before))
    with_ = st.dictionaries(names | literal_texts, templates(inner), max_size=3)
    kinds = ["agent", "tool", "name", "first_of", "plan", "verify", "ask", *(("call", "loop") if depth else ())]
    match draw(st.sampled_from(kinds)):
        case "agent":
            at_once = draw(st.fixed_dictionaries({}, optional={"escalate": references(inner)}))
            choices = st.builds(
                AgentChoice,
                by=references(inner),
                of=st.dictionaries(literal_texts, catalog_names, min_size=1, max_size=3),
                otherwise=st.none() | catalog_names,
            )
            return AgentNode(agent=draw(catalog_names | choices), **common | at_once | {"with": draw(with_)})
        case "tool":
            return ToolNode(tool=draw(catalog_names), **common | {"with": draw(with_)})
        case "name":
            return CallNode(call=draw(catalog_names), **common | {"with": draw(with_)})
        case "call":
            body, output = draw(bodies(inner, depth - 1))
            return CallNode(call=NodeBlock(nodes=body, output=output), **common)
        case "loop":
            body, output = draw(bodies((*inner, "turn", "previous"), depth - 1))
            until = draw(references((*inner, *body)))
            return LoopNode(
                loop=LoopBlock(at_most=draw(st.integers(1, 100)), until=until, nodes=body, output=output), **common
            )
        case "first_of":
            arms = draw(st.lists(references(inner), max_size=3))
            return FirstOfNode(first_of=(*arms, draw(templates(inner))), **common)
        case "plan":
            optional: dict[Any, st.SearchStrategy[Any]] = {
                "with_": with_,
                "agents": catalogs,
                "tools": catalogs,
                "workflows": catalogs,
                "returns": types,
                "limits": st.builds(PlanLimits, steps=st.integers(1, 100), width=st.integers(1, 100)),
                "repairs": st.integers(0, 10),
                "replans": st.integers(0, 10),
                "streaming": st.booleans(),
                "larger": st.none() | names,
                "votes": st.integers(1, 16),
                "cache": st.booleans(),
                "stepwise": st.booleans(),
                "copied": st.booleans(),
                "literals": st.booleans(),
                "confirm": st.booleans(),
                "grounded": st.booleans(),
                "each_part": st.booleans(),
                "rules": st.booleans(),
                "hearsay": catalogs,
                "anyway": st.booleans(),
                "shortlist": st.none() | st.integers(1, 100),
            }
            return PlanNode(
                plan=draw(references(inner)), **draw(st.fixed_dictionaries({}, optional=optional)), **common
            )
        case "verify":
            return VerifyNode(verify=draw(references(inner)), **common)
        case _:
            more: dict[Any, st.SearchStrategy[Any]] = {
                "returns": types,
                "options": st.lists(literal_texts, max_size=3).map(tuple),
            }
            return AskNode(
                ask=draw(literal_texts | references(inner)), **draw(st.fixed_dictionaries({}, optional=more)), **common
            )


@st.composite
def bodies(draw: st.DrawFn, scope: tuple[str, ...], depth: int) -> tuple[dict[str, AnyNode], Any]:
    """The nodes of a block, and its output."""
    found: dict[str, AnyNode] = {}
    for name in draw(st.lists(names.filter(lambda name: name not in scope), min_size=1, max_size=4, unique=True)):
        seen = (*scope, *found)
        node = draw(nodes(seen, tuple(found), depth))
        found[name] = node
    return found, draw(
        references(tuple(found)) | st.dictionaries(names, references(tuple(found)), min_size=1, max_size=3)
    )


def inputs() -> st.SearchStrategy[Input]:
    """Inputs: required, optional, with a default; a default always makes one optional."""
    words = st.just("") | literal_texts
    required = st.builds(Input, type=types, description=words)
    return required | st.builds(Input, type=types, default=scalars, optional=st.just(True), description=words)


@st.composite
def graphs(draw: st.DrawFn, depth: int = 2) -> Graph:
    """Valid graphs with bodies at most `depth` deep."""
    given = draw(st.dictionaries(names, inputs(), max_size=3))
    body, output = draw(bodies(("input",), depth))
    optional: dict[Any, st.SearchStrategy[Any]] = {
        "description": literal_texts,
        "types": st.dictionaries(
            literal_texts,
            st.dictionaries(literal_texts, scalars | st.dictionaries(literal_texts, scalars, max_size=2), max_size=2),
            max_size=2,
        ),
        "budget": st.builds(
            Budget,
            tokens=st.none() | st.integers(1, 10**9),
            seconds=st.none() | timeouts,
            calls=st.none() | st.integers(1, 10**6),
        ),
        "defaults": st.builds(Defaults, retry=st.none() | retries(), timeout=st.none() | timeouts),
        "label": st.sampled_from(["public", "internal", "restricted"]),
    }
    return Graph(
        name=draw(names), input=given, nodes=body, output=output, **draw(st.fixed_dictionaries({}, optional=optional))
    )


@dataclass(frozen=True)
class Read:
    """An expression that only says what it reads."""

    references: frozenset[str]
    schema: Schema
    parts: Mapping[str, Expression] | None = None

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """Is never asked for."""
        raise NotImplementedError


def expression(template: Any) -> Read | None:
    """What a template reads; None for none."""
    found = re.findall(r"[$]{\W*(?:has\()?([a-z][a-z0-9_]*)", repr(template))
    return None if template is None or template == () else Read(frozenset(found), {"type": "string"})


def program_of(graph: Graph, max_output: int = 50) -> Program:
    """A program of a graph by its references alone, without types: enough to draw and to count."""
    fields = {name: InputField({"type": "string"}, not given.optional) for name, given in graph.input.items()}
    nodes = _compiled(graph.nodes, max_output)
    return Program(
        graph.name, nodes, expression(graph.output) or Read(frozenset(), {}), {"type": "string"}, fields, graph=graph
    )


def _compiled(given: Mapping[str, AnyNode], max_output: int) -> tuple[CompiledNode, ...]:
    order = {name: index for index, name in enumerate(given)}
    needs = {name: _needs(node, order, order[name]) for name, node in given.items()}
    children = [tuple(order[name] for name in given if index in needs[name]) for index in range(len(order))]
    heights = [1] * len(order)
    for index in reversed(range(len(order))):
        heights[index] += max((heights[child] for child in children[index]), default=0)
    found = []
    for name, node in given.items():
        kind = next(kind for kind in NODE_KINDS if hasattr(node, kind))
        soft = frozenset(needs[name]) if kind == "first_of" else frozenset(order[one] for one in node.after)
        body = getattr(node, kind) if kind in ("loop", "call") and not isinstance(getattr(node, kind), str) else None
        contract = None
        if isinstance(node, AgentNode):
            contract = Contract(str(node.agent), "agent", {}, {}, max_output=max_output)
        elif isinstance(node, ToolNode):
            contract = Contract(node.tool, "tool", {}, {})
        acceptance = (
            Acceptance(node.checks, expression(node.against), 0.5, node.otherwise or ("abstain",))
            if node.checks
            else None
        )
        found.append(
            CompiledNode(
                order[name],
                name,
                kind,
                node,
                {"type": "string"},
                needs[name],
                children[order[name]],
                kind == "first_of",
                soft,
                heights[order[name]],
                contract=contract,
                inputs=expression(getattr(node, "with_", None)),
                when=expression(node.when),
                each=expression(node.each),
                variable=node.as_ or "",
                limit=node.limit or 10_000,
                concurrency=node.concurrency,
                at_least=node.at_least,
                body=None if body is None else _body(name, body, max_output),
                at_most=getattr(body, "at_most", 1),
                fallback=expression(node.fallback),
                retry=node.retry or Retry(),
                timeout=node.timeout,
                acceptance=acceptance,
            )
        )
    return tuple(found)


def _body(name: str, body: NodeBlock, max_output: int) -> Program:
    output = expression(body.output) or Read(frozenset(), {})
    return Program(name, _compiled(body.nodes, max_output), output, {"type": "string"}, {}, sees_outer_scope=True)


def _needs(node: AnyNode, order: Mapping[str, int], index: int) -> tuple[int, ...]:
    read = expression(node.model_dump())
    names_ = {*(read.references if read else ()), *node.after}
    return tuple(sorted(order[name] for name in names_ if order.get(name, index) < index))
