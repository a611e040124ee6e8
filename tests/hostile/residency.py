"""Residency: random workflows over labelled data, tools, MCP servers and model servers. No data reaches a destination
that its label forbids.

    python -m tests.hostile.residency --graphs 10000

The real engine, fleet and workers run each graph. Each destination records its inputs: tools, tools that are checks,
MCP servers (their process is replaced; configuration and contract are real), and model servers on loopback. The label
of the run is computed a second time here, from the labels in the graph.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, get_args

import yaml
from mcp_types import CallToolResult, TextContent

from orchestra import Orchestra, tool
from orchestra.agents.mcp import pins
from orchestra.agents.mcp.pins import ToolPin
from orchestra.core.errors import InputError, InputErrors, OrchestraError
from orchestra.core.labels import Label
from orchestra.core.settings import Settings
from orchestra.journal.memory import MemoryJournal
from orchestra.testing import SimulatedRequest, SimulatedServer
from orchestra.workflows.python.steps import Tool, Workflow
from orchestra.workflows.yaml.reader import read

LABELS: tuple[Label, ...] = get_args(Label)
WEIGHTS = (1, 8, 8)
"""How often nodes call a tool that is cleared for each label."""
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
FLEET = """\
schema: orchestra/fleet/v1
name: here
servers:
{servers}
models: {{{models}}}
"""
ROUTER = """\
name: planner
input: {request: str, skills: str, values: str, plan: str, grammar: str}
output: str
grammar: grammar
model: m_restricted
max_output: 256
"""
HELPER = """\
name: helper
description: Sends a text.
input: {text: str}
output: {answer: str}
model: m_restricted
tools: [TOOLS]
max_output: 60
"""
TAKES = "input: {text: str}\noutput: str\nmax_output: 60\n"
AGENT = re.compile(r"(a_\w+_\w+): ")
"""The start of an agent's prompt: the clearance of its card counts in addition to that of its server."""
SEND = re.compile(r"Send with (\S+)\.")


@dataclass
class Sinks:
    """All destinations of data: the clearance of each, and its inputs."""

    cleared: dict[str, Label] = field(default_factory=dict)
    given: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, label: Label) -> None:
        self.cleared[name], self.given[name] = label, []

    def keep(self, name: str, said: Any) -> None:
        self.given[name].append(said if isinstance(said, str) else json.dumps(said, default=str))

    def reached(self, canary: str) -> set[str]:
        """Returns the sinks that have received a canary."""
        return {name for name, texts in self.given.items() if any(canary in text for text in texts)}

    def forget(self) -> None:
        for texts in self.given.values():
            texts.clear()


def strictest(*labels: Label | None) -> Label:
    """Returns the strictest label; a second implementation, so that a fault of the product is detected."""
    for label in ("restricted", "internal"):
        if label in labels:
            return label
    return "public"


def within(label: Label, ceiling: Label) -> bool:
    return LABELS.index(label) <= LABELS.index(ceiling)


# The project


def declared(sinks: Sinks) -> list[Tool[..., Any]]:
    """Creates tools of each label: plain functions, coroutines, and checks."""
    made: list[Tool[..., Any]] = []
    for label in LABELS:
        for name in (f"say_{label}", f"ask_{label}", f"judge_{label}"):
            sinks.add(name, label)
            made.append(_tool(sinks, name, label))
    sinks.add("say_unsaid", "internal")  # the default
    made.append(_tool(sinks, "say_unsaid", None))
    return made


def _tool(sinks: Sinks, name: str, label: Label | None) -> Tool[..., Any]:
    more: dict[str, Any] = {} if label is None else {"label": label}

    if name.startswith("judge"):

        @tool(effect="pure", name=name, **more)
        def judge(value: str, text: str = "") -> bool:
            sinks.keep(name, [value, text])
            return True

        return judge
    if name.startswith("ask"):

        @tool(effect="idempotent", name=name, **more)
        async def ask(text: str) -> str:
            sinks.keep(name, text)
            return f"{name} of {text}"

        return ask

    @tool(effect="pure", name=name, **more)
    def say(text: str) -> str:
        sinks.keep(name, text)
        return f"{name} of {text}"

    return say


def callable_tools() -> list[str]:
    """Returns the tools that take a text, by their names in workflows; the one without a label is `internal`."""
    return (
        [f"{kind}_{label}" for kind in ("say", "ask") for label in LABELS]
        + ["say_unsaid"]
        + [f"m{label}.send" for label in LABELS]
    )


