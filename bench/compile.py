"""Milliseconds to read, trace and compile a workflow of many nodes: medians, one line for each shape.

    python bench/compile.py [--nodes 1000] [--rounds 9] [--shapes chain,fan,...]

`yaml` is from the text of a file to the frozen graph with locations, `python` from a workflow function to the frozen
graph, `compile` from a graph to the program (with locations, as for a file). Every round has new names, so text caches
have no effect. The shapes are those of the engine benchmark: a chain; a fan from one node to all and on to one; a
layered graph of 20 nodes a layer, each reading 3 of the previous layer. `tools` pass values by `with:`, `agents` read
fields of records, `after` only waits, `unnamed` calls get their names from the variable. `mixed` is a chain of calls,
checks, conditions, texts and choices.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from orchestra.agents.contract import Catalog, Contract, Schema
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.python.steps import Agent, Tool, Workflow, workflow
from orchestra.workflows.yaml.reader import read

T = TypeVar("T")
TEXT: Schema = {"type": "string"}
WIDTH = 20
"""Nodes of a layer."""


def record(name: str, **fields: Schema) -> Schema:
    """Returns the schema of an object with these required fields."""
    return {
        "title": name,
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


READING = {
    "$defs": {"Citation": record("Citation", page={"type": "integer"}, quote=TEXT)},
    **record("Reading", answer=TEXT, citations={"type": "array", "items": {"$ref": "#/$defs/Citation"}}),
}
TOOLS = {
    "noop": Contract("noop", "tool", record("Nothing"), TEXT),
    "shout": Contract("shout", "tool", record("One", text=TEXT), TEXT),
    "join": Contract("join", "tool", record("Three", a=TEXT, b=TEXT, c=TEXT), TEXT),
    "gather": Contract("gather", "tool", record("Many", items={"type": "array", "items": TEXT}), TEXT),
}
AGENTS = {"reader": Contract("reader", "agent", record("Question", question=TEXT, context=TEXT), READING)}
CATALOG = Catalog(tools=TOOLS, agents=AGENTS)


def layered(nodes: int) -> list[list[int]]:
    """Returns the parents of each node."""
    rng = random.Random(7)
    first = [(at // WIDTH - 1) * WIDTH for at in range(nodes)]
    return [rng.sample(range(start, start + WIDTH), 3) if start >= 0 else [] for start in first]


def ref(name: str) -> str:
    """Returns a text that is one reference."""
    return f'"${{{name}}}"'


def calling(kind: str, **given: str) -> str:
    """Returns a node with a call, in YAML flow style; values are references or lists of references."""
    return f"{{{kind}, with: {{{', '.join(f'{name}: {value}' for name, value in given.items())}}}}}"


def waiting(*names: str) -> str:
    """Returns a node that waits for others and reads nothing."""
    return f"{{tool: noop, after: [{', '.join(names)}]}}"


def chain_tools(nodes: int, p: str) -> Iterator[str]:
    yield from (calling("tool: shout", text=ref(f"{p}{at - 1}" if at else "input.text")) for at in range(nodes))


def chain_agents(nodes: int, p: str) -> Iterator[str]:
    for at in range(nodes):
        yield calling(
            "agent: reader", question=ref("input.text"), context=ref(f"{p}{at - 1}.answer" if at else "input.text")
        )


def chain_after(nodes: int, p: str) -> Iterator[str]:
    yield from (waiting(f"{p}{at - 1}") if at else waiting() for at in range(nodes))


def fan_tools(nodes: int, p: str) -> Iterator[str]:
    yield calling("tool: shout", text=ref("input.text"))
    yield from (calling("tool: shout", text=ref(f"{p}0")) for _ in range(1, nodes - 1))
    yield calling("tool: gather", items=f"[{', '.join(ref(f'{p}{at}') for at in range(1, nodes - 1))}]")


def fan_after(nodes: int, p: str) -> Iterator[str]:
    yield waiting()
    yield from (waiting(f"{p}0") for _ in range(1, nodes - 1))
    yield waiting(*(f"{p}{at}" for at in range(1, nodes - 1)))


def layered_tools(nodes: int, p: str) -> Iterator[str]:
    for parents in layered(nodes):
        a, b, c = (ref(f"{p}{parent}") for parent in parents) if parents else [ref("input.text")] * 3
        yield calling("tool: join", a=a, b=b, c=c)


def layered_after(nodes: int, p: str) -> Iterator[str]:
    yield from (waiting(*(f"{p}{parent}" for parent in parents)) for parents in layered(nodes))


KINDS = (
    '{{tool: shout, with: {{text: "${{{before}}} and ${{input.text}}"}}}}',
    '{{tool: shout, with: {{text: "${{{before}}}"}}, retry: 2, timeout: 30}}',
    '{{tool: shout, with: {{text: "${{{before} + \'!\'}}"}}, checks: [numbers], against: "${{input.text}}"}}',
    '{{tool: shout, when: "${{size({before}) > 3}}", with: {{text: "${{{before}}}"}}}}',
    '{{first_of: ["${{{before}}}", nothing]}}',
)


def mixed(nodes: int, p: str) -> Iterator[str]:
    for at in range(nodes):
        yield KINDS[at % len(KINDS)].format(before=f"{p}{at - 1}" if at else "input.text")


SHAPES: dict[str, Callable[[int, str], Iterator[str]]] = {
    "chain, tools": chain_tools,
    "chain, agents": chain_agents,
    "chain, unnamed": chain_tools,
    "chain, after": chain_after,
    "fan, tools": fan_tools,
    "fan, after": fan_after,
    "layered, tools": layered_tools,
    "layered, after": layered_after,
    "mixed": mixed,
}


def text(shape: str, nodes: int, p: str) -> str:
    """Returns a workflow file."""
    last = f"{p}{nodes - 1}"
    head = ["schema: orchestra/v1", "name: long", "input: {text: str}", f"output: ${{{last}}}", "nodes:"]
    return "\n".join([*head, *(f"  {p}{at}: {node}" for at, node in enumerate(SHAPES[shape](nodes, p)))]) + "\n"


def described(shape: str, nodes: int, p: str) -> Workflow[..., Any] | None:
    """Returns the equivalent Python function; None for shapes without one."""
    tools = {name: Tool.from_contract(contract, print) for name, contract in TOOLS.items()}
    reader = Agent.from_contract(AGENTS["reader"])
    shout, join, gather = (tools[name] for name in ("shout", "join", "gather"))

    def chain_of_tools(text: str) -> str:
        value: Any = text
        for at in range(nodes):
            value = shout.options(name=f"{p}{at}")(text=value)
        return cast(str, value)

    def chain_unnamed(text: str) -> str:
        value: Any = text
        for _ in range(nodes):
            value = shout(text=value)
        return cast(str, value)

    def chain_of_agents(text: str) -> str:
        value: Any = text
        for at in range(nodes):
            value = reader.options(name=f"{p}{at}")(question=text, context=value).answer
        return cast(str, value)

    def fan(text: str) -> str:
        first = shout.options(name=f"{p}0")(text=text)
        return cast(str, gather(items=[shout.options(name=f"{p}{at}")(text=first) for at in range(1, nodes - 1)]))

    def layers(text: str) -> str:
        values: list[Any] = []
        for at, above in enumerate(parents):
            a, b, c = [values[parent] for parent in above] or [text] * 3
            values.append(join.options(name=f"{p}{at}")(a=a, b=b, c=c))
        return cast(str, values[-1])

    parents = layered(nodes)
    functions = {
        "chain, tools": chain_of_tools,
        "chain, unnamed": chain_unnamed,
        "chain, agents": chain_of_agents,
        "fan, tools": fan,
        "layered, tools": layers,
    }
    return workflow()(functions[shape]) if shape in functions else None


def measured(work: Callable[[], T]) -> tuple[float, T]:
    """Returns the milliseconds of some work and its result."""
    gc.collect()
    start = time.perf_counter()
    found = work()
    return (time.perf_counter() - start) * 1000, found


def round_of(shape: str, nodes: int, p: str) -> tuple[float, float | None, float]:
    """Returns the milliseconds of one round: YAML, Python if there is a function, compiling."""
    written = text(shape, nodes, p)
    reading, source = measured(lambda: read(written, "long.yaml"))
    compiling, _ = measured(lambda: compile_graph(source.graph, CATALOG, source.places))
    if (function := described(shape, nodes, p)) is None:
        return reading, None, compiling
    tracing, _ = measured(lambda: function.graph)
    return reading, tracing, compiling


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--nodes", type=int, default=1000)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--shapes", default="", help="names or prefixes of shapes, separated by commas")
    given = options.parse_args()
    print(f"{given.nodes:,} nodes, ms{'':16} yaml  python  compile")
    for shape in SHAPES:
        if shape.startswith(tuple(given.shapes.split(","))):
            rounds = [round_of(shape, given.nodes, f"r{number}_") for number in range(given.rounds)]
            columns = [[took for took in column if took is not None] for column in zip(*rounds, strict=True)]
            yaml, python, compiling = (
                f"{statistics.median(column):8.1f}" if column else f"{'-':>8}" for column in columns
            )
            print(f"{shape:24}{yaml}{python} {compiling}")


if __name__ == "__main__":
    main()
