"""The catalog of these tests: that of the engine's tests, and two workflows, one of them with an error."""

from __future__ import annotations

from dataclasses import replace

from orchestra.core.errors import InputError, InputErrors
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.model import Graph
from orchestra.workflows.program import Program
from orchestra.workflows.yaml.reader import read
from tests.engine import stage

HEAD = "schema: orchestra/v1\nname: w\n"
TWICE = (
    HEAD.replace("w\n", "twice\n")
    + "input: {text: str}\noutput: ${a}\nnodes:\n  a: {tool: shout, with: {text: '${input.text}'}}\n"
)
BROKEN = HEAD.replace("w\n", "broken\n") + "output: ${b}\nnodes:\n  b: {tool: shoutt, with: {text: x}}\n"
CATALOG = replace(
    stage.CATALOG, workflows={"twice": read(TWICE, "twice.yaml").graph, "broken": read(BROKEN, "broken.yaml").graph}
)


def whole(text: str) -> str:
    """A workflow's text with the two lines that most of them begin with."""
    return text if text.startswith("schema:") else HEAD + text


def compiled(text: str) -> Program:
    """The program of a workflow's text. Raises `InputError`."""
    source = read(whole(text), "w.yaml")
    return compile_graph(source.graph, CATALOG, source.places)


def faults(text: str) -> tuple[InputError, ...]:
    """All that is wrong with a workflow."""
    try:
        compiled(text)
    except InputErrors as several:
        return several.errors
    except InputError as error:
        return (error,)
    return ()


def called_in_a_row(count: int, width: int = 1) -> dict[str, Graph]:
    """Workflows `w0`, `w1`, ..., each of which calls the next so many times."""
    found: dict[str, Graph] = {}
    for number in range(count):
        calls = (
            "".join(f"  a{at}: {{call: w{number + 1}}}\n" for at in range(width))
            if number < count - 1
            else "  a0: {tool: shout, with: {text: x}}\n"
        )
        output = (
            "{" + ", ".join(f"o{at}: '${{a{at}}}'" for at in range(width if number < count - 1 else 1)) + "}"
            if width > 2
            else "${a0}"
        )
        found[f"w{number}"] = read(
            f"schema: orchestra/v1\nname: w{number}\noutput: {output}\nnodes:\n{calls}", f"w{number}"
        ).graph
    return found
