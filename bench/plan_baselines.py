"""Planners with a served model: ReAct, a plan in free text, and the agent `planner` if there is one. All use the same
server.

- ReAct (Yao et al. 2022, https://arxiv.org/abs/2210.03629): a thought, an action and an observation, repeatedly. The
  sets have no results of
  their tools, so an observation only has the name of the result. A grammar restricts the lines to one thought and one
  action; their content is free.
- A complete plan in free text, as LLMCompiler's planner writes it (Kim et al. 2023, https://arxiv.org/abs/2312.04511):
  numbered lines
  `1. tool(argument=value)`, in which `$1` is the result of line 1. There is no grammar, and parsing is as lenient as
  possible.
- Ours: the agent or the workflow `planner`, which takes `{task, tools: [{name, description, parameters?}]}` and gives
  `{nodes, edges}`; if it has inputs for them, it also gets whether calls or steps are wanted, and the tables of a
  database.

The first two have one worked example each in their prompts, about tools that no set has. The prompts are ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.metrics import Plan
from bench.plan_floors import chained
from bench.plan_sets import MAX_TABLES, PlanSet, Task
from orchestra.agents.card import Card
from orchestra.agents.evidence_grammar import grammar_literal
from orchestra.app.orchestra import Orchestra
from orchestra.core.errors import FleetError, InputError
from orchestra.core.events import NO_USAGE, Usage
from orchestra.core.outcomes import FailedOutcome
from orchestra.router import tool_plans
from orchestra.workflows.python.steps import Agent, Step

MAX_STEPS = 6
"""Actions of ReAct; no correct plan of the sets has more than eight nodes, and 99 of 100 have at most five."""
LINE = 160
"""Characters of a thought, and of an action."""
PLANNER = "planner"
TEXT: dict[str, Any] = {"type": "string"}
CALLS = """Tools:
find_flight(from, to): Finds flights between two cities.
book_flight(flight): Books a flight.
send_email(to, text): Sends an email.
play_song(name): Plays a song.

Request: Book me a flight from Oslo to Rome and mail the details to Ann.
"""
STEPS = """Task: Book me a flight from Oslo to Rome and mail the details to Ann.
"""
WHOLE_CALLS = f"""<!-- system -->
Write a plan for the request: numbered lines, one call a line, of the tools that are listed and of no others. An \
argument that is the \
result of line 1 is written $1. Write no more lines than are needed, and nothing else.

{CALLS}
1. find_flight(from="Oslo", to="Rome")
2. book_flight(flight=$1)
3. send_email(to="Ann", text=$2)
<!-- user -->
Tools:
{{{{ tools }}}}

Request: {{{{ task }}}}
"""
WHOLE_STEPS = f"""<!-- system -->
Write a plan for the task: numbered lines, one short step a line. At the end of a step stand, in brackets, the \
numbers of the steps \
whose results it needs. Write no more lines than are needed, and nothing else.

{STEPS}
1. Find a flight from Oslo to Rome ()
2. Book the flight ($1)
3. Find the address of Ann ()
4. Mail the details to Ann ($2, $3)
<!-- user -->
{{{{ tools }}}}

Task: {{{{ task }}}}
"""
REACT_CALLS = f"""<!-- system -->
Do what is requested, step by step. Each step is a thought and an action, which is a call of one of the tools that \
are listed. After an \
action you are told what it gave. When everything is done, the action is finish().

{CALLS}
Thought: I need a flight first.
Action: find_flight(from="Oslo", to="Rome")
Observation: done, the result is $1
Thought: I book it.
Action: book_flight(flight=$1)
Observation: done, the result is $2
Thought: Ann must know the details.
Action: send_email(to="Ann", text=$2)
Observation: done, the result is $3
Thought: Everything is done.
Action: finish()
<!-- user -->
Tools:
{{{{ tools }}}}

Request: {{{{ task }}}}
<!-- assistant -->
{{{{ so_far }}}}
"""
REACT_STEPS = f"""<!-- system -->
Solve the task, step by step. Each step is a thought and an action, which is said in a few words. After an action \
you are told that it was \
done. When everything is done, the action is finish().

{STEPS}
Thought: I need a flight first.
Action: Find a flight from Oslo to Rome
Observation: done
Thought: I book it.
Action: Book the flight
Observation: done
Thought: Ann must know the details.
Action: Mail the details to Ann
Observation: done
Thought: Everything is done.
Action: finish()
<!-- user -->
{{{{ tools }}}}

