"""`orchestra serve`: the server with its HTTP API and the studio, and its keys."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.context import Opener, get_opener, load_settings, open_orchestra
from orchestra.cli.options import EndpointOption, FleetOption, JsonOption, ModelOption
from orchestra.cli.output import print_json, print_note, print_table, print_text
from orchestra.cli.typer_adapter import OrchestraGroup, add_command, ask_for_trust, expand_arguments, show_error
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.trust import UntrustedError

if TYPE_CHECKING:
    from orchestra.core.settings import Settings
    from orchestra.server.records import Records
    from orchestra.server.settings import JwtSettings, ServerSettings

NO_AUTH_NOTICE = "no credentials are needed: every user and every program of this machine may use the server"
KEY_NOTICE = "requests need a key: orchestra serve keys create NAME"
PROVIDER_NOTICE = "requests need a token of the identity provider"
UNUSABLE_NOTICE = (
    "no request is accepted: keys cannot be stored, and no identity provider is set (--jwks, --issuer, --audience)"
)
RECORDS_KINDS = "keys, files, threads, schedules, webhooks and batches"
TenantOption = Annotated[str, typer.Option("--tenant", metavar="NAME", help="The tenant of the key.")]


@dataclass(frozen=True, slots=True)
class ServeArguments:
    """The options of `orchestra serve`."""

    host: Annotated[str, typer.Option("--host", help="The address on which the server listens.")] = "127.0.0.1"
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 for a free one.")] = 8100
    auth: Annotated[
        bool | None,
        typer.Option(
            "--auth/--no-auth",
            help="Whether requests need a credential; without one only on the loopback address.",
            show_default="if the address is not loopback, or there is a key",
        ),
    ] = None
    host_names: Annotated[
        list[str] | None,
        typer.Option(
            "--host-name",
            metavar="NAME",
            help="A name in the Host header for which the server answers; * for any.",
            show_default="the address, and localhost",
        ),
    ] = None
    origins: Annotated[
        list[str] | None,
        typer.Option(
            "--origin", metavar="URL", help="Another web page that may call the API from a browser.",
            show_default=False,
        ),
    ] = None  # fmt: skip
    jwks: Annotated[
        str,
        typer.Option("--jwks", metavar="URL", help="The public keys of an identity provider.", show_default=False),
    ] = ""
    issuer: Annotated[
        str, typer.Option("--issuer", metavar="URL", help="The issuer of its tokens.", show_default=False)
    ] = ""
    audience: Annotated[
        str, typer.Option("--audience", metavar="NAME", help="The audience of its tokens.", show_default=False)
    ] = ""
    tenant_claim: Annotated[
        str, typer.Option("--tenant-claim", metavar="NAME", help="The claim that names the tenant.")
    ] = "tenant"
    tenants: Annotated[
        Path | None,
        typer.Option("--tenants", metavar="FILE", help="The limits of tenants, as TOML.", show_default=False),
    ] = None
    drain: Annotated[
        float, typer.Option("--drain", min=0, max=3600, help="Seconds that runs get to end after SIGTERM.")
    ] = 8.0
    fleet: FleetOption = None
    endpoint: EndpointOption = None
    model: ModelOption = None


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(cls=OrchestraGroup, invoke_without_command=True)
    group.callback()(expand_arguments(serve))
    keys = typer.Typer(
        cls=OrchestraGroup, no_args_is_help=True, help="Make, list and revoke the API keys of the server."
    )
    add_command(keys, create)
    add_command(keys, list_, "list")
    add_command(keys, revoke)
    group.add_typer(keys, name="keys")
    app.add_typer(group, name="serve", rich_help_panel="Operate")


def serve(context: typer.Context, arguments: ServeArguments) -> None:
    """Serve workflows over HTTP, with the studio in the browser.

    Runs that were interrupted when a server ended continue. SIGTERM and Ctrl-C let runs end for a few seconds; others
    continue when a server starts again.
    """
    if context.invoked_subcommand is None:
        _report_errors(lambda: _run(get_opener(context), arguments))


def _run(opener: Opener, arguments: ServeArguments) -> None:
    _require_libraries()
    from orchestra.server import process

    process.run(_serve(opener, arguments))


def _report_errors(work: Callable[[], Any]) -> None:
    """Runs a command; prints an error and exits with its code."""
    try:
        try:
            work()
        except UntrustedError as error:
            if not ask_for_trust(error):
                raise
            work()
    except OrchestraError as error:
        show_error(error, as_json=False)
        raise typer.Exit(error.exit_code) from error


async def _serve(opener: Opener, arguments: ServeArguments) -> None:
    from orchestra.server import process
    from orchestra.server.application import create_app, studio_folder
    from orchestra.server.http_server import serve as serve_app

    settings = load_settings(fleet=arguments.fleet, endpoint=arguments.endpoint, model=arguments.model)
    server_settings = await _server_settings(settings, arguments)

    def announce(port: int) -> None:
        process.tune_collection()
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        address = f"http://{'127.0.0.1' if host in ('0.0.0.0', '[::]') else host}:{port}"  # noqa: S104 - compared
        _print_start(address, auth=server_settings.auth, has_studio=studio_folder() is not None)
        for notice in start_notices(settings, server_settings):
            print_note(notice)
        sys.stdout.flush()

    async with open_orchestra(opener, settings) as orchestra:
        unfinished_runs = await serve_app(
            create_app(orchestra, server_settings), arguments.host, arguments.port, announce
        )
    if unfinished_runs:
        print_note(f"stopped; {unfinished_runs} runs continue when a server starts again")


def _require_libraries() -> None:
    from importlib.util import find_spec

    if missing := [name for name in ("starlette", "uvicorn", "jwt", "cronsim") if find_spec(name) is None]:
        raise InputError("C040", f"the server needs {', '.join(missing)}", hint="pip install 'orchestra-slm[server]'")


async def _server_settings(settings: Settings, arguments: ServeArguments) -> ServerSettings:
    """Returns the settings of the server. Raises `InputError` S016 for an address that others reach, without
    credentials; C010 for an incomplete identity provider.
    """
    from orchestra.server.access import list_keys
    from orchestra.server.settings import LOOPBACK_HOSTS, ServerSettings
    from orchestra.server.tenant_limits import read_tenant_limits

    jwt, is_local = _jwt_settings(arguments), arguments.host in LOOPBACK_HOSTS
    auth = arguments.auth
    if auth is None:
        async with open_project_records(settings) as records:
            auth = not is_local or jwt is not None or bool(await list_keys(records, None))
    if not auth and not is_local:
        raise InputError(
            "S016",
            f"{arguments.host} can be reached from other machines, and the server would need no credentials",
            hint="leave out --no-auth, and make a key: orchestra serve keys create NAME",
        )
    names = (*LOOPBACK_HOSTS, arguments.host)
    return ServerSettings(
        auth=auth,
        jwt=jwt,
        hosts=tuple(name.lower() for name in (arguments.host_names or ())) + names,
        origins=tuple(arguments.origins or ()),
        drain=arguments.drain,
        retention=_retention_seconds(settings),
        tenants=read_tenant_limits(arguments.tenants) if arguments.tenants is not None else {},
    )


def _retention_seconds(settings: Settings) -> float | None:
    from orchestra.cli.options import parse_age

    return None if settings.retention == "off" else parse_age(settings.retention)


def _jwt_settings(arguments: ServeArguments) -> JwtSettings | None:
    from orchestra.server.settings import JwtSettings

    jwt_values = (arguments.jwks, arguments.issuer, arguments.audience)
    if not any(jwt_values):
        return None
    if not all(jwt_values) or not arguments.jwks.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise InputError(
            "C010",
            "the identity provider is not described completely",
            hint="--jwks https://… --issuer https://… --audience NAME",
        )
    return JwtSettings(
        jwks_url=arguments.jwks,
        issuer=arguments.issuer,
        audience=arguments.audience,
        tenant_claim=arguments.tenant_claim,
    )


def _print_start(address: str, *, auth: bool, has_studio: bool) -> None:
    """Prints where the server is, and how to call it."""
    if has_studio:
        print_text(f"studio    {address}/", style="bold")
    print_text(f"API       {address}/docs")
    key = " -H 'Authorization: Bearer KEY'" if auth else ""
    inputs = '{"question": "Which team won?", "documents": [{"source": "a.txt", "text": "The Broncos won."}]}'
    body = f'{{"workflow": "answer_from_documents", "inputs": {inputs}}}'
    print_text(f"\ncurl -s {address}/api/runs{key} -H 'Content-Type: application/json' -d '{body}'")
    headers = ', headers={"Authorization": "Bearer KEY"}' if auth else ""
    print_text(
        f'\nimport httpx\nbody = {body}\nprint(httpx.post("{address}/api/runs", json=body{headers}, timeout=99).json())'
    )
    print_text()


def start_notices(settings: Settings, server: ServerSettings) -> Iterator[str]:
    """Yields what the operator must know when the server starts: who may use it, and what ends with the process."""
    reason = _unkept_reason(settings)
    if not server.auth:
        yield NO_AUTH_NOTICE
    elif not reason:
        yield KEY_NOTICE
    else:
        yield PROVIDER_NOTICE if server.jwt is not None else UNUSABLE_NOTICE
    if reason:
        yield f"{reason}: {RECORDS_KINDS} are in memory, and end with this process"


def _unkept_reason(settings: Settings) -> str:
    """Returns why the records of the server are not kept; an empty text if they are beside the journal."""
    return "the journal is off" if settings.journal == "off" else ""


@asynccontextmanager
async def open_project_records(settings: Settings) -> AsyncIterator[Records]:
    """Opens the records of the server of a project; in memory if the journal is off."""
    from orchestra.server.open_records import open_records, records_place

    place = records_place(settings)
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
    async with open_records(place) as records:
        yield records


@asynccontextmanager
async def open_kept_records(settings: Settings) -> AsyncIterator[Records]:
    """Opens the records of the server of a project. Raises `InputError` S020 if the journal is off."""
    if reason := _unkept_reason(settings):
        raise InputError(
            "S020",
            f"{reason}: the server stores its keys only beside a journal",
            hint="let an identity provider issue tokens: orchestra serve --jwks URL --issuer URL --audience NAME",
        )
    async with open_project_records(settings) as records:
        yield records


def create(
    name: Annotated[str, typer.Argument(help="Whose key it is.", show_default=False)],
    tenant: TenantOption = "default",
    scopes: Annotated[
        str, typer.Option("--scopes", metavar="LIST", help="Of read, run, answer and admin.")
    ] = "read,run,answer",
    days: Annotated[
        float | None, typer.Option("--days", min=0, help="After how many days it expires.", show_default="never")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key. It is printed once: the server stores only a digest of it."""
    import time

    from orchestra.server.access import create_key
    from orchestra.server.principals import SCOPES

    scope_names = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    if unknown := [scope for scope in scope_names if scope not in SCOPES]:
        raise InputError("C010", f"there is no scope {unknown[0]!r}", hint=f"--scopes {','.join(SCOPES)}")
    expires = None if days is None else time.time() + days * 86_400

    async def make() -> tuple[Any, str]:
        async with open_kept_records(load_settings()) as records:
            return await create_key(
                records, name, tenant, tuple(scope for scope in SCOPES if scope in scope_names), expires
            )

    key, secret = asyncio.run(make())
    if as_json:
        print_json({"id": key.id, "name": name, "tenant": tenant, "scopes": key.scopes, "key": secret})
        return
    print_text(secret)
    print_note(f"the key {key.id} of {name}, tenant {tenant}, may {', '.join(key.scopes)}; it is not shown again")


