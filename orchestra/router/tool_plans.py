"""Plans for any list of tools: what a model reads of the list, the grammar of its answer, and the graph that the answer is.

The tools come with a request and are nobody's here: they have names, perhaps descriptions and parameters, and nothing of them runs. So
there are no types of results to wire by, as `orchestra.router.plan_grammar` has for the tools of a project. The lines
are the same notation:

    s1 = search_flights(to="Rome")
    s2 = book(s1, seat="window")

A plan of calls has one line a call, and names no tool that is not there, no argument that it does not declare, and no step that does
not stand before it. A plan of steps says in words what is to be done, `s2 = step(s1, do="Add the two costs.")`. An edge of the
graph is a step that a line names, whether it reads it or only waits for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from orchestra.agents.evidence_grammar import ascii_json, grammar_literal, limit_texts, strip_unknown_formats
from orchestra.agents.function_calls import parameter_schemas
from orchestra.core.errors import InputError
from orchestra.core.suggestions import closest_match
from orchestra.router import PlanStyle, prompt
from orchestra.router.plan_syntax import (
    IDENTIFIER,
    JSON_SPACING,
    NAME_WORDS,
    PlanReference,
    PlanStep,
    PlanSyntaxError,
    parse_plan,
)
from orchestra.router.plan_syntax import PlanLiteral as Stated
from orchestra.schema.types import Schema
from orchestra.text.keywords import content_words
from orchestra.tools.search import bm25_scores

STEP, DO = "step", "do"
"""What a plan of steps calls, and the argument that says in words what is to be done."""
MAX_STEPS = 10
MAX_PROMPT_LENGTH = 760
"""Characters of the tools that a model reads, and of the tables: about 200 tokens, for the prompt's length is what a plan costs."""
MAX_DESCRIBED = 4
"""Tools whose descriptions are told, the best."""
MAX_TEXT_LENGTH = 240
"""Characters of a text that a plan states."""
MIN_SHORTLIST = 6
"""Tools that are told however long they are."""
_INVALID_NAME = re.compile(r"[^A-Za-z0-9_.:/-]+|^[^A-Za-z_]+|[^A-Za-z0-9_]+$")


@dataclass(frozen=True)
class RequestTool:
    """A tool as a request brings it."""

    name: str
    plan_name: str
    """Its name as a plan writes it: signs that names of the notation have not are underscores."""
    description: str = ""
    fields: Mapping[str, Schema] = field(default_factory=dict)
    required: frozenset[str] = frozenset()

    @property
    def search_text(self) -> str:
        """What it is found by: its name twice, cut into words, for a name says more than a sentence about it."""
        name = " ".join(NAME_WORDS.findall(self.name))
        return f"{name} {name} {self.description} {' '.join(part for one in self.fields for part in NAME_WORDS.findall(one))}"

    @property
    def signature(self) -> str:
        """How it is called."""
        taken = ", ".join(
            f"{name}{'' if name in self.required else '?'}{_type_suffix(kind)}" for name, kind in self.fields.items()
        )
        return f"{self.plan_name}({taken})" if self.fields else self.plan_name

    def describe(self, task: frozenset[str]) -> str:
        """Its line, and its description where that shares a word with the task which its name has not."""
        more = (content_words(self.description) & task) - content_words(
            " ".join(NAME_WORDS.findall(self.name)).casefold()
        )
        return f"{self.signature}: {prompt.first_sentence(self.description)}" if more else self.signature


