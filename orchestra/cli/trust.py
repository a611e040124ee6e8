"""`orchestra trust`: which projects may run code, and the question about one at the terminal."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestra.cli.exit_codes import format_error
from orchestra.cli.options import JsonOption
from orchestra.cli.output import make_console, make_table, print_json, print_text
from orchestra.cli.typer_adapter import add_command
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.trust import ProjectGuard, TrustStore, UntrustedError
from orchestra.core.untrusted_text import escape_invisible

if TYPE_CHECKING:
    from orchestra.core.settings import Settings


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    add_command(app, trust, panel="Look after it")


def trust(
    folder: Annotated[Path, typer.Argument(help="A folder of the project.", show_default="here")] = Path(),
    list_: Annotated[bool, typer.Option("--list", help="List the trusted projects.")] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take trust away from the project.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Trust a project: show what its settings make run, and let them, until they change.

    Without trust no module of a project is imported, no MCP server is started, and no journal or symbolic link leads out of its folder.
    `ORCHESTRA_TRUST=1` trusts every project, for CI and containers.
    """
    records = TrustStore.from_environment(os.environ)
    if list_:
        _list_records(records, as_json)
    elif revoke:
        place = (
            folder
            if folder.is_dir() and records.find(folder)
            else _load_guard(folder).folder
            if folder.is_dir()
            else folder
        )
        records.remove(place)
        _print_result(
            {"folder": os.path.realpath(place), "trusted": False},
            f"{os.path.realpath(place)} is not trusted any more",
            as_json,
        )
    else:
        guard = _load_guard(folder)
        records.add(guard)
        needs = [{"kind": need.kind, "text": need.text} for need in guard.requirements]
        _print_result(
            {"folder": str(guard.folder), "trusted": True, "allowed": needs},
            f"{_describe_needs(guard)}\nIt is trusted now.",
            as_json,
        )


def print_trust_notice(settings: Settings) -> None:
    """Says on stderr what a command leaves out because the project is not trusted."""
    if (error := settings.trust_error("modules")) is not None:
        print(f"{format_error(error)}\n", file=sys.stderr)


def ask_for_trust(error: UntrustedError) -> bool:
    """Asks the person at the terminal to trust a project, and records it. False where nobody is there, or for another answer than yes."""
    from orchestra.cli.run.questions import is_interactive

    if not is_interactive():
        return False
    sys.stderr.write(f"{_describe_needs(error.guard)}\nTrust it? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        return False
    TrustStore.from_environment(os.environ).add(error.guard)
    return True


def trust_new_project(folder: Path) -> None:
    """Trusts a project that `orchestra init` has written. Where that cannot be recorded, the first command that needs trust says so."""
    with suppress(OrchestraError):
        TrustStore.from_environment(os.environ).add(_load_guard(folder))


def _load_guard(folder: Path) -> ProjectGuard:
    """What the project of a folder may not do without trust. Raises `InputError` C045."""
    from orchestra.core.settings import PROJECT_VARIABLE, Settings

    if not folder.is_dir():
        raise InputError("C045", f"there is no folder {folder}", hint="orchestra trust FOLDER")
    named = folder != Path()
    environ = {name: value for name, value in os.environ.items() if not (named and name == PROJECT_VARIABLE)}
    guard = Settings.load(start=folder, environ=environ, trusted="never").guard
    assert guard is not None  # with "never" there is one
    return guard


def _describe_needs(guard: ProjectGuard) -> str:
    if not guard.requirements:
        return escape_invisible(f"{guard.folder} asks for nothing that needs trust.")
    return escape_invisible(
        "\n".join([f"Trust in {guard.folder} allows it to", *(f"  - {need}" for need in guard.requirements)])
    )


def _print_result(data: dict[str, object], text: str, as_json: bool) -> None:
    if as_json:
        print_json(data)
    else:
        print_text(escape_invisible(text))


def _list_records(records: TrustStore, as_json: bool) -> None:
    rows = [(record.folder, _record_state(record.folder, record.digest)) for record in records.all()]
    if as_json:
        print_json([{"folder": folder, "state": state} for folder, state in rows])
    elif rows:
        make_console().print(
            make_table(("folder", "state"), [(escape_invisible(folder), state) for folder, state in rows])
        )
    else:
        print_text("no project is trusted")


def _record_state(folder: str, digest: str) -> str:
    """Whether a record still holds."""
    try:
        guard = _load_guard(Path(folder))
    except InputError as error:
        return "gone" if error.code == "C045" else f"has a fault: {error.code}"
    return "trusted" if guard.digest == digest and str(guard.folder) == folder else "changed since"
