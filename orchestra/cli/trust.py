"""`orchestra trust`: which projects may run code, and the question about one at the terminal."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestra.cli.exit_codes import report
from orchestra.cli.options import AsJson
from orchestra.cli.output import console, print_json, say, table
from orchestra.cli.typer_adapter import add
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.trust import Guard, Records, Untrusted
from orchestra.core.untrusted_text import visible

if TYPE_CHECKING:
    from orchestra.core.settings import Settings


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    add(app, trust, panel="Look after it")


def trust(
    folder: Annotated[Path, typer.Argument(help="A folder of the project.", show_default="here")] = Path(),
    list_: Annotated[bool, typer.Option("--list", help="List the trusted projects.")] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take trust away from the project.")] = False,
    as_json: AsJson = False,
) -> None:
    """Trust a project: show what its settings make run, and let them, until they change.

    Without trust no module of a project is imported, no MCP server is started, and no journal or symbolic link leads out of its folder.
    `ORCHESTRA_TRUST=1` trusts every project, for CI and containers.
    """
    records = Records.of(os.environ)
    if list_:
        _list(records, as_json)
    elif revoke:
        place = folder if folder.is_dir() and records.find(folder) else _guard(folder).folder if folder.is_dir() else folder
        records.remove(place)
        _tell({"folder": os.path.realpath(place), "trusted": False}, f"{os.path.realpath(place)} is not trusted any more", as_json)
    else:
        guard = _guard(folder)
        records.add(guard)
        needs = [{"kind": need.kind, "text": need.text} for need in guard.needs]
        _tell({"folder": str(guard.folder), "trusted": True, "allowed": needs}, f"{_asked(guard)}\nIt is trusted now.", as_json)


def notice(chosen: Settings) -> None:
    """Says on stderr what a command leaves out because the project is not trusted."""
    if (error := chosen.untrusted("modules")) is not None:
        print(f"{report(error)}\n", file=sys.stderr)


def is_granted_at_terminal(error: Untrusted) -> bool:
    """Asks the person at the terminal to trust a project, and records it. False where nobody is there, or for another answer than yes."""
    from orchestra.cli.run.questions import somebody_is_here

    if not somebody_is_here():
        return False
    sys.stderr.write(f"{_asked(error.guard)}\nTrust it? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        return False
    Records.of(os.environ).add(error.guard)
    return True


def trust_new_project(folder: Path) -> None:
    """Trusts a project that `orchestra init` has written. Where that cannot be recorded, the first command that needs trust says so."""
    with suppress(OrchestraError):
        Records.of(os.environ).add(_guard(folder))


def _guard(folder: Path) -> Guard:
    """What the project of a folder may not do without trust. Raises `InputError` C045."""
    from orchestra.core.settings import PROJECT, Settings

    if not folder.is_dir():
        raise InputError("C045", f"there is no folder {folder}", hint="orchestra trust FOLDER")
    named = folder != Path()
    environ = {name: value for name, value in os.environ.items() if not (named and name == PROJECT)}
    guard = Settings.load(start=folder, environ=environ, trusted="never").guard
    assert guard is not None  # with "never" there is one
    return guard


def _asked(guard: Guard) -> str:
    if not guard.needs:
        return visible(f"{guard.folder} asks for nothing that needs trust.")
    return visible("\n".join([f"Trust in {guard.folder} allows it to", *(f"  - {need}" for need in guard.needs)]))


def _tell(data: dict[str, object], text: str, as_json: bool) -> None:
    if as_json:
        print_json(data)
    else:
        say(visible(text))


def _list(records: Records, as_json: bool) -> None:
    rows = [(record.folder, _state(record.folder, record.digest)) for record in records.all()]
    if as_json:
        print_json([{"folder": folder, "state": state} for folder, state in rows])
    elif rows:
        console().print(table(("folder", "state"), [(visible(folder), state) for folder, state in rows]))
    else:
        say("no project is trusted")


def _state(folder: str, digest: str) -> str:
    """Whether a record still holds."""
    try:
        guard = _guard(Path(folder))
    except InputError as error:
        return "gone" if error.code == "C045" else f"has a fault: {error.code}"
    return "trusted" if guard.digest == digest and str(guard.folder) == folder else "changed since"