def parse_tools(tools: Sequence[Any]) -> list[RequestTool]:
    """The tools of a request, which may also be no more than names.

    Parameters are JSON Schema, or a mapping from names to types or to words; one whose name is no word cannot be given. Raises `InputError`
    A016 where a tool has no name, or two have the same.
    """
    functions = [{"name": one} if isinstance(one, str) else one for one in tools]
    shaped = [_normalize(one) for one in functions]
    taken: set[str] = set()
    found = []
    parameter_schemas([{"name": one.get("name")} for one in shaped], "tools")  # all can be told apart
    for one in shaped:
        (schema,) = parameter_schemas([one], "tools")  # each by itself: of a catalogue of thousands few are told
        description = one.get("description")
        kinds = {name: kind for name, kind in schema.get("properties", {}).items() if IDENTIFIER.fullmatch(name)}
        required = frozenset(kinds) & frozenset(schema.get("required", ()))
        written = _unique_name(_INVALID_NAME.sub("_", str(one["name"])), taken)
        taken.add(written)
        found.append(
            RequestTool(str(one["name"]), written, description if isinstance(description, str) else "", kinds, required)
        )
    return found


def _unique_name(name: str, taken: set[str]) -> str:
    """A name that is not taken."""
    return next(one for number in count(1) if (one := name if number == 1 else f"{name}_{number}") not in taken)


def _normalize(tool: Any) -> Mapping[str, Any]:
    """A declaration whose parameters are JSON Schema."""
    if not isinstance(tool, Mapping) or not isinstance(given := tool.get("parameters"), Mapping):
        return tool if isinstance(tool, Mapping) else {}
    inner = given.get("properties")
    if isinstance(inner, Mapping) and all(
        isinstance(one, Mapping) for one in inner.values()
    ):  # and no parameter of this name
        return tool
    needed = tool.get("required")
    required = [name for name, one in given.items() if isinstance(one, str) and one.startswith("Required")]
    properties = {str(name): one if isinstance(one, Mapping) else {} for name, one in given.items()}
    listed = [str(name) for name in needed] if isinstance(needed, list | tuple) else required
    return {**tool, "parameters": {"type": "object", "properties": properties, "required": listed}}


def rank_tools(task: str, tools: Sequence[RequestTool]) -> list[RequestTool]:
    """The tools, those first that share most words with the task."""
    found = bm25_scores([one.search_text for one in tools], task)
    return [tools[at] for at in sorted(range(len(tools)), key=lambda at: (-found[at], at))]


def shortlist(task: str, tools: Sequence[RequestTool]) -> list[RequestTool]:
    """The best of them, as many as a prompt has room for."""
    room, found = MAX_PROMPT_LENGTH, list[RequestTool]()
    for one in rank_tools(task, tools):
        room -= len(one.signature) + 1
        if room < 0 and len(found) >= MIN_SHORTLIST:
            break
        found.append(one)
    return found


def describe_tools(task: str, tools: Sequence[RequestTool], tables: Mapping[str, Any] | None = None) -> str:
    """What a model reads of ranked tools, one a line, and of the tables of a database."""
    wanted = content_words(task)
    lines = [one.describe(wanted) if at < MAX_DESCRIBED else one.signature for at, one in enumerate(tools)]
    room = MAX_PROMPT_LENGTH
    for name, columns in (tables or {}).items():
        line = f"table {name}({', '.join(map(str, columns)) if isinstance(columns, list | tuple) else ''})"
        room -= len(line) + 1
        if room < 0:
            break
        lines.append(line)
    return "\n".join(lines)


def build_grammar(tools: Sequence[RequestTool], style: PlanStyle | None = None) -> str:
    """The plans that these tools allow, as Lark: of calls, of steps, or of either where no style is said."""
    writer = _GrammarWriter()
    choices = [writer.line_rules([writer.step_call] * MAX_STEPS)] if style != "calls" or not tools else []
    if tools and style != "steps":
        choices.append(writer.line_rules([lambda before: writer.tool_calls(tools, before)] * MAX_STEPS))
    return writer.render(" | ".join(choices))


def next_line_grammar(tools: Sequence[RequestTool], before: int, style: PlanStyle) -> str:
    """The line behind so many others, for a model that is asked line by line; where another one follows, the first letter of its name
    stands behind it, and that letter stands before this one already."""
    writer = _GrammarWriter()
    head = f"{before + 1} = " if before else "s1 = "
    call = writer.step_call(before) if style == "steps" else writer.tool_calls(tools, before)
    more = f" {grammar_literal(chr(10) + 's')}?" if before + 1 < MAX_STEPS else ""
    return writer.render(f"{grammar_literal(head)} {writer.rule(call)}{more}")