def list_(as_json: JsonOption = False) -> None:
    """List the keys, without their secrets."""
    from orchestra.server.access import list_keys

    async def read() -> list[Any]:
        async with open_kept_records(load_settings()) as records:
            return await list_keys(records, None)

    keys = asyncio.run(read())
    if as_json:
        headings = ("id", "name", "tenant", "scopes", "created", "expires")
        print_json([{field: getattr(key, field) for field in headings} for key in keys])
        return
    rows = [
        (key.id, key.name, key.tenant, ",".join(key.scopes), _format_day(key.created), _format_day(key.expires))
        for key in keys
    ]
    print_table(("key", "name", "tenant", "scopes", "made", "expires"), rows)


def _format_day(at: float | None) -> str:
    return "never" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def revoke(
    key: Annotated[str, typer.Argument(help="The id of the key, or the key itself.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Revoke a key. Requests with it are refused from now on."""
    from orchestra.server.access import KEY

    name = "_".join(key.split("_")[:2])

    async def remove() -> bool:
        async with open_kept_records(load_settings()) as records:
            return await records.delete(KEY, name)

    if not asyncio.run(remove()):
        raise InputError("C004", f"there is no key {name!r}", hint="orchestra serve keys list")
    if as_json:
        print_json({"id": name, "revoked": True})
    else:
        print_text(f"{name} is revoked")