def furnish(project: Path, urls: Mapping[Label, str]) -> None:
    """Writes the project: agents of each label on each server, MCP servers with pins, and workflows of each label for
    each tool.
    """
    servers = "\n".join(
        f'  s_{label}: {{endpoint: "{url}/v1", model: m_{label}, dialect: vllm, label: {label}}}'
        for label, url in urls.items()
    )
    models = ", ".join(f"m_{label}: s_{label}" for label in urls)
    (project / "here.yaml").write_text(FLEET.format(servers=servers, models=models))
    mcp = "".join(
        f'[mcp.m{label}]\ncommand = ["false"]\nlabel = "{label}"\ntools = {{send = "idempotent"}}\n' for label in LABELS
    )
    (project / "orchestra.toml").write_text(mcp)
    for label in LABELS:
        pins.write(project, f"m{label}", {"send": ToolPin.from_tool("send", "Sends.", TEXT, None)})
    cards = {
        f"a_{card}_{server}": f"name: a_{card}_{server}\nmodel: m_{server}\nlabel: {card}\n" + TAKES
        for card in LABELS
        for server in LABELS
    }
    tools = ", ".join(callable_tools())
    for name, card in {**cards, "planner": ROUTER, "helper": HELPER.replace("TOOLS", tools)}.items():
        (project / "agents" / name).mkdir(parents=True)
        (project / "agents" / name / "agent.yaml").write_text("schema: orchestra/v1\n" + card)
        said = (
            f"{name}: {{{{ text }}}}" if name != "planner" else "{{ skills }}\n{{ request }}\nWrite a plan.\n{{ plan }}"
        )
        (project / "agents" / name / "prompt.md").write_text(f"<!-- user -->\n{said}\n")
    (project / "workflows").mkdir()
    for stated in (None, *LABELS):
        for number, name in enumerate(callable_tools()):
            head = f"schema: orchestra/v1\nname: w_{stated or 'none'}_{number}\n" + (
                f"label: {stated}\n" if stated else ""
            )
            node = f"nodes:\n  s: {{tool: {name}, with: {{text: '${{input.text}}'}}, fallback: ''}}\n"
            (project / "workflows" / f"w_{stated or 'none'}_{number}.yaml").write_text(
                f"{head}input: {{text: str}}\noutput: ${{s}}\n{node}"
            )


def obedient(sinks: Sinks, server: str) -> Callable[[SimulatedRequest], Any]:
    """Returns a model server that records each prompt and follows the text in it: it plans to send the text with the
    named tool.
    """

    def answer(request: SimulatedRequest) -> Any:
        sinks.keep(server, request.prompt)
        if asked := AGENT.match(request.prompt):
            sinks.keep(asked[1], request.prompt)
        wanted = SEND.search(request.prompt)
        if wanted is not None and ("tools" in request.body or "Write a plan." in request.prompt):
            return "return s1" if f"s1 = {wanted[1]}" in request.prompt else f"s1 = {wanted[1]}(text=input.text)"
        return (
            {"answer": "said"}
            if "answer" in json.dumps(request.body.get("structured_outputs", ""))
            else f"echo {request.prompt}"
        )

    return answer


@asynccontextmanager
async def opened(sinks: Sinks) -> AsyncIterator[Orchestra]:
    """Opens the project of all graphs."""
    async with AsyncExitStack() as stack:
        project = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls: dict[Label, str] = {}
        for label in LABELS:
            sinks.add(f"s_{label}", label)
            for card in LABELS:
                sinks.add(name := f"a_{card}_{label}", cleared_for(name))
            server = await stack.enter_async_context(
                SimulatedServer(f"m_{label}", answer=obedient(sinks, f"s_{label}"))
            )
            urls[label] = server.url
        furnish(project, urls)
        settings = Settings.load(
            {"fleet": str(project / "here.yaml"), "journal": "off", "log": "off"}, start=project, environ={}
        )
        orchestra = await stack.enter_async_context(Orchestra.open(settings, fleet="none", journal=MemoryJournal()))
        for one in declared(sinks):
            orchestra.program(_alone(one))
        toolbox = orchestra._project.toolbox
        assert toolbox is not None
        for label in LABELS:
            sinks.add(f"m{label}.send", label)
            mcp = toolbox.clients[f"m{label}"]
            mcp.call = _replaced(sinks, f"m{label}.send")  # type: ignore[method-assign]
        yield orchestra


def _alone(one: Tool[..., Any]) -> Workflow[..., Any]:
    """Returns a workflow that registers a tool in the project, with a label that any tool is cleared for."""
    inputs = {"value": "a"} if one.name.startswith("judge") else {"text": "a"}
    graph = {
        "schema": "orchestra/v1",
        "name": "known",
        "label": "public",
        "output": "${n}",
        "nodes": {"n": {"tool": one.name, "with": inputs}},
    }
    made = Workflow.from_graph(read(yaml.safe_dump(graph, sort_keys=False), "known.yaml").graph)
    graph_, steps, models, lines = made._trace
    made.__dict__["_trace"] = (graph_, (*steps, one), models, lines)
    return made


