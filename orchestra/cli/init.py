"""`orchestra init` and `orchestra config show`: a project begun, and its settings explained."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from orchestra.cli.context import load_settings_to_inspect
from orchestra.cli.options import JsonOption
from orchestra.cli.output import make_console, make_table, print_json, print_text
from orchestra.cli.trust import trust_new_project
from orchestra.cli.typer_adapter import add_command
from orchestra.core.errors import InputError, OrchestraError

STARTER_FOLDER = Path(__file__).parent / "starter"


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    add_command(app, init, panel="Begin")
    config = typer.Typer(no_args_is_help=True, help="Settings, and where each came from.")
    add_command(config, show)
    app.add_typer(config, name="config", rich_help_panel="Look after it")


def init(
    folder: Annotated[Path, typer.Argument(help="Where; made if it is not there.", show_default="here")] = Path(),
) -> None:
    """Begin a project: settings, a workflow, an agent and a Python example, ready to run."""
    made = create_project(folder)
    trust_new_project(folder)
    for path in made:
        print_text(f"  {folder / path}")
    print_text("\nNow try:", style="bold")
    if folder != Path():
        print_text(f"  cd {folder}")
    print_text("  orchestra run hello -i question='What does note G describe?' -i text=@documents/ada.txt")
    print_text("  orchestra graph hello")
    print_text("  python hello.py")


def show(as_json: JsonOption = False) -> None:
    """Show the settings in force, and what set each of them."""
    from orchestra.core.settings import SETTING_NAMES

    found = load_settings_to_inspect()
    values = found.model_dump(mode="json", include=set(SETTING_NAMES))
    if as_json:
        project = str(found.project) if found.project else None
        print_json(
            {
                "project": project,
                "settings": {k: {"value": values[k], "source": found.sources[k]} for k in SETTING_NAMES},
            }
        )
        return
    rows = [
        (key, _format_value(values[key]), found.sources[key], str(found.__class__.model_fields[key].description))
        for key in SETTING_NAMES
    ]
    make_console().print(make_table(("setting", "value", "set by", "what it is"), rows))
    print_text(
        f"\nproject: {found.project}" if found.project else "\nno project here; `orchestra init` begins one",
        style="dim",
    )


def create_project(folder: Path) -> list[Path]:
    """Writes the starter project; gives the files, relative to `folder`.

    Raises `InputError` C016 where one of them is there already, before anything is written.
    """
    sources = sorted(path for path in STARTER_FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    targets = {
        path: path.relative_to(STARTER_FOLDER).with_name(".gitignore" if path.name == "gitignore" else path.name)
        for path in sources
    }
    taken = [str(folder / target) for target in targets.values() if os.path.exists(folder / target)]
    if taken:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise InputError(
            "C016", f"{taken[0]}{more}: already there, and nothing is overwritten", hint="orchestra init another_folder"
        )
    try:
        for source, target in targets.items():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / target)
    except OSError as error:
        raise OrchestraError(
            "C023", f"{error.filename or folder} cannot be written: {error.strerror}", hint="choose another folder"
        ) from error
    return list(targets.values())


def _format_value(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
