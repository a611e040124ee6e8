"""Drawings as SVG: complete, well-formed, escaped, without overlaps, and bounded for large programs."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.model import Graph
from orchestra.workflows.program import Program
from orchestra.workflows.svg_drawing import MAX_BODY_NODES, MAX_NODES, draw_svg
from orchestra.workflows.yaml.reader import read
from tests.workflows.catalog import CATALOG, called_in_a_row
from tests.workflows.graphs import graphs, program_of

SVG = "{http://www.w3.org/2000/svg}"
REFINE = """\
schema: orchestra/v1
name: refine
input: {text: str}
output: ${answer}
nodes:
  parts: {tool: split, with: {text: "${input.text}"}}
  notes: {agent: reader, with: {text: "${part}", all: "${input.text}"}, each: "${parts}", as: part}
  better:
    loop:
      at_most: 4
      until: ${judged}
      nodes:
        draft: {agent: writer, with: {notes: "${notes.values}"}}
        judged: {tool: judge, with: {text: "${draft}"}}
      output: ${draft}
  answer: {first_of: ["${better}", "nothing"]}
"""


def compiled(text: str) -> Program:
    return program_of(read(text, "x").graph)


def chain(count: int) -> Program:
    """A program whose node N needs all earlier nodes."""
    needs = [", ".join(f'a{need}: "${{n{need}}}"' for need in range(at)) for at in range(count)]
    nodes = [f"  n{at}: {{agent: writer, with: {{{given}}}}}" for at, given in enumerate(needs)]
    head = ["schema: orchestra/v1", "name: long", "input: {text: str}", f"output: ${{n{count - 1}}}", "nodes:"]
    return compiled("\n".join([*head, *nodes]))


def texts(drawing: str) -> list[str]:
    return ["".join(one.itertext()) for one in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def boxes(drawing: str) -> list[tuple[float, float, float, float]]:
    """The rectangles of nodes: left, top, right, bottom."""
    return [
        (x, y, x + float(rect.attrib["width"]), y + float(rect.attrib["height"]))
        for rect in ElementTree.fromstring(drawing).iter(f"{SVG}rect")
        if "stroke" in rect.attrib
        for x, y in [(float(rect.attrib["x"]), float(rect.attrib["y"]))]
    ]


def test_draw_svg_names_every_node_and_both_ends() -> None:
    found = texts(draw_svg(compiled(REFINE)))
    assert {"input", "parts", "notes", "better", "draft", "judged", "answer", "output"} <= set(found)
    assert "agent reader" in found
    assert found.count("reads the input, too") == 1  # notes needs parts and reads the input


def test_draw_svg_draws_body_inside_its_node() -> None:
    drawing = draw_svg(compiled(REFINE))
    areas = sorted(boxes(drawing), key=lambda box: (box[0] - box[2]) * (box[3] - box[1]))
    left, top, right, bottom = areas[0]
    inside = [box for box in areas[1:] if left <= box[0] and box[2] <= right and top <= box[1] and box[3] <= bottom]
    assert len(inside) == 3  # draft, judged, and the output of the body


def test_draw_svg_dashes_needs_that_may_have_no_value() -> None:
    assert draw_svg(compiled(REFINE)).count("stroke-dasharray") == 1  # better -> answer


def test_draw_svg_boxes_of_a_layer_do_not_overlap() -> None:
    nodes = "\n".join(f'  node_{at}: {{agent: writer, with: {{a: "${{input.text}}"}}}}' for at in range(12))
    head = "schema: orchestra/v1\nname: wide\ninput: {text: str}\noutput: ${node_0}\nnodes:\n"
    found = boxes(draw_svg(compiled(head + nodes)))
    assert len(found) == 14
    for at, one in enumerate(found):
        for other in found[at + 1 :]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "'\"><svg/onload=alert(1)>", "\u202egnp\x1b[31m", "&lt;"]
)
def test_draw_svg_escapes_names(name: str) -> None:
    plain = compiled(REFINE)
    nodes = (msgspec.structs.replace(plain.nodes[0], name=name), *plain.nodes[1:])
    program = dataclasses.replace(plain, name=name, nodes=nodes)
    drawing = draw_svg(program)
    tags = [one.tag for one in ElementTree.fromstring(drawing).iter()]
    assert set(tags) == {f"{SVG}{tag}" for tag in ("svg", "rect", "path", "text")}
    assert not {"\u202e", "\x1b"} & set(drawing)
    assert not re.search(r"<script|<svg/", drawing)


def test_draw_svg_of_large_program_is_cut_with_a_count() -> None:
    drawing = draw_svg(chain(MAX_NODES + 50))
    assert "… and 50 nodes" in texts(drawing)
    assert len(boxes(drawing)) == MAX_NODES + 3  # the input, the rest and the output


def test_draw_svg_of_doubling_calls_is_bounded() -> None:
    workflows = called_in_a_row(30, width=2)  # half a thousand million nodes
    drawing = draw_svg(compile_graph(workflows["w0"], dataclasses.replace(CATALOG, workflows=workflows)))
    assert MAX_BODY_NODES / 4 < len(boxes(drawing)) < 3 * MAX_BODY_NODES


def test_draw_svg_contains_no_id_or_style() -> None:
    drawing = draw_svg(compiled(REFINE))
    assert not re.search(r"\bid=|<style|\bclass=|href", drawing)  # several drawings on a page would share them


@pytest.mark.slow
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(graphs(depth=1))
def test_draw_svg_is_well_formed_for_any_graph(graph: Graph) -> None:
    program = program_of(graph)
    drawing = draw_svg(program)
    root = ElementTree.fromstring(drawing)
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    for box in boxes(drawing):
        assert left - 1 <= box[0]
        assert top - 1 <= box[1]
        assert box[2] <= left + width + 1
        assert box[3] <= top + height + 1
