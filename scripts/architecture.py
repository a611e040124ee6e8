"""Prints the sizes of the packages, the layers and the import circles, and draws docs/concepts/architecture.svg.

    python scripts/architecture.py           # make architecture
    python scripts/architecture.py --check   # exits with 1 if the picture is not that of the code

The layers are those of the import-linter contract in pyproject.toml. A line counts once per 120 columns.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.import_graph import Graph, describe_circles, find_modules, read_graph  # noqa: E402 - the path is set above

PACKAGE = "orchestra"
PICTURE = Path("docs/concepts/architecture.svg")
COLUMNS = 120

PURPOSES = {
    "cli": "the commands",
    "server": "the HTTP API",
    "testing": "fakes, virtual time, cassettes",
    "learn": "data, training, evaluation",
    "app": "projects, runs, results, claims",
    "engine": "decide, evolve, driver, budgets",
    "router": "requests become plans",
    "tools": "search, cite, cells",
    "workflows": "YAML and Python to programs",
    "verification": "checks, verdicts, certificates",
    "fleet": "vLLM servers, scheduling, HTTP",
    "agents": "cards, prompts, inference, MCP",
    "journal": "SQLite, Postgres, history",
    "schema": "types of values",
    "text": "numbers, quotes, keywords",
    "core": "protocols, events, errors, settings",
}

WIDTH, MARGIN, BOX, GAP, ROW = 920, 210, 40, 24, 66
"""Pixels: of the picture, left and right of the boxes, a box's height, between boxes, from row to row."""

STYLE = """\
text { font: 14px system-ui, sans-serif; text-anchor: middle; fill: #14213d }
.name { font-weight: 600 } .purpose { font-size: 12px; fill: #3d4b66 }
rect { fill: #dfe8f5; stroke: #6b7f9e; rx: 6px }
path { fill: none; stroke: #7d8aa0 } .next { stroke-width: 1.6 } .skip { stroke-width: 1; opacity: .38 }
marker path { fill: #7d8aa0; stroke: none }"""
"""Colours that can be read on a light and on a dark page: text is on boxes only, and lines are of middle grey."""


@dataclass(frozen=True, slots=True)
class Size:
    """Files and lines of a package."""

    files: int
    lines: int
    long: int
    """Lines of more than 120 columns."""


@dataclass(frozen=True, slots=True)
class Box:
    """The rectangle of a package in the picture."""

    x: float
    y: float
    width: float
    row: int

    @property
    def is_left(self) -> bool:
        return self.x <= MARGIN

    @property
    def is_right(self) -> bool:
        return self.x + self.width >= WIDTH - MARGIN


