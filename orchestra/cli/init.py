"""The commands `init`, `config` and `trust`: create a project, show its settings, and trust it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from orchestra.cli.context import load_settings_to_inspect
from orchestra.cli.file_schemas import write_schemas
from orchestra.cli.options import EndpointOption, JsonOption, ModelOption
from orchestra.cli.output import print_json, print_table, print_text
from orchestra.cli.typer_adapter import OrchestraGroup, add_command, describe_needs
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.trust import ProjectGuard, TrustStore
from orchestra.core.untrusted_text import escape_invisible

NO_SERVER_NOTICE = (
    "No model server was found on this machine. Install one: pip install 'orchestra-slm[cpu]' (Linux), or start Ollama,"
    " llama.cpp or LM Studio. For a server elsewhere add --endpoint URL to the commands."
)
STARTER_FOLDER = Path(__file__).parent / "starter"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    add_command(app, init, panel="Start")
    config = typer.Typer(cls=OrchestraGroup, no_args_is_help=True, help="Show settings and their sources.")
    add_command(config, show)
    app.add_typer(config, name="config", rich_help_panel="Operate")
    add_command(app, trust, panel="Operate")


def init(
    folder: Annotated[Path, typer.Argument(help="The folder; it is created if missing.", show_default="here")] = Path(),
    endpoint: EndpointOption = None,
    model: ModelOption = None,
) -> None:
    """Create a project with settings, a workflow, an agent and a Python example, ready to run.

    Without vLLM on this machine, the project uses the model server that answers on a usual port, if there is one:
    Ollama, vLLM, llama.cpp or LM Studio.
    """
    endpoint_values, notice = choose_endpoint(endpoint, model)
    paths = create_project(folder, endpoint_values)
    trust_new_project(folder)
    print_text("Created:", style="bold")
    for path in paths:
        print_text(f"  {folder / path}")
    if notice:
        print_text(f"\n{escape_invisible(notice)}")
    print_text("\nNow try:", style="bold")
    if folder != Path():
        print_text(f"  cd {folder}")
    print_text("  orchestra run hello -i question='What does note G describe?' -i text=@documents/ada.txt")
    print_text("  orchestra graph hello")
    print_text("  python hello.py")


def show(as_json: JsonOption = False) -> None:
    """Show the effective settings and their sources."""
    from orchestra.core.settings import SETTING_NAMES

    settings = load_settings_to_inspect()
    values = settings.model_dump(mode="json", include=set(SETTING_NAMES))
    if as_json:
        project = str(settings.project) if settings.project else None
        print_json(
            {
                "project": project,
                "settings": {k: {"value": values[k], "source": settings.sources[k]} for k in SETTING_NAMES},
            }
        )
        return
    rows = [
        (key, _format_value(values[key]), settings.sources[key], str(settings.__class__.model_fields[key].description))
        for key in SETTING_NAMES
    ]
    print_table(("setting", "value", "set by", "what it is"), rows)
    print_text(
        f"\nproject: {settings.project}" if settings.project else "\nno project here; `orchestra init` creates one",
        style="dim",
    )


def choose_endpoint(endpoint: str | None, model: str | None) -> tuple[Mapping[str, str], str]:
    """Returns the settings of the new project's model server, empty for the default fleet, and a notice about them.

    Raises:
        InputError: C002 for an invalid endpoint, or for a model without one.
    """
    from orchestra.fleet.config import endpoint_fleet
    from orchestra.fleet.endpoints import find_local_endpoints

    if endpoint is None and model is not None:
        raise InputError("C002", f"model {model!r} is for an endpoint, and there is none", hint="add --endpoint URL")
    if endpoint is not None:
        endpoint_fleet(endpoint, model or "")
        return {"endpoint": endpoint, **({"model": model} if model else {})}, ""
    local_endpoints = [server for server in asyncio.run(find_local_endpoints()) if server.models]
    if not local_endpoints:
        return {}, "" if find_spec("vllm") is not None else NO_SERVER_NOTICE
    first = local_endpoints[0]
    name = f"{first.software or 'A model server'} answers at {first.address} with {first.summary}"
    if find_spec("vllm") is not None:
        return {}, f"{name}. To use it: --endpoint {first.address}"
    model_name = first.models[0]
    return {
        "endpoint": first.address,
        "model": model_name,
    }, f"{name}. The project uses {model_name}; see orchestra.toml."


def create_project(folder: Path, endpoint: Mapping[str, str] | None = None) -> list[Path]:
    """Writes the starter project, and returns its files relative to `folder`.

    Args:
        folder: The folder.
        endpoint: The settings `endpoint` and `model`, appended to its settings file.

    Raises:
        InputError: C016 if one of the files exists; nothing is written then.
    """
    sources = sorted(path for path in STARTER_FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    targets = {
        path: path.relative_to(STARTER_FOLDER).with_name(".gitignore" if path.name == "gitignore" else path.name)
        for path in sources
    }
    existing_paths = [str(folder / target) for target in targets.values() if os.path.exists(folder / target)]
    if existing_paths:
        more_text = f" and {len(existing_paths) - 1} more" if len(existing_paths) > 1 else ""
        raise InputError(
            "C016",
            f"{existing_paths[0]}{more_text}: it exists already; nothing was written",
            hint="orchestra init another_folder",
        )
    try:
        for source, target in targets.items():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / target)
        if endpoint:
            with (folder / "orchestra.toml").open("a", encoding="utf-8") as settings:
                settings.writelines(
                    f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in endpoint.items()
                )
        schemas = write_schemas(folder)
    except OSError as error:
        raise OrchestraError(
            "C023", f"{error.filename or folder} cannot be written: {error.strerror}", hint="choose another folder"
        ) from error
    return [*targets.values(), *schemas]


def _format_value(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def trust(
    folder: Annotated[Path, typer.Argument(help="The folder of the project.", show_default="here")] = Path(),
    list_: Annotated[bool, typer.Option("--list", help="List the trusted projects.")] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="Revoke the trust in the project.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Trust a project: show what its settings may run, and allow it until they change.

    In an untrusted project no Python module is imported, no MCP server is started, and no journal or symbolic link may
    lead out of the folder. `ORCHESTRA_TRUST=1` trusts every project, for CI and containers.
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
            f"{os.path.realpath(place)} is no longer trusted",
            as_json,
        )
    else:
        guard = _load_guard(folder)
        records.add(guard)
        needs = [{"kind": need.kind, "text": need.text} for need in guard.requirements]
        _print_result(
            {"folder": str(guard.folder), "trusted": True, "allowed": needs},
            f"{describe_needs(guard)}\nIt is trusted now.",
            as_json,
        )


def trust_new_project(folder: Path) -> None:
    """Trusts a project written by `orchestra init`. If that cannot be recorded, the first command that needs trust
    reports it.
    """
    with suppress(OrchestraError):
        TrustStore.from_environment(os.environ).add(_load_guard(folder))


def _load_guard(folder: Path) -> ProjectGuard:
    """Loads what the project of a folder needs trust for. Raises `InputError` C045."""
    from orchestra.core.settings import PROJECT_VARIABLE, Settings

    if not folder.is_dir():
        raise InputError("C045", f"there is no folder {folder}", hint="orchestra trust FOLDER")
    is_named = folder != Path()
    environ = {name: value for name, value in os.environ.items() if not (is_named and name == PROJECT_VARIABLE)}
    guard = Settings.load(start=folder, environ=environ, trusted="never").guard
    assert guard is not None  # always set with "never"
    return guard


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
        print_table(("folder", "state"), [(escape_invisible(folder), state) for folder, state in rows])
    else:
        print_text("no project is trusted")


def _record_state(folder: str, digest: str) -> str:
    """The state of a trust record: `trusted`, `gone`, `changed since` or a fault."""
    try:
        guard = _load_guard(Path(folder))
    except InputError as error:
        return "gone" if error.code == "C045" else f"invalid: {error.code}"
    return "trusted" if guard.digest == digest and str(guard.folder) == folder else "changed since"
