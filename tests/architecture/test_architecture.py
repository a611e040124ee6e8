"""Architecture rules: package layers, module sizes, forbidden code and expensive imports."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = sorted((ROOT / "orchestra").rglob("*.py"))
ALL = sorted(
    path
    for folder in ("orchestra", "agents", "scripts", "bench", "examples", "tests")
    for path in (ROOT / folder).rglob("*.py")
)

HEAVY = {
    "torch",
    "vllm",
    "transformers",
    "networkx",
    "aiohttp",
    "numpy",
    "scipy",
    "sklearn",
    "bm25s",
    "gguf",
    "safetensors",
    "tokenizers",
    "starlette",
    "uvicorn",
    "mcp",
}
"""Packages that are too slow to import for a command that does not use them."""

AT_WORK = {
    "importlib.metadata",
    "jsonschema_rs",
    "minijinja",
    "orchestra.agents.card",
    "orchestra.engine.engine",
    "orchestra.fleet",
    "orchestra.journal",
    "orchestra.app.project",
    "orchestra.verification",
    "orchestra.workflows.compile.compiler",
    "yaml",
}
"""Modules for work on an open `Orchestra` that a module defining steps does not need. Pydantic looks for plug-ins with
`importlib.metadata` when it builds the first validator.
"""

STRANGERS = {
    "agents/tools.py",
    "core/settings.py",
    "testing/fake_workers.py",
    "core/untrusted_text.py",
    "workflows/python/steps.py",
}
"""Modules that run code of others and convert any exception to a coded error."""

FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "base", "misc", "common"}


def trees(paths: list[Path]) -> Iterator[tuple[Path, ast.Module]]:
    for path in paths:
        yield path, ast.parse(path.read_text("utf-8"), str(path))


def places(faults: list[tuple[Path, int]]) -> list[str]:
    return [f"{path.relative_to(ROOT)}:{line}" for path, line in faults]


def test_packages_import_only_lower_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_import_contracts_name_every_package() -> None:
    contracts = (ROOT / "pyproject.toml").read_text("utf-8")
    rooms = {
        path.name.removesuffix(".py")
        for path in (ROOT / "orchestra").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert [room for room in sorted(rooms - {"__init__"}) if f"orchestra.{room}" not in contracts] == []


def test_no_module_is_longer_than_nine_hundred_lines() -> None:
    assert {
        str(path.relative_to(ROOT)): n for path in ALL if (n := len(path.read_text("utf-8").splitlines())) > 900
    } == {}


def test_module_names_describe_their_content() -> None:
    assert [str(path.relative_to(ROOT)) for path in LIBRARY if path.stem in FORBIDDEN_NAMES] == []


def test_every_module_has_a_docstring() -> None:
    assert [str(path.relative_to(ROOT)) for path, tree in trees(LIBRARY) if not ast.get_docstring(tree)] == []


def test_every_public_object_has_a_docstring() -> None:
    """A method of a protocol documents its implementations. A case of the journal conformance tests has a name, like a
    test.
    """

    def declared(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith(
                "_"
            ):
                yield node
                yield from declared(node.body) if isinstance(node, ast.ClassDef) else ()

    def only_typed(node: ast.stmt) -> bool:
        last = node.body[-1] if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else None
        return isinstance(last, ast.Expr) and isinstance(last.value, ast.Constant) and last.value.value is ...

    def door(node: ast.AST) -> bool:
        return isinstance(node, ast.ClassDef) and any(
            isinstance(one, ast.Name) and one.id == "Protocol" for one in node.bases
        )

    houses = [(path, tree) for path, tree in trees(LIBRARY) if path.parent.name != "conformance"]
    doors = [node for _, tree in houses for node in ast.walk(tree) if door(node) and isinstance(node, ast.ClassDef)]
    said = {one.name for node in doors for one in declared(node.body) if ast.get_docstring(one)}
    silent = [
        (path, one)
        for path, tree in houses
        for one in declared(tree.body)
        if not ast.get_docstring(one) and not only_typed(one)
    ]
    assert places([(path, one.lineno) for path, one in silent if one.name not in said]) == []


def test_no_except_is_broad() -> None:
    """A broad `except` may clean up and re-raise. Otherwise it must run code of others: only in these modules, with a
    comment on the line.
    """

    def kept(node: ast.ExceptHandler) -> bool:
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        anything = any(
            one is None or (isinstance(one, ast.Name) and one.id in ("Exception", "BaseException")) for one in caught
        )
        last = node.body[-1]
        return anything and not (isinstance(last, ast.Raise) and last.exc is None)

    broad = [
        (path, node.lineno)
        for path, tree in trees(LIBRARY)
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and kept(node)
    ]
    unsaid = [
        (path, line)
        for path, line in broad
        if not re.search(r"# .{15,}", path.read_text("utf-8").splitlines()[line - 1])
    ]
    assert places(unsaid) == []
    assert {str(path.relative_to(ROOT / "orchestra")) for path, _ in broad} == STRANGERS


def test_nothing_is_executed_or_unpickled() -> None:
    names, modules = (
        {"eval", "exec", "compile", "__import__"},
        {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "diskcache"},
    )
    faults: list[tuple[Path, int]] = []
    for path, tree in trees(LIBRARY):
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id=name)) if name in names:
                    faults.append((path, node.lineno))
                case ast.Import(names=imported) if any(alias.name.partition(".")[0] in modules for alias in imported):
                    faults.append((path, node.lineno))
                case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in modules:
                    faults.append((path, node.lineno))
                case _:
                    pass
    assert places(faults) == []


def test_model_patterns_do_not_count_unicode_letters() -> None:
    r"""Pydantic compiles patterns to automata when it builds a validator: `\w{0,127}` took 50 ms and 12 MiB of every
    start.
    """
    counted = re.compile(r"""\bpattern=r?"[^"]*\\[wWdDsS]\{""")
    lines = (
        (path, number, line) for path in LIBRARY for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
    )
    assert places([(path, number) for path, number, line in lines if counted.search(line)]) == []


def test_modules_have_no_mutable_state() -> None:
    """A module-level `global` statement would let one `Orchestra` affect another."""
    assert (
        places(
            [
                (path, node.lineno)
                for path, tree in trees(LIBRARY)
                for node in ast.walk(tree)
                if isinstance(node, ast.Global)
            ]
        )
        == []
    )


def test_files_contain_no_machine_paths() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    # Concatenated, so that this file does not contain the searched text.
    machine = re.compile("|".join(["/wo" + "rk/(main|shared)", "/ro" + "ot/", "/op" + "t/wheels", r"\.pye" + "nv/"]))
    faults = []
    for name in filter(None, tracked.stdout.split("\0")):
        path = ROOT / name
        if (
            path.is_file()
            and path.stat().st_size < 1_000_000
            and machine.search(path.read_text("utf-8", errors="ignore"))
        ):
            faults.append(name)
    assert faults == []


def told_after(statement: str, expression: str) -> set[str]:
    """The texts that an expression returns after the statement, in a new interpreter."""
    script = f"{statement}\nimport json, sys\nprint(json.dumps({expression}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/")
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return set(names)


def loaded_by(statement: str) -> set[str]:
    """The modules in `sys.modules` after the statement, and their packages."""
    return told_after(statement, "[*sys.modules, *(name.partition('.')[0] for name in sys.modules)]")


def test_package_import_loads_no_heavy_module() -> None:
    assert loaded_by("import orchestra") & HEAVY == set()


def test_command_line_import_loads_no_heavy_module() -> None:
    assert loaded_by("import orchestra.cli.main") & HEAVY == set()


def test_help_loads_no_rich_and_no_engine() -> None:
    loaded = loaded_by(
        "from typer.testing import CliRunner; from orchestra.cli.main import build_app; "
        "assert CliRunner().invoke(build_app(), ['--help']).exit_code == 0"
    )
    assert loaded & {*HEAVY, "rich", "orchestra.engine"} == set()


def test_step_definition_imports_no_engine() -> None:
    assert loaded_by("from orchestra import Budget, Document, agent, tool, workflow") & {*AT_WORK, "asyncio"} == set()


def test_program_import_defers_the_rest_until_open_orchestra() -> None:
    assert loaded_by("from orchestra import Orchestra, agent, tool, workflow") & AT_WORK == set()


def test_importing_builds_no_validator() -> None:
    """Each validator takes about a millisecond; that of a graph, a card or a fleet is built once."""
    modules = (
        "import orchestra.app.orchestra, orchestra.agents.card, orchestra.agents.inference.linear, "
        "orchestra.fleet.config"
    )
    built = (
        "[name for module in [*sys.modules.values()] if module.__name__.startswith('orchestra') for "
        "name, one in vars(module).items()"
    )
    built += " if getattr(one, '__module__', '') == module.__name__ and getattr(one, '__pydantic_complete__', False)]"
    assert told_after(modules, built) == set()