class _GrammarWriter:
    """Rules, as they are asked for; equal ones are written once."""

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}

    def rule(self, body: str) -> str:
        return self._rules.setdefault(body, f"r{len(self._rules)}")

    def render(self, start: str) -> str:
        return "\n".join(
            ["%llguidance {}", f"start: {start}", *(f"{name}: {body}" for body, name in self._rules.items()), ""]
        )

    def line_rules(self, calls: Sequence[Any]) -> str:
        """Numbered lines, one at least; each may name those before it."""
        rest = ""
        for number in range(len(calls), 0, -1):
            here = f"{grammar_literal(f's{number} = ')} {self.rule(calls[number - 1](number - 1))}"
            rest = self.rule(f"{here} ({grammar_literal(chr(10))} {rest})?" if rest else here)
        return rest

    def step_call(self, before: int) -> str:
        text = self.json_rule({"type": "string", "minLength": 1, "maxLength": MAX_TEXT_LENGTH})
        return f"{grammar_literal(STEP + '(')} {self.wait_arguments(before)} {grammar_literal(DO + '=')} {text} {grammar_literal(')')}"

    def tool_calls(self, tools: Sequence[RequestTool], before: int) -> str:
        return " | ".join(self.tool_call(one, before) for one in tools)

    def tool_call(self, tool: RequestTool, before: int) -> str:
        """One call: the steps it waits for, then its arguments in their order."""
        rest = {True: grammar_literal(")"), False: grammar_literal(")")}
        for name, kind in reversed(list(tool.fields.items())):
            value = self.rule(
                " | ".join([*(grammar_literal(f"s{at}") for at in range(1, before + 1)), self.json_rule(kind)])
            )
            here = {}
            for first in (True, False):
                key = f"{name}=" if first else f", {name}="
                given = f"{grammar_literal(key)} {value} {rest[False]}"
                here[first] = self.rule(given if name in tool.required else f"{given} | {rest[first]}")
            rest = here
        more = f" ({grammar_literal(', ')} {self.earlier_step(before)}){{0,{before - 1}}}" if before > 1 else ""
        alone = f"{self.earlier_step(before)}{more}" if before else ""
        if not tool.fields:
            return self.rule(
                f"{grammar_literal(tool.plan_name + '(')} ({alone})? {grammar_literal(')')}"
                if before
                else grammar_literal(tool.plan_name + "()")
            )
        waiting = f"{alone} {rest[False]} | " if before else ""
        return self.rule(f"{grammar_literal(tool.plan_name + '(')} ({waiting}{rest[True]})")

    def wait_arguments(self, before: int) -> str:
        return f"({self.earlier_step(before)} {grammar_literal(', ')}){{0,{before}}}" if before else ""

    def earlier_step(self, before: int) -> str:
        """One of the steps before."""
        return self.rule(" | ".join(grammar_literal(f"s{at}") for at in range(1, before + 1)))

    def json_rule(self, kind: Schema) -> str:
        body = limit_texts(strip_unknown_formats(dict(kind)), MAX_TEXT_LENGTH)
        return self.rule(f"%json {ascii_json({**body, 'x-guidance': JSON_SPACING})}")


