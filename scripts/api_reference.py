"""Python API reference as Markdown, read from the source with `ast`. `scripts/build_docs.py` writes the pages.

Nothing is imported: signatures, defaults and docstrings are shown as the source has them, and no optional package is
needed.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "orchestra"

MODULES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "orchestra": ("The public API: open the application, write workflows, read results.", ()),
    "orchestra.tools": ("Ready-made tools that a workflow can use.", ()),
    "orchestra.testing": ("Simulated workers, a simulated vLLM server and virtual time for tests.", ()),
    "orchestra.core.protocols": (
        "The interfaces between the engine and its environment: clock, journal and workers.",
        (),
    ),
    "orchestra.core.events": ("The events of a run, as the journal stores them and as a program reads them.", ()),
    "orchestra.core.settings": ("The settings, and how they are loaded.", ("Settings",)),
    "orchestra.journal.memory": ("A journal in memory, for tests and for runs that are not kept.", ()),
    "orchestra.testing.conformance.suite": ("Conformance tests for a journal of your own.", ()),
}
"""The documented modules: the purpose of each page, and its names. Without names: `__all__`, or else all public
names.
"""

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Definition: TypeAlias = Function | ast.ClassDef | ast.Assign | ast.AnnAssign
SECTIONS = {
    "Args": "Parameters",
    "Attributes": "Attributes",
    "Returns": "Returns",
    "Yields": "Yields",
    "Raises": "Raises",
}
SPECIAL = ("__init__", "__call__")
HIDDEN = ("model_config",)
WIDTH = 92


@dataclass(frozen=True)
class Found:
    """A definition: its public name, the module that defines it, its syntax tree and its documentation."""

    name: str
    module: str
    node: Definition
    doc: str


@dataclass
class Member:
    """A field, property or method of a class; a method with overloads has several signatures."""

    name: str
    doc: str
    is_method: bool = False
    signatures: list[str] = field(default_factory=list)


@cache
def source(module: str) -> Path:
    """The file of a module.

    Raises:
        FileNotFoundError: There is no such module.
    """
    base = ROOT.joinpath(*module.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    raise FileNotFoundError(module)


@cache
def tree(module: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(source(module).read_text("utf-8"))


def statements(body: Iterable[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """The statements of a module, those under `if TYPE_CHECKING:` included, each with the string that follows it."""
    flat = [inner for each in body for inner in (each.body if isinstance(each, ast.If) else [each])]
    for at, each in enumerate(flat):
        after = flat[at + 1] if at + 1 < len(flat) else None
        yield each, string(after)


def string(statement: ast.stmt | None) -> str:
    """The text of a statement that is only a string; empty for any other."""
    if (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    ):
        return textwrap.dedent(" " * 4 + statement.value.value).strip()
    return ""


def targets(statement: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.Assign(targets=names):
            return [each.id for each in names if isinstance(each, ast.Name)]
        case _:
            return []


def resolve(module: str, name: str) -> Found | None:
    """The definition of a name of a module, followed through imports; None if it is outside this package."""
    for statement, after in statements(tree(module).body):
        if name in targets(statement) and isinstance(
            statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
        ):
            doc = after if isinstance(statement, ast.Assign | ast.AnnAssign) else ast.get_docstring(statement) or ""
            if not is_overload(statement):
                return Found(name, module, statement, doc)
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").split(".")[0] == PACKAGE:
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    found = resolve(statement.module or "", alias.name)
                    return Found(name, found.module, found.node, found.doc) if found else None
    return None


def public_names(module: str) -> list[str]:
    """The documented names of a module: those of the table above, its `__all__`, or else all without an underscore."""
    if chosen := MODULES[module][1]:
        return list(chosen)
    defined: list[str] = []
    for statement, _ in statements(tree(module).body):
        if "__all__" in targets(statement) and isinstance(statement, ast.Assign):
            return list(ast.literal_eval(statement.value))
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.AnnAssign | ast.Assign):
            defined += [name for name in targets(statement) if not name.startswith("_") and len(name) > 1]
    return list(dict.fromkeys(defined))


def is_overload(node: ast.AST) -> bool:
    """Whether a definition is one of several signatures of a function."""
    return "overload" in decorators(node)


def decorators(node: ast.AST) -> list[str]:
    """The last words of a definition's decorators: `property`, `overload`."""
    found = getattr(node, "decorator_list", [])
    return [ast.unparse(each.func if isinstance(each, ast.Call) else each).rsplit(".", 1)[-1] for each in found]