Task: {{{{ task }}}}
<!-- assistant -->
{{{{ so_far }}}}
"""
_NUMBERED = re.compile(r"^\W*(?:s|step\s*)?(\d+)\s*[.):=]\s*(.+)$", re.IGNORECASE)
_CALL = re.compile(r"([A-Za-z_][\w.\-/]*)\s*\((.*)\)?")
_REFERENCE = re.compile(r"\$\{?(\d+)\}?")
_ARGUMENT = re.compile(r"""([A-Za-z_]\w*)\s*[=:]\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^,]+)""")
_ENDS = re.compile(r"\s*\((?:[^()]*)\)\s*$")
_DONE = re.compile(r"^(?:finish|join)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Planned:
    """The result of a request: the plan, None if there is none, and its cost."""

    plan: Plan | None
    usage: Usage = NO_USAGE
    seconds: float = 0.0
    fault: str = ""


@dataclass
class Tally:
    """The cost of the calls of one request."""

    usage: Usage = NO_USAGE
    fault: str = ""

    async def ask(self, orchestra: Orchestra, agent: Step[..., Any], **inputs: Any) -> Any:
        """Returns the answer of an agent; None if it fails. Raises `FleetError` if no server is available."""
        try:
            result = await (await orchestra.start(agent, **inputs)).wait()
        except InputError as error:
            self.fault = f"{error.code}: {error.message}"
            return None
        self.usage += result.usage
        if isinstance(result.outcome, FailedOutcome) and result.outcome.code.startswith("F0"):
            raise FleetError(result.outcome.code, result.outcome.reason, hint=result.outcome.hint)
        if result.error is not None:
            self.fault = f"{result.error.code}: {result.error.message}"
        return result.value


def card(name: str, prompt: str, inputs: Sequence[str], max_output: int, **more: Any) -> Card:
    """Returns an agent of texts, on the fleet's base, at temperature 0."""
    given = {
        "type": "object",
        "properties": dict.fromkeys(inputs, TEXT),
        "required": list(inputs),
        "additionalProperties": False,
    }
    return Card.declare(name, input=given, output=TEXT, prompt=prompt, max_output=max_output, **more)


@dataclass(frozen=True)
class OneShot:
    """The complete plan in free text."""

    orchestra: Orchestra
    known: PlanSet
    name: str = "plan in free text, at once"

    async def __call__(self, task: Task) -> Planned:
        steps = self.known.kind.steps
        writer = card(
            "whole_steps" if steps else "whole_calls", WHOLE_STEPS if steps else WHOLE_CALLS, ("task", "tools"), 192
        )
        tally = Tally()
        text = await tally.ask(
            self.orchestra, Agent.from_card(writer), task=task.text, tools=told(narrowed(task, self.known), steps)
        )
        plan = None if text is None else read_steps(text) if steps else read_calls(text, chains=self.known.kind.chains)
        return Planned(plan, tally.usage, fault=tally.fault)


@dataclass(frozen=True)
class ReAct:
    """One thought and one action at a time."""

    orchestra: Orchestra
    known: PlanSet
    name: str = "ReAct"

    async def __call__(self, task: Task) -> Planned:
        steps = self.known.kind.steps
        inputs = ("task", "tools", "so_far", "grammar")
        prompt = REACT_STEPS if steps else REACT_CALLS
        actor = Agent.from_card(card("react_steps" if steps else "react_calls", prompt, inputs, 112, grammar="grammar"))
        tally, actions, so_far, tools = Tally(), list[str](), "", told(narrowed(task, self.known), steps)
        while len(actions) < MAX_STEPS:
            given = {"task": task.text, "tools": tools, "so_far": so_far, "grammar": form(bool(so_far))}
            said = await tally.ask(self.orchestra, actor, **given)
            if said is None or "Action:" not in said:
                break
            action = said.partition("Action:")[2].strip().partition("\n")[0]
            if not action or _DONE.match(action) or action in actions:
                break
            actions.append(action)
            so_far += f"\n{said.strip()}\nObservation: done" + ("" if steps else f", the result is ${len(actions)}")
        plan = acted(actions, steps=steps, chains=self.known.kind.chains)
        return Planned(plan if actions or not tally.fault else None, tally.usage, fault=tally.fault)


def form(goes_on: bool) -> str:
    """Returns the grammar of a thought and an action, preceded by a line break if text precedes them."""
    line = f"/[^\\n]{{1,{LINE}}}/"
    begin, middle, end = (grammar_literal(text) for text in ("\n" * goes_on + "Thought: ", "\nAction: ", "\n"))
    return f"%llguidance {{}}\nstart: {begin} {line} {middle} {line} {end}\n"


@dataclass(frozen=True)
class Ours:
    """The agent or the workflow `planner`; it fails if its output is not a plan."""

    orchestra: Orchestra
    known: PlanSet
    name: str = "ours: `planner`"
    styled: bool = True
    """Whether it gets the kind of plan that is wanted."""

    async def __call__(self, task: Task) -> Planned:
        planner = self.orchestra.find(PLANNER)
        tools = [{key: tool[key] for key in ("name", "description", "parameters") if key in tool} for tool in task.raw]
        style = "steps" if self.known.kind.steps else "calls"
        more = {"style": style if self.styled else None, "schema": task.tables or None}
        taken = planner.signature.input.get("properties", {})
        tally = Tally()
        inputs = {"task": task.text, "tools": tools} | {
            name: value for name, value in more.items() if name in taken and value
        }
        given = await tally.ask(self.orchestra, planner, **inputs)
        plan = sound(given)
        return Planned(plan, tally.usage, fault=tally.fault or ("" if plan is not None else "its output is no plan"))


