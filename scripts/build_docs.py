"""Writes the generated pages of the documentation. `make docs` runs it.

    .venv/bin/python scripts/build_docs.py                # writes them
    .venv/bin/python scripts/build_docs.py --check        # exits 1 if a page that is in version control is out of date
    .venv/bin/python scripts/build_docs.py --docs FOLDER  # writes them into another copy of docs/

In version control are the error codes, the command line, the settings and the list of decisions. Not in version control
are the pages of the Python API, which change with every docstring, the JSON Schemas of files, and the copies of
CONTRIBUTING.md and CHANGELOG.md. Each build writes them.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # finds `scripts.api_reference` when run by path

from orchestra.cli.file_schemas import FileKind, format_schema, schema_file_name
from orchestra.cli.main import build_app
from orchestra.core.error_help import CODE_AREAS, load_explanations
from orchestra.core.settings import ENVIRONMENT_PREFIX, SETTING_NAMES, Settings
from orchestra.server.application import all_endpoints
from orchestra.server.openapi import route_rows
from scripts import api_reference
from scripts.api_reference import escaped

ROOT = api_reference.ROOT
DOCS = ROOT / "docs"

COPIES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the repository's root that are pages of the site, too."""

ERRORS = """\
# Error codes

Every error of Orchestra has a code. This page lists all codes, with their cause and the remedy.
`orchestra explain CODE` prints the same text. The first letter of a code names the part of the system that reports it.

"""

COMMANDS = """\
# Command line

This page lists every command of `orchestra` with its arguments and options. It is generated from the commands.
`orchestra COMMAND --help` prints the same text. The exit codes are in the [glossary](glossary.md#how-a-command-ends).

"""

DECISIONS = """\
# Decisions

This page lists the decision records. Each record is half a page long: context, options with figures, choice and
consequences.

"""


def errors_page() -> str:
    """All explanations, by area and code."""
    parts = [ERRORS]
    for letter, entries in groupby(load_explanations().values(), key=lambda entry: entry.code[0]):
        parts.append(f"## {letter}: {CODE_AREAS[letter]}\n\n")
        for entry in entries:
            parts.append(f"### {entry.code}: {escaped(entry.title)} {{ #{entry.code} }}\n\n{markdown(entry.text)}\n\n")
    return "".join(parts).rstrip() + "\n"


HTTP_API = """# HTTP API

This page lists the routes of `orchestra serve`. The page `/docs` of a server shows their types, and `/openapi.json`
describes them for programs. [Serve workflows over HTTP](../how-to/server.md) shows how to use them.

Bodies are JSON. Errors have the format of RFC 9457 (`application/problem+json`) with `code`, `detail`, `pointer` and
`hint`; [error codes](errors.md#S001) explains the codes. Lists have `items` and `next`, the value of `cursor` for the
next page.

"""


def http_page() -> str:
    """All routes of the server, by area."""
    parts = [HTTP_API.rstrip() + "\n"]
    for area, entries in groupby(all_endpoints(), key=lambda one: one.area):
        parts.append(f"\n## {area}\n\n| route | scope | purpose |\n|---|---|---|\n")
        for method, path, scope, summary in route_rows(entries):
            parts.append(f"| `{method} {path}` | {scope or 'none'} | {escaped(summary)} |\n")
    return "".join(parts)


def markdown(text: str) -> str:
    """An explanation as Markdown: what is indented in it becomes a block of code."""
    blocks = []
    for indented, lines in groupby(text.strip("\n").splitlines(), key=lambda line: line.startswith((" ", "\t"))):
        block = textwrap.dedent("\n".join(lines)).strip("\n")
        if block:
            blocks.append(f"```text\n{block}\n```" if indented else escaped(block))
    return "\n\n".join(blocks)


def decisions_page() -> str:
    """The list of the decision records, by number."""
    lines = []
    for path in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        title = path.read_text("utf-8").splitlines()[0].removeprefix("#").strip()
        lines.append(f"- [{title}]({path.name})\n")
    return DECISIONS + "".join(lines)


def command_page() -> str:
    """Every command, in the groups of `orchestra --help`."""
    commands: dict[str, Any] = command_line().commands
    groups: dict[str, list[str]] = {}
    for name, command in commands.items():
        groups.setdefault(command.rich_help_panel or "Other", []).append(name)
    parts = [COMMANDS]
    for group, names in groups.items():
        parts.append(f"## {group}\n\n")
        parts += ["".join(command_entries(commands[name], f"orchestra {name}")) for name in names]
    return "".join(parts).rstrip() + "\n"


def command_line() -> Any:
    """The command line as click has it. (typer brings a click of its own, so its classes are not click's.)"""
    return typer.main.get_command(build_app())