def _replaced(sinks: Sinks, name: str) -> Callable[..., Any]:
    async def call(tool: str, arguments: Mapping[str, Any]) -> CallToolResult:
        sinks.keep(name, dict(arguments))
        return CallToolResult(content=[TextContent(type="text", text=f"{name} of {arguments['text']}")])

    return call


# The graphs


@dataclass
class Drawn:
    """A workflow and its options."""

    text: str
    label: Label
    """The label of its runs."""
    options: Label | None
    must: set[str]
    """Sinks that must receive its data, because they are cleared for it."""
    refused: bool
    """Whether the workflow itself calls a tool that is not cleared for its declared label: it does not compile."""


@dataclass
class Drawing:
    """One graph under construction."""

    random: Random
    own: Label | None
    """The declared label of the workflow."""
    called: list[Label | None] = field(default_factory=list)
    direct: list[str] = field(default_factory=list)
    """Tools that nodes call directly."""
    may: list[list[str]] = field(default_factory=list)
    """For each node whose inputs are those of the run: the sinks that receive them if all are cleared."""
    kinds: Counter[str] = field(default_factory=Counter)

    def ref(self, names: list[str]) -> tuple[str, bool]:
        """Returns the reference that a node reads, and whether it is an input of the run."""
        if names and self.random.random() < 0.4:
            return f"${{{self.random.choice(names)}}}", False
        return "${input.text}", True

    def node(self, names: list[str]) -> dict[str, Any]:
        """Adds one node that always has a value."""
        text, own = self.ref(names)
        kind = self.random.choice(
            ["tool", "tool", "agent", "check", "verify", "call", "block", "each", "plan", "tool_use"]
        )
        self.kinds[kind] += 1
        made: dict[str, Any] = getattr(self, f"_{kind}")(text, own)
        return {**made, "fallback": "${''}"}

    def pick(self) -> str:
        """Returns a tool that a node calls directly; mostly one that the workflow may call, as far as this is known at
        compile time.
        """
        label = self.random.choices(LABELS, WEIGHTS)[0]
        return self.random.choice([name for name in callable_tools() if cleared_for(name) == label])

    def _reach(self, own: bool, *sinks: str) -> None:
        if own:
            self.may.append(list(sinks))

    def _tool(self, text: str, own: bool) -> dict[str, Any]:
        name = self.pick()
        self.direct.append(name)
        self._reach(own, name)
        return {"tool": name, "with": {"text": text}}

    def _agent(self, text: str, own: bool) -> dict[str, Any]:
        name = f"a_{self.random.choice(LABELS)}_{self.random.choice(LABELS)}"
        self._reach(own, name)
        return {"agent": name, "with": {"text": text}}

    def _check(self, text: str, own: bool) -> dict[str, Any]:
        judge = f"judge_{self.random.choices(LABELS, WEIGHTS)[0]}"
        self.direct.append(judge)
        self._reach(own, "a_restricted_restricted", judge)
        return {
            "agent": "a_restricted_restricted", "with": {"text": text}, "checks": [f"tool({judge})"], "otherwise": ["abstain"],  # noqa: E501
        }  # fmt: skip

    def _verify(self, text: str, own: bool) -> dict[str, Any]:
        judge = f"judge_{self.random.choices(LABELS, WEIGHTS)[0]}"
        self.direct.append(judge)
        self._reach(own, judge)
        return {"verify": text, "checks": [f"tool({judge})"], "against": text}

    def _call(self, text: str, own: bool) -> dict[str, Any]:
        number, label = callable_tools().index(self.pick()), self.random.choice([None] * 9 + [*LABELS])
        self.called.append(label)
        self.direct.append(callable_tools()[number])
        self._reach(own, callable_tools()[number])
        return {"call": f"w_{label or 'none'}_{number}", "with": {"text": text}}

    def _block(self, text: str, own: bool) -> dict[str, Any]:
        inner = self._tool(text, own)
        return {"call": {"output": "${inner}", "nodes": {"inner": {**inner, "fallback": "${''}"}}}}

    def _each(self, text: str, own: bool) -> dict[str, Any]:
        made = self._tool("${one}", own)
        return {
            "call": {
                "output": "${all.values[0]}",
                "nodes": {"all": {**made, "each": f"${{[{text[2:-1]}, 'b']}}", "as": "one", "fallback": "${''}"}},
            }
        }

    def _plan(self, text: str, own: bool) -> dict[str, Any]:
        tools = self.random.sample(callable_tools(), 3)
        chosen = self.random.choice(callable_tools() if self.random.random() < 0.2 else tools)
        goal = f"Send with {chosen}."
        offered = [name for name in tools if "." not in name]  # plan lines cannot name a tool of a server
        if chosen in offered:
            self._reach(own, chosen)
        made = {"plan": goal, "with": {"text": text}, "router": "planner", "tools": offered or ["say_internal"]}
        return {**made, "returns": "str", "repairs": 0}

    def _tool_use(self, text: str, own: bool) -> dict[str, Any]:
        chosen = self.random.choice(callable_tools())
        self._reach(own, "s_restricted", chosen)
        return {
            "call": {
                "output": "${helped.answer}",
                "nodes": {"helped": {"agent": "helper", "with": {"text": f"Send with {chosen}. {text}"}}},
            }
        }


