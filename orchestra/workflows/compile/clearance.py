"""Clearance of tools: the tools of a program that must not be given the data of its runs (T020).

A run has at least the label of its program. So what is found here would be refused at every run (F202). Data with a stricter label than
the program states, from `options(label=...)` or a run around it, is refused when the tool is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from orchestra.agents.contract import Contract
from orchestra.core.labels import Label, is_allowed
from orchestra.workflows.compile.diagnostics import Findings, TooManyErrors
from orchestra.workflows.program import CompiledNode, Program
from orchestra.workflows.yaml.reader import SourcePlaces


def check_clearance(program: Program, places: SourcePlaces | None = None) -> None:
    """Raises `InputError` T020, or `InputErrors` with all of them, for nodes that give data to a tool that is not cleared for it.

    Tools that a plan or a model may choose are left out: those that are not cleared are not offered.
    """
    findings = Findings(program.name, places)
    with suppress(TooManyErrors):
        for node in program.nodes:
            for tool in called_tools(node):
                if not is_allowed(program.label, tool.label):
                    said = f"the tool {tool.name!r} is cleared for {tool.label!r} data, and {program.name} has {program.label!r} data"
                    findings.error("T020", said, findings.place_of("nodes", node.name), hint=_hint(tool.name, program.label))
    findings.raise_errors()


def _hint(tool: str, label: Label) -> str:
    server, dot, _ = tool.partition(".")  # only tools of MCP servers have such names
    where = f'label = "{label}" under [mcp.{server}]' if dot else f'label="{label}" in the @tool of {tool}'
    return f"{where}, if such data may go there; else another tool"


def called_tools(node: CompiledNode) -> Iterator[Contract]:
    """The tools that a node calls, itself, for its checks, or in its body."""
    if node.contract is not None and node.contract.kind == "tool":
        yield node.contract
    if node.acceptance is not None:
        yield from (judge for judge in node.acceptance.judges.values() if judge.kind == "tool")
    if node.body is not None:
        for inner in node.body.nodes:
            yield from called_tools(inner)
