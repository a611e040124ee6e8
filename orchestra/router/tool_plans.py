"""Plans over any list of tools: the prompt text of the list, the grammar of the reply, and the graph that it describes.

The tools come with the request. They have names, perhaps descriptions and parameters, and they are never executed here.
So there are no output types to check references by, unlike for the capabilities of a project
(`orchestra.router.plan_grammar`). The notation of the lines is the same:

    s1 = search_flights(to="Rome")
    s2 = book(s1, seat="window")

A plan of calls has one line per call. It names only listed tools, declared arguments, and earlier steps. A plan of
steps describes in words what to do: `s2 = step(s1, do="Add the two costs.")`. A line has an edge from each step that it
names, whether it reads it or only waits for it.
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
from orchestra.documents.ranking import bm25_scores
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

STEP, DO = "step", "do"
"""Name of the call in a plan of steps, and of its argument with the description."""
MAX_STEPS = 10
MAX_PROMPT_LENGTH = 760
"""Maximum characters of the tools and tables in the prompt: about 200 tokens, because the length of the prompt
dominates the cost of a plan.
"""
MAX_DESCRIBED = 4
"""Number of tools whose descriptions are shown, by rank."""
MAX_TEXT_LENGTH = 240
"""Maximum characters of a text that a plan states."""
MIN_SHORTLIST = 6
"""Number of tools that are shown regardless of their length."""
_INVALID_NAME = re.compile(r"[^A-Za-z0-9_.:/-]+|^[^A-Za-z_]+|[^A-Za-z0-9_]+$")


@dataclass(frozen=True)
class RequestTool:
    """A tool of a request."""

    name: str
    plan_name: str
    """Its name in plan notation: other characters are replaced by underscores."""
    description: str = ""
    fields: Mapping[str, Schema] = field(default_factory=dict)
    required: frozenset[str] = frozenset()

    @property
    def search_text(self) -> str:
        """Search text: the name twice, split into words, because it says more than a sentence of the description."""
        name = " ".join(NAME_WORDS.findall(self.name))
        fields = " ".join(part for field_text in self.fields for part in NAME_WORDS.findall(field_text))
        return f"{name} {name} {self.description} {fields}"

    @property
    def signature(self) -> str:
        """Formats the call."""
        argument_text = ", ".join(
            f"{name}{'' if name in self.required else '?'}{_type_suffix(kind)}" for name, kind in self.fields.items()
        )
        return f"{self.plan_name}({argument_text})" if self.fields else self.plan_name

    def describe(self, task: frozenset[str]) -> str:
        """Formats the tool, with its description if that shares a word with the task that the name does not have."""
        matching_words = (content_words(self.description) & task) - content_words(
            " ".join(NAME_WORDS.findall(self.name)).casefold()
        )
        return f"{self.signature}: {prompt.first_sentence(self.description)}" if matching_words else self.signature


def parse_tools(tools: Sequence[Any]) -> list[RequestTool]:
    """Parses the tools of a request, which may be names only.

    Parameters are JSON Schema, or a mapping from names to types or descriptions. A parameter whose name is no
    identifier cannot be passed.

    Raises:
        InputError: A016 if a tool has no name, or two have the same.
    """
    functions = [{"name": tool} if isinstance(tool, str) else tool for tool in tools]
    shaped = [_normalize(function) for function in functions]
    taken_names: set[str] = set()
    request_tools = []
    parameter_schemas(
        [{"name": definition.get("name")} for definition in shaped], "tools"
    )  # checks that names are unique
    for definition in shaped:
        (schema,) = parameter_schemas(
            [definition], "tools"
        )  # one by one, because few of a catalogue of thousands are shown
        description = definition.get("description")
        kinds = {name: kind for name, kind in schema.get("properties", {}).items() if IDENTIFIER.fullmatch(name)}
        required = frozenset(kinds) & frozenset(schema.get("required", ()))
        plan_name = _unique_name(_INVALID_NAME.sub("_", str(definition["name"])), taken_names)
        taken_names.add(plan_name)
        request_tools.append(
            RequestTool(
                str(definition["name"]), plan_name, description if isinstance(description, str) else "", kinds, required
            )
        )
    return request_tools


def _unique_name(name: str, taken_names: set[str]) -> str:
    """A name that is not taken."""
    return next(
        candidate
        for number in count(1)
        if (candidate := name if number == 1 else f"{name}_{number}") not in taken_names
    )


def _normalize(tool: Any) -> Mapping[str, Any]:
    """A declaration with its parameters as JSON Schema."""
    if not isinstance(tool, Mapping) or not isinstance(parameters := tool.get("parameters"), Mapping):
        return tool if isinstance(tool, Mapping) else {}
    inner = parameters.get("properties")
    if isinstance(inner, Mapping) and all(
        isinstance(property_schema, Mapping) for property_schema in inner.values()
    ):  # and no parameter with this name
        return tool
    stated_required = tool.get("required")
    required = [
        name
        for name, parameter in parameters.items()
        if isinstance(parameter, str) and parameter.startswith("Required")
    ]
    properties = {
        str(name): parameter if isinstance(parameter, Mapping) else {} for name, parameter in parameters.items()
    }
    required_list = [str(name) for name in stated_required] if isinstance(stated_required, list | tuple) else required
    return {**tool, "parameters": {"type": "object", "properties": properties, "required": required_list}}


def rank_tools(task: str, tools: Sequence[RequestTool]) -> list[RequestTool]:
    """Sorts tools by words in common with the task."""
    scores = bm25_scores([tool.search_text for tool in tools], task)
    return [tools[at] for at in sorted(range(len(tools)), key=lambda at: (-scores[at], at))]


def shortlist(task: str, tools: Sequence[RequestTool]) -> list[RequestTool]:
    """Returns the best tools, as many as fit into a prompt."""
    room, request_tools = MAX_PROMPT_LENGTH, list[RequestTool]()
    for tool in rank_tools(task, tools):
        room -= len(tool.signature) + 1
        if room < 0 and len(request_tools) >= MIN_SHORTLIST:
            break
        request_tools.append(tool)
    return request_tools


def describe_tools(task: str, tools: Sequence[RequestTool], tables: Mapping[str, Any] | None = None) -> str:
    """Formats ranked tools for the prompt, one per line, and the tables of a database."""
    task_words = content_words(task)
    lines = [tool.describe(task_words) if at < MAX_DESCRIBED else tool.signature for at, tool in enumerate(tools)]
    room = MAX_PROMPT_LENGTH
    for name, columns in (tables or {}).items():
        line = f"table {name}({', '.join(map(str, columns)) if isinstance(columns, list | tuple) else ''})"
        room -= len(line) + 1
        if room < 0:
            break
        lines.append(line)
    return "\n".join(lines)


def build_grammar(tools: Sequence[RequestTool], style: PlanStyle | None = None) -> str:
    """Returns the grammar of plans over these tools in Lark notation: of calls, of steps, or of either if no style is
    given.
    """
    writer = _GrammarWriter()
    choices = [writer.line_rules([writer.step_call] * MAX_STEPS)] if style != "calls" or not tools else []
    if tools and style != "steps":
        choices.append(writer.line_rules([lambda before: writer.tool_calls(tools, before)] * MAX_STEPS))
    return writer.render(" | ".join(choices))


def next_line_grammar(tools: Sequence[RequestTool], before: int, style: PlanStyle) -> str:
    """Returns the grammar of the line after this many lines, for a model that is asked line by line. If another line
    follows, the reply ends with the first letter of its name, which the next line then omits.
    """
    writer = _GrammarWriter()
    head = f"{before + 1} = " if before else "s1 = "
    call = writer.step_call(before) if style == "steps" else writer.tool_calls(tools, before)
    continuation = f" {grammar_literal(chr(10) + 's')}?" if before + 1 < MAX_STEPS else ""
    return writer.render(f"{grammar_literal(head)} {writer.rule(call)}{continuation}")


class _GrammarWriter:
    """Collects grammar rules on demand. Equal rules are written once."""

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}

    def rule(self, body: str) -> str:
        return self._rules.setdefault(body, f"r{len(self._rules)}")

    def render(self, start: str) -> str:
        return "\n".join(
            ["%llguidance {}", f"start: {start}", *(f"{name}: {body}" for body, name in self._rules.items()), ""]
        )

    def line_rules(self, calls: Sequence[Any]) -> str:
        """Rules of numbered lines, at least one. Each may name earlier ones."""
        rest = ""
        for number in range(len(calls), 0, -1):
            line_rule = f"{grammar_literal(f's{number} = ')} {self.rule(calls[number - 1](number - 1))}"
            rest = self.rule(f"{line_rule} ({grammar_literal(chr(10))} {rest})?" if rest else line_rule)
        return rest

    def step_call(self, before: int) -> str:
        text = self.json_rule({"type": "string", "minLength": 1, "maxLength": MAX_TEXT_LENGTH})
        waits = self.wait_arguments(before)
        return f"{grammar_literal(STEP + '(')} {waits} {grammar_literal(DO + '=')} {text} {grammar_literal(')')}"

    def tool_calls(self, tools: Sequence[RequestTool], before: int) -> str:
        return " | ".join(self.tool_call(tool, before) for tool in tools)

    def tool_call(self, tool: RequestTool, before: int) -> str:
        """Rule of one call: the steps that it waits for, then its arguments in order."""
        rest = {True: grammar_literal(")"), False: grammar_literal(")")}
        for name, kind in reversed(list(tool.fields.items())):
            value = self.rule(
                " | ".join([*(grammar_literal(f"s{at}") for at in range(1, before + 1)), self.json_rule(kind)])
            )
            rules = {}
            for first in (True, False):
                key = f"{name}=" if first else f", {name}="
                field_rule = f"{grammar_literal(key)} {value} {rest[False]}"
                rules[first] = self.rule(field_rule if name in tool.required else f"{field_rule} | {rest[first]}")
            rest = rules
        repetition = f" ({grammar_literal(', ')} {self.earlier_step(before)}){{0,{before - 1}}}" if before > 1 else ""
        alone = f"{self.earlier_step(before)}{repetition}" if before else ""
        if not tool.fields:
            return self.rule(
                f"{grammar_literal(tool.plan_name + '(')} ({alone})? {grammar_literal(')')}"
                if before
                else grammar_literal(tool.plan_name + "()")
            )
        wait_rule = f"{alone} {rest[False]} | " if before else ""
        return self.rule(f"{grammar_literal(tool.plan_name + '(')} ({wait_rule}{rest[True]})")

    def wait_arguments(self, before: int) -> str:
        return f"({self.earlier_step(before)} {grammar_literal(', ')}){{0,{before}}}" if before else ""

    def earlier_step(self, before: int) -> str:
        """Rule of an earlier step."""
        return self.rule(" | ".join(grammar_literal(f"s{at}") for at in range(1, before + 1)))

    def json_rule(self, kind: Schema) -> str:
        body = limit_texts(strip_unknown_formats(dict(kind)), MAX_TEXT_LENGTH)
        return self.rule(f"%json {ascii_json({**body, 'x-guidance': JSON_SPACING})}")


def parse_graph(text: str, tools: Sequence[RequestTool], style: PlanStyle | None = None) -> dict[str, Any]:
    """Parses a model's plan into `{nodes, edges}`: a node is `{tool, arguments}` or `{step}`, an edge a pair of node
    numbers.

    Without a grammar on the server a model may write anything.

    Raises:
        InputError: R001 for invalid lines, more than ten lines, a call for each element of a list, and a duplicate
        name; R002 for an unknown
            tool, argument or step.
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
    tools_by_name = {tool.plan_name: tool for tool in tools}
    numbers: dict[str, int] = {}
    nodes: list[dict[str, Any]] = []
    edges: list[list[int]] = []
    for line in lines:
        needed_names = [*line.after, *(reference.root for reference in line.references)]
        if missing := next((name for name in needed_names if name not in numbers), ""):
            raise InputError(
                "R002",
                f"{line.name} names {missing}, which is not before it",
                hint=f"before it: {', '.join(numbers) or 'none'}",
            )
        if line.name in numbers:
            raise InputError("R001", f"two lines are called {line.name}", hint=f"call this one s{len(nodes) + 1}")
        edges += [[numbers[name], len(nodes)] for name in dict.fromkeys(needed_names)]
        numbers[line.name] = len(nodes)
        nodes.append(_node(line, tools_by_name, style))
    return {"nodes": nodes, "edges": edges}


