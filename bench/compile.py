"""Milliseconds to read and to compile a workflow of many nodes: one line, medians.

    python bench/compile.py [--nodes 1000] [--rounds 9]

The workflow has calls with texts of two references, checks, conditions and choices. Reading is from YAML text to the frozen graph with
places; compiling from there to the program.
"""

from __future__ import annotations

import argparse
import statistics
import time

from orchestra.agent.contract import Catalog, Contract, Schema
from orchestra.workflow.compiler import compile_graph
from orchestra.workflow.reader import read

TEXT: Schema = {"type": "string"}
KINDS = (
    '{{tool: shout, with: {{text: "${{{before}}} and ${{input.text}}"}}}}',
    '{{tool: shout, with: {{text: "${{{before}}}"}}, retry: 2, timeout: 30}}',
    '{{tool: shout, with: {{text: "${{{before} + \'!\'}}"}}, checks: [numbers], against: "${{input.text}}"}}',
    '{{tool: shout, when: "${{size({before}) > 3}}", with: {{text: "${{{before}}}"}}}}',
    '{{first_of: ["${{{before}}}", nothing]}}',
)


def workflow(nodes: int) -> str:
    """A chain of nodes in which the kinds take turns."""
    lines = ["schema: orchestra/v1", "name: long", "input: {text: str}", f"output: ${{n{nodes - 1}}}", "nodes:"]
    lines += [f"  n{at}: {KINDS[at % len(KINDS)].format(before=f'n{at - 1}' if at else 'input.text')}" for at in range(nodes)]
    return "\n".join(lines)


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--nodes", type=int, default=1000)
    options.add_argument("--rounds", type=int, default=9)
    given = options.parse_args()
    record = {"type": "object", "properties": {"text": TEXT}, "required": ["text"], "additionalProperties": False}
    catalog = Catalog(tools={"shout": Contract("shout", "tool", record, TEXT)})
    text = workflow(given.nodes)
    reading, compiling = [], []
    for _ in range(given.rounds):
        start = time.perf_counter()
        source = read(text, "long.yaml")
        middle = time.perf_counter()
        compile_graph(source.graph, catalog, source.places)
        end = time.perf_counter()
        reading.append((middle - start) * 1000)
        compiling.append((end - middle) * 1000)
    print(f"{given.nodes:,} nodes: read {statistics.median(reading):.1f} ms, compile {statistics.median(compiling):.1f} ms")


if __name__ == "__main__":
    main()
