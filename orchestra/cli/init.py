"""`orchestra init` and `orchestra config show`: a project begun, and its settings explained."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from orchestra.cli.context import settings_to_inspect
from orchestra.cli.options import AsJson
from orchestra.cli.output import console, print_json, say, table
from orchestra.cli.trust import trust_new_project
from orchestra.cli.typer_adapter import add
from orchestra.core.errors import InputError, OrchestraError

STARTER = Path(__file__).parent / "starter"


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    add(app, init, panel="Begin")
    config = typer.Typer(no_args_is_help=True, help="Settings, and where each came from.")
    add(config, show)
    app.add_typer(config, name="config", rich_help_panel="Look after it")


def init(
    folder: Annotated[Path, typer.Argument(help="Where; made if it is not there.", show_default="here")] = Path(),
) -> None:
    """Begin a project: settings, a workflow, an agent and a Python example, ready to run."""
    made = begin(folder)
    trust_new_project(folder)
    for path in made:
        say(f"  {folder / path}")
    say("\nNow try:", style="bold")
    if folder != Path():
        say(f"  cd {folder}")
    say("  orchestra run hello -i question='What does note G describe?' -i text=@documents/ada.txt")
    say("  orchestra graph hello")
    say("  python hello.py")


def show(as_json: AsJson = False) -> None:
    """Show the settings in force, and what set each of them."""
    from orchestra.core.settings import KEYS

    found = settings_to_inspect()
    values = found.model_dump(mode="json", include=set(KEYS))
    if as_json:
        project = str(found.project) if found.project else None
        print_json({"project": project, "settings": {k: {"value": values[k], "source": found.sources[k]} for k in KEYS}})
        return
    rows = [(key, _plain(values[key]), found.sources[key], str(found.__class__.model_fields[key].description)) for key in KEYS]
    console().print(table(("setting", "value", "set by", "what it is"), rows))
    say(f"\nproject: {found.project}" if found.project else "\nno project here; `orchestra init` begins one", style="dim")


def begin(folder: Path) -> list[Path]:
    """Writes the starter project; gives the files, relative to `folder`.

    Raises `InputError` C016 where one of them is there already, before anything is written.
    """
    sources = sorted(path for path in STARTER.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    targets = {path: path.relative_to(STARTER).with_name(".gitignore" if path.name == "gitignore" else path.name) for path in sources}
    taken = [str(folder / target) for target in targets.values() if os.path.exists(folder / target)]
    if taken:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise InputError("C016", f"{taken[0]}{more}: already there, and nothing is overwritten", hint="orchestra init another_folder")
    try:
        for source, target in targets.items():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / target)
    except OSError as error:
        raise OrchestraError(
            "C023", f"{error.filename or folder} cannot be written: {error.strerror}", hint="choose another folder"
        ) from error
    return list(targets.values())


def _plain(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