def command_entries(command: Any, name: str) -> Iterator[str]:
    """A command and its subcommands: usage, help, arguments and options."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    subcommands: dict[str, Any] = getattr(command, "commands", {})
    usage = " ".join(
        [
            name,
            *(["COMMAND"] if subcommands else []),
            *(["[OPTIONS]"] if options else []),
            *map(argument_usage, arguments),
        ]
    )
    yield f"### {name} {{ #{name.replace(' ', '-')} }}\n\n```text\n{usage}\n```\n\n{markdown(command.help or '')}\n\n"
    if arguments:
        yield "**Arguments**\n\n" + "".join(f"- `{each.name.upper()}`: {said(each)}\n" for each in arguments) + "\n"
    if options:
        yield "**Options**\n\n" + "".join(f"- {spelling(each)}: {said(each)}\n" for each in options) + "\n"
    if command.epilog:
        yield f"{escaped(command.epilog)}\n\n"
    for inner, subcommand in subcommands.items():
        yield from command_entries(subcommand, f"{name} {inner}")


def argument_usage(parameter: Any) -> str:
    """An argument in a usage line."""
    name = f"{parameter.name.upper()}{'...' if parameter.nargs != 1 or parameter.multiple else ''}"
    return name if parameter.required else f"[{name}]"


def spelling(parameter: Any) -> str:
    """The names of an option, with what its value is."""
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    kind = parameter.type_descriptor.annotation
    return names if parameter.is_flag else f"{names} `{parameter.metavar or value_of(kind)}`"


def value_of(kind: Any) -> str:
    """The placeholder of an option's value: its choices, or its type in capitals."""
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if inner := [one for one in get_args(kind) if one is not type(None)]:
        return value_of(inner[0])
    return {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(kind, "VALUE")


def said(parameter: Any) -> str:
    """The help of an argument or option, with its default."""
    default, shown = parameter.default, parameter.show_default
    notes = []
    if isinstance(shown, str):
        notes.append(f"Default: {shown}.")
    elif shown and default not in (None, "", False, (), []) and not callable(default):
        notes.append(f"Default: `{parameter.opts[0] if default is True else default}`.")
    if parameter.required:
        notes.append("Required.")
    return " ".join([escaped(" ".join((parameter.help or "").split())), *notes]).strip()


def settings_list() -> str:
    """Every setting: name, values, default, environment variable and description."""
    lines = []
    for key in SETTING_NAMES:
        field = Settings.model_fields[key]
        default = "see below" if field.default_factory else f"`{written(field.default)}`"
        description = f"{(field.description or '')[:1].upper()}{(field.description or '')[1:]}"
        variable = f"; variable `{ENVIRONMENT_PREFIX}{key.upper()}`" if key != "mcp" else ""
        lines.append(
            f"### {key} {{ #{key} }}\n\n{escaped(description)}.\n\n"
            f"Value: {values_of(field)}; default {default}{variable}.\n"
        )
    return "\n".join(lines)


def written(value: Any) -> str:
    """A default as TOML has it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case tuple():
            return "[]"
        case dict():
            return "{}"
        case _:
            return str(value)


def values_of(field: Any) -> str:
    """The values that a setting takes."""
    kind = field.annotation
    if get_origin(kind) is Literal:
        return ", ".join(f"`{one}`" for one in get_args(kind))
    bounds = {name: getattr(one, name) for one in field.metadata for name in ("ge", "le") if hasattr(one, name)}
    if kind is int:
        return f"a number from {bounds['ge']:,} to {bounds['le']:,}"
    names = {
        str: "text",
        bool: "`true` or `false`",
        tuple[str, ...]: "a list of names",
        tuple[Path, ...]: "a list of folders",
    }
    return names.get(kind, "see the description")


def configuration_page(docs: Path) -> str:
    """The page of the settings, with its list written anew."""
    text = (docs / "reference" / "configuration.md").read_text("utf-8")
    return re.sub(
        r"(<!-- begin:settings -->\n).*?(<!-- end:settings -->)",
        lambda found: f"{found[1]}\n{settings_list()}\n{found[2]}",
        text,
        flags=re.DOTALL,
    )


def pages(docs: Path = DOCS) -> dict[Path, str]:
    """The generated pages that are in version control, with their text."""
    return {
        docs / "reference" / "errors.md": errors_page(),
        docs / "reference" / "cli.md": command_page(),
        docs / "reference" / "http-api.md": http_page(),
        docs / "reference" / "configuration.md": configuration_page(docs),
        docs / "decisions" / "index.md": decisions_page(),
    }


def copied_page(name: str) -> str:
    """Returns a page of the repository's root as a page of the site: links to files outside of `docs/` become paths."""

    def rewrite(link: re.Match[str]) -> str:
        text, target = link[1], link[2]
        if re.match(r"https?:|#", target):
            return link[0]
        if target.startswith("docs/"):
            return f"[{text}]({target.removeprefix('docs/')})"
        file, _, anchor = target.partition("#")
        if file in COPIES:
            return f"[{text}]({COPIES[file]}{'#' if anchor else ''}{anchor})"
        return f"`{file}`" if text == file else f"{text} (`{file}`)"

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", rewrite, (ROOT / name).read_text("utf-8"))


def built_pages(docs: Path = DOCS) -> dict[Path, str]:
    """The generated pages that each build writes: the Python API, and the copies of pages of the root."""
    return {
        **{docs / "reference" / "api" / name: text for name, text in api_reference.pages().items()},
        **{docs / page: copied_page(name) for name, page in COPIES.items()},
    }


def schema_files(docs: Path = DOCS) -> dict[Path, str]:
    """The JSON Schemas that each build writes; their addresses are their `$id`."""
    return {docs / "reference" / "schemas" / schema_file_name(kind): format_schema(kind) for kind in get_args(FileKind)}


def main() -> int:
    """Writes or checks the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of the pages")
    given = parser.parse_args()
    wanted = pages(given.docs) | ({} if given.check else built_pages(given.docs) | schema_files(given.docs))
    stale = [(path, text) for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    for path, text in stale:
        print(f"{path.relative_to(given.docs.parent)} {'is out of date: make docs' if given.check else 'written'}")
        if not given.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    return 1 if given.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
