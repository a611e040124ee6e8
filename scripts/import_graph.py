"""The import graph of a package, read with `ast`: one node a file, one edge an import statement.

Imports under `TYPE_CHECKING` and inside functions count: they are dependencies too. An import of a package counts as an
import of its `__init__.py`; the implicit import of parent packages and names passed to `importlib` do not count.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, order=True)
class Import:
    """An import statement.

    Attributes:
        line: Its line in the importing file.
        kind: `module level`, `in a function` or `TYPE_CHECKING`.
    """

    line: int
    kind: str


Graph = dict[str, dict[str, Import]]
"""Importing module to imported module to the first statement that imports it. Each module of the package is a key."""


def find_modules(root: Path, package: str) -> dict[str, Path]:
    """Returns the dotted name and the path of each module of a package in the folder `root`."""
    modules: dict[str, Path] = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def read_graph(modules: Mapping[str, Path]) -> Graph:
    """Returns the imports between the modules; other imports are left out."""
    graph: Graph = {}
    for name, path in modules.items():
        parent = name if path.name == "__init__.py" else name.rpartition(".")[0]
        edges = graph[name] = {}
        for target, statement in _imports(ast.parse(path.read_text("utf-8"), str(path)), parent, "module level"):
            found = target if target in modules else target.rpartition(".")[0]
            if found in modules and found != name:
                edges.setdefault(found, statement)
    return graph


def _imports(node: ast.AST, parent: str, kind: str) -> Iterator[tuple[str, Import]]:
    """Yields the dotted names that the statements below `node` import, in the order of their lines."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                yield from ((alias.name, Import(child.lineno, kind)) for alias in names)
            case ast.ImportFrom(module=module, level=level, names=names):
                above = ".".join(parent.split(".")[: len(parent.split(".")) - level + 1]) if level else ""
                source = ".".join(filter(None, (above, module)))
                yield from ((f"{source}.{alias.name}", Import(child.lineno, kind)) for alias in names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                yield from _imports(child, parent, kind if kind == "TYPE_CHECKING" else "in a function")
            case ast.If(test=test) if _is_type_checking(test):
                for statement in child.body:
                    yield from _imports(ast.Module([statement], []), parent, "TYPE_CHECKING")
                yield from _imports(ast.Module(child.orelse, []), parent, kind)
            case _:
                yield from _imports(child, parent, kind)


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def find_components(graph: Graph) -> list[list[str]]:
    """Returns the strongly connected components of more than one module, each sorted, the largest first.

    The algorithm is Tarjan's (1972), with an explicit stack.
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    open_modules: list[str] = []
    components: list[list[str]] = []
    for start in graph:
        if start in index:
            continue
        stack = [(start, iter(graph[start]))]
        index[start] = low[start] = len(index)
        open_modules.append(start)
        while stack:
            module, targets = stack[-1]
            for target in targets:
                if target not in index:
                    index[target] = low[target] = len(index)
                    open_modules.append(target)
                    stack.append((target, iter(graph[target])))
                    break
                if target in open_modules:
                    low[module] = min(low[module], index[target])
            else:
                stack.pop()
                if stack:
                    low[stack[-1][0]] = min(low[stack[-1][0]], low[module])
                if low[module] == index[module]:
                    at = open_modules.index(module)
                    components.append(sorted(open_modules[at:]))
                    del open_modules[at:]
    return sorted((one for one in components if len(one) > 1), key=lambda one: (-len(one), one))


def shortest_circle(graph: Graph, component: list[str]) -> list[str]:
    """Returns the modules of a shortest circle in a component, in the order of their imports."""
    inside = set(component)
    circles = (_circle_from(graph, module, inside) for module in component)
    return min(circles, key=lambda circle: (len(circle), circle))


def _circle_from(graph: Graph, start: str, inside: set[str]) -> list[str]:
    """Returns a shortest circle through `start`, found breadth first."""
    came_from: dict[str, str] = {}
    queue = deque([start])
    while queue:
        module = queue.popleft()
        for target in graph[module]:
            if target == start:
                circle = [module]
                while circle[-1] != start:
                    circle.append(came_from[circle[-1]])
                return circle[::-1]
            if target in inside and target not in came_from:
                came_from[target] = module
                queue.append(target)
    raise ValueError(f"{start} is in no circle")


def describe_circles(graph: Graph, modules: Mapping[str, Path], root: Path) -> list[str]:
    """Returns a text for each component: how many files it has, and each import of a shortest circle with its line."""
    texts = []
    for component in find_components(graph):
        circle = shortest_circle(graph, component)
        others = sorted(set(component) - set(circle))
        lines = [f"circle of {len(circle)} files" + (f" (of {len(component)} in circles)" if others else "")]
        for module, target in zip(circle, [*circle[1:], circle[0]], strict=True):
            statement = graph[module][target]
            lines.append(f"  {modules[module].relative_to(root)}:{statement.line} imports {target} ({statement.kind})")
        if others:
            lines.append("  also: " + ", ".join(others))
        texts.append("\n".join(lines))
    return texts