def parse_graph(text: str, tools: Sequence[RequestTool], style: PlanStyle | None = None) -> dict[str, Any]:
    """The plan that a model wrote as `{nodes, edges}`: a node is `{tool, arguments}` or `{step}`, an edge a pair of their numbers.

    A model may write what it likes, where its server decodes by no grammar. Raises `InputError` R001 for lines that are none,
    more than ten of them, a call for each element of a list, and a name that is given twice; R002 for a tool, an argument or a step that is
    not there.
    """
    try:
        lines = [line for line in parse_plan(text) if isinstance(line, PlanStep)]
    except PlanSyntaxError as error:
        raise InputError("R001", f"no plan: {error.reason}", hint='s1 = NAME(ARGUMENT="VALUE")') from error
    if not lines:
        raise InputError("R001", "the plan is empty", hint='s1 = NAME(ARGUMENT="VALUE")')
    if len(lines) > MAX_STEPS:
        raise InputError(
            "R001", f"the plan has {len(lines)} lines; at most {MAX_STEPS} are allowed", hint="leave lines out"
        )
    known = {one.plan_name: one for one in tools}
    numbers: dict[str, int] = {}
    nodes: list[dict[str, Any]] = []
    edges: list[list[int]] = []
    for line in lines:
        named = [*line.after, *(one.root for one in line.references)]
        if missing := next((name for name in named if name not in numbers), ""):
            raise InputError(
                "R002",
                f"{line.name} names {missing}, which does not stand before it",
                hint=f"before it: {', '.join(numbers) or 'none'}",
            )
        if line.name in numbers:
            raise InputError("R001", f"two lines are called {line.name}", hint=f"call this one s{len(nodes) + 1}")
        edges += [[numbers[name], len(nodes)] for name in dict.fromkeys(named)]
        numbers[line.name] = len(nodes)
        nodes.append(_node(line, known, style))
    return {"nodes": nodes, "edges": edges}


def _node(line: PlanStep, known: Mapping[str, RequestTool], style: PlanStyle | None) -> dict[str, Any]:
    if line.each is not None:
        hint = f'{line.name} = NAME(ARGUMENT="VALUE"), and a line for each value'
        raise InputError(
            "R001", f"{line.name} is a call for each element of a list, and a line here is one call", hint=hint
        )
    given = {
        name: value.value if isinstance(value, Stated) else f"${{{value}}}" for name, value in line.arguments.items()
    }
    if line.capability == STEP and STEP not in known and style != "calls":
        return {"step": str(given.get(DO, ""))}
    tool = known.get(line.capability)
    if tool is None:
        near = closest_match(line.capability, list(known))
        raise InputError(
            "R002",
            f"there is no tool {line.capability!r}",
            hint=f"did you mean {near!r}?" if near else f"known: {', '.join(known)}",
        )
    if wrong := next((name for name in given if name not in tool.fields), ""):
        raise InputError(
            "R002", f"{line.capability} has no argument {wrong!r}", hint=f"it has {', '.join(tool.fields) or 'none'}"
        )
    return {"tool": tool.name, "arguments": given} if tool.fields else {"tool": tool.name}


def format_graph(
    nodes: Sequence[Mapping[str, Any]], edges: Sequence[Sequence[int]], tools: Sequence[RequestTool]
) -> str:
    """The notation of a graph, whose edges lead from earlier nodes to later ones: what a model is trained to write."""
    written = {one.name: one.plan_name for one in tools}
    found = []
    for at, node in enumerate(nodes):
        before = [f"s{i + 1}" for i, j in edges if j == at]
        node_arguments = node.get("arguments", {}) if "tool" in node else {DO: node["step"]}
        arguments: dict[str, Stated | PlanReference] = {
            name: PlanReference(value[2:-1])
            if isinstance(value, str) and re.fullmatch(r"\$\{s\d+\}", value)
            else Stated(value)
            for name, value in node_arguments.items()
        }
        read = {one.root for one in arguments.values() if isinstance(one, PlanReference)}
        after = tuple(dict.fromkeys(name for name in before if name not in read))
        found.append(str(PlanStep(f"s{at + 1}", written.get(str(node.get("tool")), STEP), arguments, None, after)))
    return "\n".join(found)


def _type_suffix(kind: Schema) -> str:
    text = prompt.type_text(kind)
    return "" if text in ("str", "object", "any") or not kind else f": {text}"