def signature(node: Function, name: str, *, method: bool = False) -> str:
    """A function's signature, one parameter a line where it is long."""
    words = decorators(node)
    shown = parameters(node.args)
    if method and "staticmethod" not in words and shown:
        shown = shown[1:]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None and name != "__init__" else ""
    prefix = "async def " if isinstance(node, ast.AsyncFunctionDef) else "def "
    marks = "".join(
        f"@{word}\n"
        for word in words
        if word in ("classmethod", "staticmethod", "asynccontextmanager", "contextmanager")
    )
    line = f"{prefix}{name}({', '.join(shown)}){returns}"
    if len(line) > WIDTH:
        line = f"{prefix}{name}(\n{''.join(f'    {each},' + chr(10) for each in shown)}){returns}"
    return marks + line


def parameters(arguments: ast.arguments) -> list[str]:
    """The parameters of a function as its source has them, with `/` and `*`."""
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    shown = [parameter(each, default) for each, default in zip(plain, defaults, strict=True)]
    if arguments.posonlyargs:
        shown.insert(len(arguments.posonlyargs), "/")
    if arguments.vararg:
        shown.append(f"*{parameter(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        shown.append("*")
    shown += [
        parameter(each, default) for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return [*shown, f"**{parameter(arguments.kwarg, None)}"] if arguments.kwarg else shown


def parameter(one: ast.arg, default: ast.expr | None) -> str:
    """One parameter: name, type and default."""
    kind = f": {ast.unparse(one.annotation)}" if one.annotation else ""
    equals = " = " if kind else "="
    return f"{one.arg}{kind}{equals + ast.unparse(default) if default else ''}"


def members(found: Found, documented: frozenset[str]) -> list[Member]:
    """The public members of a class: its own, and those of bases of this package that have no entry of their own."""
    node = found.node
    if not isinstance(node, ast.ClassDef):
        return []
    own: dict[str, Member] = {}
    for statement, after in statements(node.body):
        for name in targets(statement):
            if (name.startswith("_") and name not in SPECIAL) or name in HIDDEN:
                continue
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                entry_of(own, name, statement)
            elif isinstance(statement, ast.AnnAssign) and (
                after or "ClassVar" not in ast.unparse(statement.annotation)
            ):
                default = (
                    f" = {ast.unparse(statement.value)}" if statement.value and not is_call(statement.value) else ""
                )
                own[name] = Member(
                    name,
                    after or described(statement),
                    signatures=[f"{name}: {ast.unparse(statement.annotation)}{default}"],
                )
    if "open" in own and not own.get("__init__", Member("", "-")).doc:
        del own["__init__"]  # opened by the class method, not by a call of the class
    for base in node.bases:
        name = (
            base.value.id
            if isinstance(base, ast.Subscript) and isinstance(base.value, ast.Name)
            else getattr(base, "id", "")
        )
        parent = resolve(found.module, name) if name and name not in documented else None
        for member in members(parent, documented) if parent else ():
            own.setdefault(member.name, member)
    return list(own.values())


def entry_of(own: dict[str, Member], name: str, statement: Function) -> None:
    """Adds a method or property to the members of a class."""
    words = decorators(statement)
    doc = ast.get_docstring(statement) or ""
    if "property" in words or "cached_property" in words:
        kind = f"{name}: {ast.unparse(statement.returns)}" if statement.returns else name
        own[name] = Member(name, doc, signatures=[kind])
        return
    if "setter" in words or (
        name == "__init__" and not doc and len(statement.args.args) + len(statement.args.kwonlyargs) < 2
    ):
        return
    member = own.setdefault(name, Member(name, doc, is_method=True))
    overloaded = bool(member.signatures) and "overload" not in words
    if not overloaded:
        member.signatures.append(signature(statement, name, method=True))
    member.doc = member.doc or doc


def is_call(value: ast.expr) -> bool:
    """Whether a default is a call such as `Field(...)`, which says little to a reader."""
    return isinstance(value, ast.Call)


def described(statement: ast.AnnAssign) -> str:
    """The description in `Field(..., description="...")`."""
    if isinstance(statement.value, ast.Call):
        for keyword in statement.value.keywords:
            if keyword.arg == "description" and isinstance(keyword.value, ast.Constant):
                return f"{str(keyword.value.value)[:1].upper()}{str(keyword.value.value)[1:]}."
    return ""


def markdown(text: str) -> str:
    """A docstring as Markdown: indented text becomes a code block, a section such as `Args:` a list."""
    blocks: list[str] = []
    lines = text.strip("\n").splitlines()
    at = 0
    while at < len(lines):
        heading = re.fullmatch(r"([A-Z][a-z]+):", lines[at])
        if heading and heading[1] in SECTIONS:
            inside = list(takewhile_indented(lines[at + 1 :]))
            blocks.append(f"**{SECTIONS[heading[1]]}**\n\n{items(inside)}")
            at += 1 + len(inside)
        else:
            end = next(
                (n for n in range(at + 1, len(lines)) if re.fullmatch(rf"({'|'.join(SECTIONS)}):", lines[n])),
                len(lines),
            )
            blocks += paragraphs(lines[at:end])
            at = end
    return "\n\n".join(blocks)


def takewhile_indented(lines: list[str]) -> Iterator[str]:
    """The lines at the start that are indented or empty."""
    for line in lines:
        if line and not line.startswith(" "):
            return
        yield line


def paragraphs(lines: list[str]) -> list[str]:
    """Paragraphs and code blocks."""
    blocks = []
    for indented, part in groupby(lines, key=lambda line: line.startswith((" ", "\t"))):
        block = textwrap.dedent("\n".join(part)).strip("\n")
        if block:
            blocks.append(f"```python\n{block}\n```" if indented else escaped(block))
    return blocks


def items(lines: list[str]) -> str:
    """The entries of a section: `name: text`, with the lines that continue it; or plain text."""
    text = textwrap.dedent("\n".join(lines)).strip("\n")
    entries = re.split(r"\n(?=\S)", text)
    shown = []
    for entry in entries:
        joined = " ".join(entry.split())
        named = re.match(r"(\*{0,2}[\w.]+(?: \([^)]*\))?): (.*)", joined)
        shown.append(f"- `{named[1]}`: {escaped(named[2])}" if named else f"- {escaped(joined)}")
    return "\n".join(shown)


def escaped(text: str) -> str:
    """Text in which nothing is taken for HTML, outside of `code`."""
    parts = text.split("`")
    return "`".join(part.replace("<", "&lt;") if at % 2 == 0 else part for at, part in enumerate(parts))


def code(text: str) -> str:
    """A block of Python."""
    return f"```python\n{text}\n```"


def kind_of(found: Found) -> str:
    """The section of a page that a definition belongs to."""
    if isinstance(found.node, ast.ClassDef):
        exception = any(name.endswith(("Error", "Exception")) for name in ancestors(found))
        return "Exceptions" if exception else "Classes"
    return "Functions" if isinstance(found.node, ast.FunctionDef | ast.AsyncFunctionDef) else "Types and constants"


def ancestors(found: Found) -> Iterator[str]:
    """The names of a class and of its bases, as far as the source tells."""
    yield found.name
    for base in found.node.bases if isinstance(found.node, ast.ClassDef) else ():
        name = ast.unparse(base).partition("[")[0]
        yield name
        parent = resolve(found.module, name)
        yield from ancestors(parent) if parent else ()


def entry(found: Found, page: str, documented: frozenset[str]) -> str:
    """One definition: heading, signature, text, members."""
    node = found.node
    parts = [f"### {found.name} {{ #{page}.{found.name} }}"]
    match node:
        case ast.ClassDef():
            bases = ", ".join(ast.unparse(base) for base in node.bases)
            parts.append(code(f"class {found.name}({bases})" if bases else f"class {found.name}"))
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            overloads = [
                each
                for each, _ in statements(tree(found.module).body)
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
                and each.name == node.name
                and is_overload(each)
            ]
            parts.append(code("\n\n".join(signature(each, found.name) for each in overloads or [node])))
        case _:
            text = ast.unparse(node)
            parts.append(code(text if len(text) <= WIDTH else text.replace(" | ", "\n    | ")))
    parts.append(markdown(found.doc))
    inside = members(found, documented)
    if fields := [member for member in inside if not member.is_method]:
        parts.append("**Attributes**")
        parts.append(
            "\n".join(
                f"- `{member.signatures[0]}`{': ' + one_line(member.doc) if member.doc else ''}" for member in fields
            )
        )
    for member in inside:
        if not member.is_method:
            continue
        title = member.name.replace("_", "\\_")
        parts.append(f"#### {found.name}.{title} {{ #{page}.{found.name}.{member.name.strip('_')} }}")
        parts.append(code("\n\n".join(member.signatures)))
        parts.append(markdown(member.doc))
    where = source(found.module).relative_to(ROOT).as_posix()
    parts.append(f"<small>Defined in `{where}`.</small>")
    return "\n\n".join(part for part in parts if part)


def page(module: str) -> str:
    """The page of a module."""
    purpose = MODULES[module][0]
    names = public_names(module)
    found = [one for one in (resolve(module, name) for name in names) if one is not None]
    documented = frozenset(one.name for one in found)
    parts = [
        f"# {module}",
        escaped(purpose),
        code(f"import {module}" if module == PACKAGE else f"from {module} import ..."),
    ]
    text = markdown(ast.get_docstring(tree(module)) or "")
    parts += [text] if text else []
    for kind in ("Classes", "Functions", "Exceptions", "Types and constants"):
        of_kind = [one for one in found if kind_of(one) == kind]
        if of_kind:
            parts.append(f"## {kind}")
            parts += [entry(one, module, documented) for one in of_kind]
    return "\n\n".join(parts) + "\n"


def one_line(text: str) -> str:
    """A short docstring as one line of a list."""
    return escaped(" ".join(text.split()))


def summary(text: str) -> str:
    """The first sentence of a docstring, for a table."""
    line = " ".join(text.partition("\n\n")[0].split())
    return escaped(re.split(r"(?<=[.!?]) ", line)[0]).replace("|", "\\|")


def index() -> str:
    """The first page: every module, and every name of the public API."""
    lines = [
        "# Python API",
        "",
        "Every public class, function and type of Orchestra, with its signature and its docstring.",
        "The pages are generated from the source. Import what a page lists; other modules may change without notice.",
        "",
        "| module | content |",
        "|---|---|",
        *(f"| [`{module}`]({module}.md) | {purpose} |" for module, (purpose, _) in MODULES.items()),
        "",
        f"## Names of `{PACKAGE}`",
        "",
        "| name | purpose |",
        "|---|---|",
    ]
    for name in public_names(PACKAGE):
        found = resolve(PACKAGE, name)
        lines.append(f"| [`{name}`]({PACKAGE}.md#{PACKAGE}.{name}) | {summary(found.doc) if found else ''} |")
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """The pages by file name."""
    return {"index.md": index(), **{f"{module}.md": page(module) for module in MODULES}}