def read_layers(root: Path = ROOT) -> list[list[str]]:
    """Returns the packages of each layer, the highest first, without the prefix `orchestra.`."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip().removeprefix(f"{PACKAGE}.") for name in layer.split("|")] for layer in layers]


def measure(paths: Sequence[Path]) -> Size:
    """Counts the lines of files: one line per 120 columns, and at least one."""
    lines = [line for path in paths for line in path.read_text("utf-8").splitlines()]
    return Size(
        len(paths), sum(max(1, -(-len(line) // COLUMNS)) for line in lines), sum(len(line) > COLUMNS for line in lines)
    )


def package_of(module: str) -> str:
    """Returns the package of a module below `orchestra`; empty for `orchestra` itself."""
    return module.partition(".")[2].partition(".")[0]


def package_imports(graph: Graph) -> dict[tuple[str, str], int]:
    """Returns how many imports between files there are from one package to another."""
    counts: dict[tuple[str, str], int] = {}
    for module, targets in graph.items():
        for target in targets:
            pair = (package_of(module), package_of(target))
            if "" not in pair and pair[0] != pair[1]:
                counts[pair] = counts.get(pair, 0) + 1
    return counts


def place_boxes(layers: Sequence[Sequence[str]]) -> dict[str, Box]:
    """Returns the box of each package: a layer is a row, and its packages share the width."""
    boxes = {}
    for row, layer in enumerate(layers):
        width = (WIDTH - 2 * MARGIN - GAP * (len(layer) - 1)) / len(layer)
        for at, name in enumerate(layer):
            boxes[name] = Box(MARGIN + at * (width + GAP), 16 + row * ROW, width, row)
    return boxes


def draw(layers: Sequence[Sequence[str]], imports: Mapping[tuple[str, str], int]) -> str:
    """Returns the picture: packages as boxes, their imports as arrows, those that skip a layer lightly."""
    boxes = place_boxes(layers)
    height = 32 + ROW * (len(layers) - 1) + BOX
    edges = sorted((pair for pair in imports if set(pair) <= boxes.keys()), key=lambda pair: (boxes[pair[0]].row, pair))
    paths = [draw_arrow(source, target, boxes) for source, target in edges]
    rects = []
    for name, box in boxes.items():
        middle = box.x + box.width / 2
        rects.append(
            f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{BOX}"/>'
            f'<text x="{middle:g}" y="{box.y + 17:g}" class="name">{escape(name)}</text>'
            f'<text x="{middle:g}" y="{box.y + 33:g}" class="purpose">{escape(PURPOSES.get(name, ""))}</text>'
        )
    title = "Packages of orchestra in their layers; an arrow is an import"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">'
    marker = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
    )
    return "\n".join([head, f"<title>{title}</title>", f"<style>{STYLE}</style>", marker, *paths, *rects, "</svg>", ""])


def draw_arrow(source: str, target: str, boxes: Mapping[str, Box]) -> str:
    """Returns an arrow: straight to the next row, in an arc at the side to a row further down."""
    start, end = boxes[source], boxes[target]
    span = end.row - start.row
    label = f"<title>{source} imports {target}</title>"
    if span == 1 or not ((start.is_left and end.is_left) or (start.is_right and end.is_right)):
        left, right = max(start.x, end.x), min(start.x + start.width, end.x + end.width)
        x1 = x2 = (left + right) / 2
        if left >= right:  # not one above the other
            x1 = start.x + start.width / 2
            x2 = end.x + end.width - GAP if end.x < start.x else end.x + GAP
        kind = "next" if span == 1 else "skip"
        shape = f"M{x1:g} {start.y + BOX:g}L{x2:g} {end.y - 1:g}"
        return f'<path class="{kind}" d="{shape}" marker-end="url(#tip)">{label}</path>'
    # Arcs to even rows are on the right if they can be, the others on the left; longer ones are further out.
    on_right = start.is_right and end.is_right and (end.row % 2 == 0 or not (start.is_left and end.is_left))
    out = 24 + 17 * (span - 1)
    x1, x2 = (start.x + start.width, end.x + end.width) if on_right else (start.x, end.x)
    far = max(x1, x2) + out if on_right else min(x1, x2) - out
    y1, y2 = start.y + BOX * (0.5 + 0.04 * span), end.y + BOX * (0.5 - 0.04 * span)
    shape = f"M{x1:g} {y1:g}C{far:g} {y1:g} {far:g} {y2:g} {x2:g} {y2:g}"
    return f'<path class="skip" d="{shape}" marker-end="url(#tip)">{label}</path>'


def report(modules: Mapping[str, Path], graph: Graph, layers: Sequence[Sequence[str]]) -> str:
    """Returns the counts, the layers, imports that point upward, and the circles, as text."""
    names = [name for layer in layers for name in layer]
    rows = ["package        files   lines  over 120 columns"]
    for name in ["", *sorted({package_of(module) for module in modules} - {""})]:
        size = measure([path for module, path in modules.items() if package_of(module) == name])
        rows.append(f"{name or '__init__':<14}{size.files:>6}{size.lines:>8,}{size.long:>8,}")
    size = measure(list(modules.values()))
    rows.append(f"{'all':<14}{size.files:>6}{size.lines:>8,}{size.long:>8,}")
    height = {name: row for row, layer in enumerate(layers) for name in layer}
    imports = package_imports(graph)
    upward = [f"{a} -> {b}" for a, b in imports if a in height and b in height and height[a] >= height[b]]
    missing = sorted({package_of(module) for module in modules} - {"", *names})
    rows += ["", f"{len(layers)} layers", *(f"  {' | '.join(layer)}" for layer in layers)]
    rows += [f"packages in no layer: {', '.join(missing) or 'none'}"]
    rows += [f"imports between packages: {len(imports)}, not downward: {', '.join(upward) or 'none'}"]
    circles = describe_circles(graph, modules, ROOT)
    rows += ["", f"{len(circles)} import circles between files", *circles]
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 1 if the picture is not that of the code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the picture is out of date")
    chosen = parser.parse_args(arguments)
    modules = find_modules(ROOT, PACKAGE)
    graph, layers = read_graph(modules), read_layers()
    picture, path = draw(layers, package_imports(graph)), ROOT / PICTURE
    if chosen.check:
        fresh = path.exists() and path.read_text("utf-8") == picture
        print(f"{PICTURE} is " + ("up to date" if fresh else "out of date: make architecture"))
        return 0 if fresh else 1
    print(report(modules, graph, layers))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(picture, "utf-8")
    print(f"\n{PICTURE} is written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
