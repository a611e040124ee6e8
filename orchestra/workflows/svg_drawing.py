"""Drawings of programs as SVG: nodes in layers from the inputs to the output, bodies inside of their nodes.

The drawing has the colour of the surrounding text, so that it fits light and dark pages. It contains no script, no
style sheet and no id, and every text is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from orchestra.core.errors import display_width
from orchestra.core.untrusted_text import pluralize
from orchestra.schema.json_schema import format_type
from orchestra.workflows.analysis import layers, max_shown_depth
from orchestra.workflows.drawing import describe_node, expression_references, output_nodes, sanitize, wrap_text
from orchestra.workflows.program import CompiledNode, Program

MAX_NODES = 100
"""Nodes of a program that are drawn; of a larger one only the first layers."""
MAX_BODY_NODES = 200
"""Nodes that are drawn with bodies. Bodies are drawn down to the level at which they have no more in total."""
MAX_ROUTED = 400
"""Layers that all edges together may cross to be led around nodes. Beyond, edges are straight."""
_MAX_LINES = 7
"""Lines of text in a box."""
_COLUMNS = 34
"""Columns of text in a box."""
_CHAR, _LINE, _SIZE = 7.3, 16.0, 12
"""Width and height of a character cell, and the font size, in pixels."""
_PAD, _GAP_X, _GAP_Y, _LANE = 10.0, 26.0, 40.0, 14.0
"""Padding of a box, gaps between boxes and layers, and the width of the lane of an edge that crosses a layer."""
_SWEEPS = 6
_COLOURS = {
    "agent": "#4c8dd9",
    "tool": "#8a8f98",
    "verify": "#3fa66b",
    "first_of": "#3fa66b",
    "ask": "#d08a2c",
    "plan": "#9a6bd6",
    "loop": "#9a6bd6",
    "call": "#9a6bd6",
}
"""The colours of the stripes by kind of node; the text names the kind, too."""


@dataclass(slots=True)
class _Box:
    """A node, an input, an output, or the lane of an edge in a layer that it crosses."""

    width: float
    height: float
    lines: list[str] = field(default_factory=list)
    colour: str = ""
    round: bool = False
    inner: _Layout | None = None
    x: float = 0.0
    """The centre."""
    y: float = 0.0
    """The upper edge."""

    @property
    def is_lane(self) -> bool:
        """Whether an edge passes here."""
        return not self.lines


@dataclass(slots=True)
class _Edge:
    """An edge through its boxes: source, lanes, target."""

    boxes: list[_Box]
    dashed: bool = False


@dataclass(slots=True)
class _Layout:
    """A placed program."""

    rows: list[list[_Box]]
    edges: list[_Edge]
    width: float = 0.0
    height: float = 0.0


def draw_svg(program: Program) -> str:
    """Returns a program as an SVG element: dashed edges from needs that may have no value, boxes in boxes for bodies.

    A node that needs other nodes, and reads an input too, says so in its text, without an edge.
    """
    layout = _layout(program, max_shown_depth(program, MAX_BODY_NODES))
    width, height = layout.width + 4, layout.height + 4
    label = escape(f"graph of {sanitize(program.name)}")
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-2 -2 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="{label}" fill="currentColor" '
        f'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="{_SIZE}">'
    )
    return "\n".join([head, *_draw_layout(layout, 0.0, 0.0), "</svg>"])


def _layout(program: Program, levels: int) -> _Layout:
    """Returns the boxes of a program in layers, with their places."""
    nodes, omitted_count = _first_layers(program)
    boxes: dict[str, _Box] = {}
    rows: list[list[_Box]] = []
    if program.inputs:
        kinds = (f"{name}: {format_type(input_field.schema)}" for name, input_field in program.inputs.items())
        boxes["input"] = _text_box("input", kinds, rounded=True)
        rows.append([boxes["input"]])
    for layer in nodes:
        rows.append([_node_box(program, node, levels) for node in layer])
        boxes |= {f"node {node.index}": box for node, box in zip(layer, rows[-1], strict=True)}
    if omitted_count:
        boxes["rest"] = _text_box(f"… and {pluralize(omitted_count, 'node')}", (), rounded=True)
        rows.append([boxes["rest"]])
    boxes["output"] = _text_box("output", [format_type(program.output_schema)], rounded=True)
    rows.append([boxes["output"]])
    edges = [_Edge([boxes[source], boxes[target]], is_dashed) for source, target, is_dashed in _edges(program, boxes)]
    layout = _Layout(rows, edges)
    _add_lanes(layout)
    _order(layout)
    _place(layout)
    return layout


def _first_layers(program: Program) -> tuple[list[list[CompiledNode]], int]:
    """Returns the layers that are drawn, and the number of nodes that are not."""
    nodes: list[list[CompiledNode]] = []
    room = MAX_NODES
    for layer in layers(program):
        if room <= 0:
            break
        nodes.append(layer[:room])
        room -= len(layer)
    return nodes, len(program.nodes) - sum(map(len, nodes))


def _edges(program: Program, boxes: Mapping[str, _Box]) -> Iterator[tuple[str, str, bool]]:
    """Returns the edges between drawn boxes: source, target, and whether it is dashed."""
    ends = set(output_nodes(program))
    for node in program.nodes:
        name = f"node {node.index}"
        if name not in boxes:
            continue
        if "input" in boxes and not node.needs and "input" in expression_references(node):
            yield "input", name, False
        yield from ((f"node {need}", name, need in node.soft_needs) for need in node.needs if f"node {need}" in boxes)
        if node.name in ends:
            yield name, "output", False
    if "input" in ends and "input" in boxes:
        yield "input", "output", False
    if "rest" in boxes:
        yield "rest", "output", False


def _node_box(program: Program, node: CompiledNode, levels: int) -> _Box:
    texts = describe_node(node)
    if program.inputs and node.needs and "input" in expression_references(node):
        texts.append("reads the input, too")
    box = _text_box(node.name, texts)
    box.colour = _COLOURS.get(node.kind, "#8a8f98")
    if node.body is not None and levels > 0:
        box.inner = _layout(node.body, levels - 1)
        box.width = max(box.width, box.inner.width + 2 * _PAD)
        box.height += box.inner.height + _PAD
    return box


def _text_box(name: str, texts: Iterable[str], *, rounded: bool = False) -> _Box:
    """Returns a box with a name and lines of text, of the size that they need."""
    wrapped_lines = [line for text in (name, *texts) for line in wrap_text(sanitize(text), _COLUMNS)]
    lines = wrapped_lines if len(wrapped_lines) <= _MAX_LINES else [*wrapped_lines[: _MAX_LINES - 1], "…"]
    width = max(display_width(line) for line in lines) * _CHAR + 2 * _PAD + 6
    return _Box(max(60.0, width), len(lines) * _LINE + 2 * _PAD - 4, lines, round=rounded)


def _add_lanes(layout: _Layout) -> None:
    """Gives each edge a lane in every layer that it crosses, so that it passes between the boxes."""
    row_of = {id(box): at for at, row in enumerate(layout.rows) for box in row}
    spans = [(edge, row_of[id(edge.boxes[0])], row_of[id(edge.boxes[1])]) for edge in layout.edges]
    if sum(end - start - 1 for _, start, end in spans) > MAX_ROUTED:
        return
    for edge, start, end in spans:
        lanes = [_Box(_LANE, 0.0) for _ in range(start + 1, end)]
        for row, lane in zip(layout.rows[start + 1 : end], lanes, strict=True):
            row.append(lane)
        edge.boxes[1:1] = lanes


def _neighbours(layout: _Layout) -> tuple[dict[int, list[_Box]], dict[int, list[_Box]]]:
    """Returns the boxes above and below each box, by its identity."""
    above: dict[int, list[_Box]] = {}
    below: dict[int, list[_Box]] = {}
    for edge in layout.edges:
        for upper, lower in zip(edge.boxes, edge.boxes[1:], strict=False):
            below.setdefault(id(upper), []).append(lower)
            above.setdefault(id(lower), []).append(upper)
    return above, below


def _order(layout: _Layout) -> None:
    """Orders the boxes of each layer by the mean position of their neighbours, which avoids crossings."""
    above, below = _neighbours(layout)
    position = {id(box): at / max(1, len(row) - 1) for row in layout.rows for at, box in enumerate(row)}
    for sweep in range(_SWEEPS):
        near, rows = (above, layout.rows) if sweep % 2 == 0 else (below, layout.rows[::-1])
        for row in rows:
            means = {
                id(box): _mean([position[id(neighbour)] for neighbour in near.get(id(box), ())], position[id(box)])
                for box in row
            }
            row.sort(key=lambda box: means[id(box)])
            for at, box in enumerate(row):
                position[id(box)] = (at + 0.5) / len(row)


def _place(layout: _Layout) -> None:
    """Sets the places of all boxes, and the size of the layout."""
    above, below = _neighbours(layout)
    for row in layout.rows:
        left_edge = -_row_width(row) / 2
        for box in row:
            box.x = left_edge + box.width / 2
            left_edge += box.width + _GAP_X
    for sweep in range(_SWEEPS):
        near, rows = (above, layout.rows) if sweep % 2 == 0 else (below, layout.rows[::-1])
        for row in rows:
            _spread(row, [_mean([neighbour.x for neighbour in near.get(id(box), ())], box.x) for box in row])
    left_edge = min(box.x - box.width / 2 for row in layout.rows for box in row)
    top = 0.0
    for row in layout.rows:
        height = max(box.height for box in row)
        for box in row:
            box.x -= left_edge
            if box.is_lane:
                box.height = height
            box.y = top + (height - box.height) / 2
        top += height + _GAP_Y
    layout.width = max(box.x + box.width / 2 for row in layout.rows for box in row)
    layout.height = top - _GAP_Y


def _spread(row: Sequence[_Box], means: Sequence[float]) -> None:
    """Moves the boxes of a layer towards the wanted centres, in their order and without overlaps."""
    from_left, from_right = list(means), list(means)
    for at in range(1, len(row)):
        from_left[at] = max(from_left[at], from_left[at - 1] + _distance(row[at - 1], row[at]))
    for at in range(len(row) - 2, -1, -1):
        from_right[at] = min(from_right[at], from_right[at + 1] - _distance(row[at], row[at + 1]))
    for box, first, second in zip(row, from_left, from_right, strict=True):
        box.x = (first + second) / 2


def _distance(left: _Box, right: _Box) -> float:
    return (left.width + right.width) / 2 + _GAP_X


def _row_width(row: Sequence[_Box]) -> float:
    return sum(box.width for box in row) + _GAP_X * (len(row) - 1)


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _draw_layout(layout: _Layout, x: float, y: float) -> Iterator[str]:
    for edge in layout.edges:
        yield from _draw_edge(edge, x, y)
    for row in layout.rows:
        for box in row:
            if not box.is_lane:
                yield from _draw_box(box, x, y)


def _draw_box(box: _Box, x: float, y: float) -> Iterator[str]:
    left_edge, top = x + box.x - box.width / 2, y + box.y
    radius = min(16.0, box.height / 2) if box.round else 5
    yield (
        f'<rect x="{left_edge:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="{radius:g}" '
        'fill-opacity=".05" stroke="currentColor" stroke-opacity=".35"/>'
    )
    if box.colour:
        yield (
            f'<rect x="{left_edge:.1f}" y="{top + 4:.1f}" width="4" height="{box.height - 8:.1f}" rx="2" '
            f'fill="{box.colour}"/>'
        )
    for at, line in enumerate(box.lines):
        look = ' font-weight="600"' if at == 0 else ' fill-opacity=".75"'
        yield (
            f'<text x="{left_edge + _PAD + 3:.1f}" y="{top + _PAD + 9 + at * _LINE:.1f}" xml:space="preserve"{look}>'
            f"{escape(line)}</text>"
        )
    if box.inner is not None:
        indent = (box.width - box.inner.width) / 2
        yield from _draw_layout(box.inner, left_edge + indent, top + box.height - box.inner.height - _PAD)


def _draw_edge(edge: _Edge, x: float, y: float) -> Iterator[str]:
    """Draws an edge as a smooth line with a tip."""
    source, target = edge.boxes[0], edge.boxes[-1]
    points = [(x + source.x, y + source.y + source.height)]
    for lane in edge.boxes[1:-1]:
        points += [(x + lane.x, y + lane.y), (x + lane.x, y + lane.y + lane.height)]
    tip_x, tip_y = x + target.x, y + target.y
    points.append((tip_x, tip_y - 6))
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for at in range(0, len(points) - 1, 2):
        (x1, y1), (x2, y2) = points[at], points[at + 1]
        middle = (y1 + y2) / 2
        path += f"C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}"
        if at + 2 < len(points):
            path += f"V{points[at + 2][1]:.1f}"
    dashes = ' stroke-dasharray="4 4"' if edge.dashed else ""
    yield f'<path d="{path}" fill="none" stroke="currentColor" stroke-opacity=".55" stroke-width="1.3"{dashes}/>'
    yield f'<path d="M{tip_x - 4:.1f} {tip_y - 7:.1f}h8l-4 7z" fill-opacity=".55"/>'
