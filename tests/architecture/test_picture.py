"""`scripts/architecture.py`: counts, layers, and the picture of the packages, which is that of today's imports."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from scripts import architecture
from scripts.architecture import PURPOSES, Size, draw, measure, package_imports, read_layers, report
from scripts.import_graph import Import, find_modules, read_graph

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def test_picture_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert architecture.main(["--check"]) == 0, capsys.readouterr().out


def test_every_package_has_a_layer_and_a_purpose() -> None:
    packages = {path.name for path in (ROOT / "orchestra").iterdir() if (path / "__init__.py").exists()}
    assert packages == {name for layer in read_layers() for name in layer} == PURPOSES.keys()


def test_lines_count_once_per_120_columns(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("\n" + "x" * 120 + "\n" + "x" * 121 + "\n")
    assert measure([tmp_path / "one.py"]) == Size(1, 4, 1)


def test_imports_are_counted_between_packages_only() -> None:
    first = Import(1, "module level")
    graph = {
        "box.a.one": {"box.b.two": first, "box.a.three": first},
        "box": {"box.b": first},
        "box.a": {"box.b": first},
    }
    assert package_imports(graph) == {("a", "b"): 2}


def test_picture_has_a_box_for_each_package_and_an_arrow_for_each_import() -> None:
    imports = {("cli", "app"): 3, ("cli", "core"): 1, ("app", "core"): 2, ("left", "right"): 1, ("cli", "left"): 1}
    tree = ET.fromstring(draw([["cli"], ["app", "left"], ["core", "right"]], imports))
    names = [text.text for text in tree.iter(f"{SVG}text") if text.get("class") == "name"]
    arrows = {path.findtext(f"{SVG}title"): path.get("class") for path in tree.iter(f"{SVG}path") if path.get("class")}
    assert names == ["cli", "app", "left", "core", "right"]
    assert arrows == {
        "cli imports app": "next",
        "cli imports left": "next",
        "app imports core": "next",
        "left imports right": "next",
        "cli imports core": "skip",
    }


def test_report_names_layers_and_circles() -> None:
    modules = find_modules(ROOT, "orchestra")
    text = report(modules, read_graph(modules), read_layers())
    assert "13 layers\n  cli\n  server\n  testing | learn\n" in text
    assert "packages in no layer: none" in text
    assert "not downward: none" in text
    assert "import circles between files" in text