def draw(seed: int) -> Drawn:
    """Returns a graph of one to five nodes."""
    random = Random(seed)
    own: Label | None = random.choice([None] * 7 + ["public", *LABELS])
    drawing = Drawing(random, own)
    nodes: dict[str, Any] = {}
    for number in range(random.randint(1, 5)):
        nodes[f"n{number}"] = drawing.node(list(nodes))
    graph = {
        "schema": "orchestra/v1",
        "name": "drawn",
        "input": {"text": "str"},
        "output": {name: f"${{{name}}}" for name in nodes},
        "nodes": nodes,
    }
    if own:
        graph["label"] = own
    stated = strictest(own or "internal", own, *drawing.called)
    options = random.choice([None, *LABELS])
    label = strictest(stated, options)
    must = {sink for sinks in drawing.may for sink in sinks if all(within(label, cleared_for(one)) for one in sinks)}
    return Drawn(
        yaml.safe_dump(graph, sort_keys=False),
        label,
        options,
        must,
        any(not within(stated, cleared_for(one)) for one in drawing.direct),
    )


def cleared_for(sink: str) -> Label:
    """Returns the clearance in a sink's name; for a card and a server, the less strict of the two labels."""
    return next((label for label in LABELS if label in sink), "internal")


# The runs


@dataclass
class Report:
    """The results of many graphs."""

    graphs: int = 0
    refused: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    """Number of runs by label."""
    given: int = 0
    """Number of sinks that received a canary, over all runs."""
    withheld: int = 0
    """Number of sinks that received none, because they are not cleared."""
    leaks: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    """Cleared sinks that received nothing, and graphs that were refused or accepted by mistake."""


async def explore(graphs: int, first: int = 0) -> Report:
    """Runs graphs, each by its seed."""
    report, sinks = Report(), Sinks()
    async with opened(sinks) as orchestra:
        for seed in range(first, first + graphs):
            await _one(orchestra, sinks, seed, report)
    return report


async def _one(orchestra: Orchestra, sinks: Sinks, seed: int, report: Report) -> None:
    drawn, canary = draw(seed), f"canary-{seed}-end"
    report.graphs += 1
    sinks.forget()
    workflow = Workflow.from_graph(read(drawn.text, f"drawn{seed}.yaml").graph)
    try:
        await orchestra.options(label=drawn.options).run(workflow, text=canary)
    except InputError as error:
        codes = {one.code for one in (error.errors if isinstance(error, InputErrors) else (error,))}
        if codes != {"T020"}:
            raise AssertionError(f"seed {seed}: {error}\n{drawn.text}") from error
        report.refused += 1
        if not drawn.refused:
            report.missed.append(f"seed {seed}: refused, and need not have been: {error}\n{drawn.text}")
    except OrchestraError as error:
        raise AssertionError(f"seed {seed}: {error}\n{drawn.text}") from error
    else:
        report.runs[drawn.label] += 1
        if drawn.refused:
            report.missed.append(f"seed {seed}: taken, and should not have been\n{drawn.text}")
        elif lacking := drawn.must - sinks.reached(canary):
            report.missed.append(
                f"seed {seed}: {sorted(lacking)} are cleared for {drawn.label} data and got none\n{drawn.text}"
            )
    reached = sinks.reached(canary)
    wrong = sorted(name for name in reached if not within(drawn.label, sinks.cleared[name]))
    report.leaks += [f"seed {seed}: {drawn.label} data reached {', '.join(wrong)}\n{drawn.text}"] if wrong else []
    report.given += len(reached)
    report.withheld += sum(not within(drawn.label, label) for label in sinks.cleared.values())


def main() -> None:
    """Runs graphs and prints the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--graphs", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    began = time.monotonic()
    report = asyncio.run(explore(asked.graphs, asked.first))
    print(
        f"{report.graphs:,} graphs in {time.monotonic() - began:.0f} s: {report.refused:,} refused at compile time"
        " (T020)"
    )
    print(f"runs by label: {dict(report.runs)}")
    print(f"places given data: {report.given:,}; leaks: {len(report.leaks)}; missed: {len(report.missed)}")
    for line in (*report.leaks[:3], *report.missed[:3]):
        print(line)
    if report.leaks or report.missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