def _node(line: PlanStep, tools_by_name: Mapping[str, RequestTool], style: PlanStyle | None) -> dict[str, Any]:
    if line.each is not None:
        hint = f'{line.name} = NAME(ARGUMENT="VALUE"), and a line for each value'
        raise InputError(
            "R001", f"{line.name} is a call for each element of a list, and a line here is one call", hint=hint
        )
    values = {
        name: value.value if isinstance(value, Stated) else f"${{{value}}}" for name, value in line.arguments.items()
    }
    if line.capability == STEP and STEP not in tools_by_name and style != "calls":
        return {"step": str(values.get(DO, ""))}
    tool = tools_by_name.get(line.capability)
    if tool is None:
        near = closest_match(line.capability, list(tools_by_name))
        raise InputError(
            "R002",
            f"there is no tool {line.capability!r}",
            hint=f"did you mean {near!r}?" if near else f"known: {', '.join(tools_by_name)}",
        )
    if wrong := next((name for name in values if name not in tool.fields), ""):
        raise InputError(
            "R002", f"{line.capability} has no argument {wrong!r}", hint=f"it has {', '.join(tool.fields) or 'none'}"
        )
    return {"tool": tool.name, "arguments": values} if tool.fields else {"tool": tool.name}


def format_graph(
    nodes: Sequence[Mapping[str, Any]], edges: Sequence[Sequence[int]], tools: Sequence[RequestTool]
) -> str:
    """Formats a graph with edges from earlier to later nodes in plan notation: the training target of a model."""
    plan_names = {tool.name: tool.plan_name for tool in tools}
    lines = []
    for at, node in enumerate(nodes):
        before = [f"s{i + 1}" for i, j in edges if j == at]
        node_arguments = node.get("arguments", {}) if "tool" in node else {DO: node["step"]}
        arguments: dict[str, Stated | PlanReference] = {
            name: PlanReference(value[2:-1])
            if isinstance(value, str) and re.fullmatch(r"\$\{s\d+\}", value)
            else Stated(value)
            for name, value in node_arguments.items()
        }
        roots = {argument.root for argument in arguments.values() if isinstance(argument, PlanReference)}
        after = tuple(dict.fromkeys(name for name in before if name not in roots))
        lines.append(str(PlanStep(f"s{at + 1}", plan_names.get(str(node.get("tool")), STEP), arguments, None, after)))
    return "\n".join(lines)


def _type_suffix(kind: Schema) -> str:
    text = prompt.type_text(kind)
    return "" if text in ("str", "object", "any") or not kind else f": {text}"