def has_planner(orchestra: Orchestra) -> bool:
    """Returns whether there is an agent or a workflow of that name."""
    return PLANNER in orchestra.registry.cards or PLANNER in orchestra.workflows()


def narrowed(task: Task, known: PlanSet) -> Task:
    """Returns the task with the tools that its planner gets: for a catalogue, which exceeds every prompt, the shortlist
    that ours gets.
    """
    if not known.kind.catalogue:
        return task
    faces = {tool.name: tool for tool in task.tools}
    return replace(
        task, tools=tuple(faces[one.name] for one in tool_plans.shortlist(task.text, tool_plans.parse_tools(task.raw)))
    )


def told(task: Task, steps: bool) -> str:
    """Returns the tools, one for each line; and the tables of a database."""
    lines = "\n".join(map(str, task.tools))
    columns = "\n".join(f"{name}({', '.join(map(str, found))})" for name, found in task.tables.items())[:MAX_TABLES]
    tables = f"Tables:\n{columns}" if columns else ""
    head = "Tools:\n" if steps and lines else ""
    return "\n\n".join(part for part in (head + lines, tables) if part)


def sound(given: Any) -> Plan | None:
    """Returns an agent's output as a plan; None if it is not one. Edges to unknown nodes are left out."""
    if not isinstance(given, Mapping) or not isinstance(given.get("nodes"), list | tuple):
        return None
    nodes = [node for node in given["nodes"] if isinstance(node, Mapping)]
    edges = [edge for edge in given.get("edges") or () if isinstance(edge, list | tuple) and len(edge) == 2]
    inside = range(len(nodes))
    whole = [
        [i, j] for i, j in edges if isinstance(i, int) and isinstance(j, int) and i in inside and j in inside and i != j
    ]
    return {"nodes": nodes, "edges": whole} if nodes else None


# Free-text plans


def read_calls(text: str, *, chains: bool) -> Plan | None:
    """Parses numbered lines of calls; other lines are skipped. `chains`: each line follows the previous one."""
    found: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = _NUMBERED.match(line.strip())
        if match and not _DONE.match(match[2].strip()) and int(match[1]) not in [number for number, _ in found]:
            found.append((int(match[1]), match[2].strip()))
    return _of_calls(found, chains)


def acted(actions: Sequence[str], *, steps: bool, chains: bool) -> Plan | None:
    """Returns the plan of a sequence of actions; unless `chains`, calls have only the links in their arguments."""
    if steps:
        return chained([{"step": action} for action in actions]) if actions else None
    return _of_calls(list(enumerate(actions, 1)), chains)


def _of_calls(lines: Sequence[tuple[int, str]], chains: bool) -> Plan | None:
    nodes: list[dict[str, Any]] = []
    place: dict[int, int] = {}
    edges: list[list[int]] = []
    for number, line in lines:
        match = _CALL.search(line)
        name, inside = (match[1], match[2]) if match else (line.split()[0].strip("`*:,.\"'"), "")
        edges += [
            [place[int(one)], len(nodes)] for one in dict.fromkeys(_REFERENCE.findall(inside)) if int(one) in place
        ]
        place[number] = len(nodes)
        arguments = {
            key: _value(value)
            for key, value in _ARGUMENT.findall(inside.removesuffix(")"))
            if not _REFERENCE.search(value)
        }
        nodes.append({"tool": name, "arguments": arguments})
    if not nodes:
        return None
    return chained(nodes) if chains else {"nodes": nodes, "edges": edges}


def read_steps(text: str) -> Plan | None:
    """Parses numbered lines of steps; `$1` in a line names a required step."""
    nodes: list[dict[str, str]] = []
    place: dict[int, int] = {}
    edges: list[list[int]] = []
    for line in text.splitlines():
        match = _NUMBERED.match(line.strip())
        if not match or int(match[1]) in place:
            continue
        said = match[2].strip()
        ends = _ENDS.search(said)
        named = _REFERENCE.findall(said) or (
            re.findall(r"\d+", ends[0]) if ends and re.fullmatch(r"[\s\d,()]*", ends[0]) else []
        )
        edges += [[place[int(one)], len(nodes)] for one in dict.fromkeys(named) if int(one) in place]
        place[int(match[1])] = len(nodes)
        brackets = ends and (named or re.fullmatch(r"\s*\(\s*\)\s*", ends[0]))
        nodes.append({"step": _ENDS.sub("", said) if brackets else said})
    return {"nodes": nodes, "edges": edges} if nodes else None


def _value(text: str) -> str:
    value = text.strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
