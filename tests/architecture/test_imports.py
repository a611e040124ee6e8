"""The import graph of `orchestra/` has no circles between files, imports for types and inside functions included."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.import_graph import describe_circles, find_components, find_modules, read_graph

ROOT = Path(__file__).resolve().parents[2]


def circles(root: Path, package: str) -> list[str]:
    """The circles of a package in a folder, as texts."""
    modules = find_modules(root, package)
    return describe_circles(read_graph(modules), modules, root)


def write_package(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / "box" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("back", "kind"),
    [
        ("import box.first", "module level"),
        ("from box import first", "module level"),
        ("from box.first import ONE", "module level"),
        ("from . import first", "module level"),
        ("from .first import ONE", "module level"),
        ("try:\n    from box.first import ONE\nexcept ImportError:\n    pass", "module level"),
        ("class Second:\n    from box.first import ONE", "module level"),
        ("def two():\n    from box.first import ONE", "in a function"),
        ("async def two():\n    if True:\n        from box.first import ONE", "in a function"),
        ("if TYPE_CHECKING:\n    from box.first import ONE", "TYPE_CHECKING"),
        ("if typing.TYPE_CHECKING:\n    import box.first", "TYPE_CHECKING"),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import box.first", "module level"),
    ],
)
def test_circle_of_two_files_is_found(tmp_path: Path, back: str, kind: str) -> None:
    write_package(tmp_path, {"__init__.py": "", "first.py": "from box.second import TWO", "second.py": back})
    (text,) = circles(tmp_path, "box")
    line = back[: back.index("box" if "box" in back else "from .")].count("\n") + 1
    assert text.splitlines() == [
        "circle of 2 files",
        "  box/first.py:1 imports box.second (module level)",
        f"  box/second.py:{line} imports box.first ({kind})",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "import os, json",
        "from box import third",
        "from .third import THREE",
        "from box.inner import deep",
        "import box.third as first",
    ],
)
def test_import_that_closes_no_circle_is_not_reported(tmp_path: Path, text: str) -> None:
    files = {"first.py": "from box.second import TWO", "second.py": text, "third.py": ""}
    files |= {"inner/__init__.py": "", "inner/deep.py": ""}
    write_package(tmp_path, {"__init__.py": "", **files})
    assert circles(tmp_path, "box") == []


def test_circle_through_a_package_file_is_found(tmp_path: Path) -> None:
    write_package(tmp_path, {"__init__.py": "from box.first import ONE", "first.py": "from box import NAME"})
    assert circles(tmp_path, "box") == [
        "circle of 2 files\n"
        "  box/__init__.py:1 imports box.first (module level)\n"
        "  box/first.py:1 imports box (module level)"
    ]


def test_relative_import_of_the_parent_package_is_resolved(tmp_path: Path) -> None:
    files = {"first.py": "from box.inner.deep import DEEP", "inner/__init__.py": ""}
    files["inner/deep.py"] = "from ..first import ONE"
    write_package(tmp_path, {"__init__.py": "", **files})
    assert [text.splitlines()[0] for text in circles(tmp_path, "box")] == ["circle of 2 files"]


def test_component_is_described_by_a_shortest_circle(tmp_path: Path) -> None:
    files = {"a.py": "import box.b", "b.py": "import box.c", "c.py": "import box.a, box.d", "d.py": "import box.c"}
    write_package(tmp_path, {"__init__.py": "", **files, "x.py": "import box.y", "y.py": "import box.x"})
    modules = find_modules(tmp_path, "box")
    assert find_components(read_graph(modules)) == [["box.a", "box.b", "box.c", "box.d"], ["box.x", "box.y"]]
    first, second = circles(tmp_path, "box")
    assert first.splitlines() == [
        "circle of 2 files (of 4 in circles)",
        "  box/c.py:1 imports box.d (module level)",
        "  box/d.py:1 imports box.c (module level)",
        "  also: box.a, box.b",
    ]
    assert second.startswith("circle of 2 files\n")


def test_package_has_no_import_circles() -> None:
    found = circles(ROOT, "orchestra")
    assert not found, "\n".join(found)
