"""The routes about the server itself: who asks, whether it is ready, and what an error code means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from starlette.responses import Response

from orchestra.core.errors import OrchestraError
from orchestra.server.endpoints import JSON_TYPE, Call, RouteTable
from orchestra.server.openapi import package_version
from orchestra.server.problems import RequestError, explanations
from orchestra.server.services import Services
from orchestra.server.tenant_budgets import REFUSAL_KINDS

if TYPE_CHECKING:
    from orchestra.telemetry.exposition import Gauge

ROUTES = RouteTable()


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The server, and who asks."""

    name: str
    version: str
    auth: Literal["off", "required"]
    tenant: str
    scopes: tuple[str, ...]
    subject: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the process works."""

    status: str


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests may be sent here. `checks` has `ok` or a reason for each part."""

    status: Literal["ready", "draining", "unavailable"]
    checks: dict[str, str]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What an error code means."""

    code: str
    title: str
    text: str


@ROUTES.route("GET", "/api", "read", ServerInfo)
async def get_server(call: Call) -> ServerInfo:
    """Show the version of the server, and the tenant and the scopes of the credential."""
    principal = call.principal
    return ServerInfo(
        name="orchestra",
        version=package_version(),
        auth="required" if call.services.settings.auth else "off",
        tenant=principal.tenant,
        scopes=tuple(sorted(principal.scopes)),
        subject=principal.subject,
    )


@ROUTES.route("GET", "/healthz", None, Health)
async def get_health(call: Call) -> Health:
    """Answer, if the process works."""
    return Health(status="ok")


@ROUTES.route("GET", "/readyz", None, Readiness)
async def get_readiness(call: Call) -> Response:
    """Show whether requests may be sent here: the journal can be written, and the fleet can serve."""
    checks = {"journal": "ok", "fleet": "ok"}
    try:
        await call.orchestra.journal.check_writable()
    except OrchestraError as error:
        checks["journal"] = error.code
    try:
        missing = (await call.orchestra.fleet_status()).missing
        if missing:
            checks["fleet"] = f"no server for {len(missing)} models"
    except OrchestraError as error:
        checks["fleet"] = error.code
    status: Literal["ready", "draining", "unavailable"] = "ready" if checks["journal"] == "ok" else "unavailable"
    if call.services.draining.is_set():
        status = "draining"
    ready = Readiness(status=status, checks=checks)
    return Response(msgspec.json.encode(ready), 200 if status == "ready" else 503, media_type=JSON_TYPE)


@ROUTES.route("GET", "/metrics", "admin", media_type="text/plain")
async def get_metrics(call: Call) -> Response:
    """Show counters of runs, calls, tokens and verdicts, and the state of fleet and journal, for Prometheus."""
    from orchestra.telemetry.exposition import CONTENT_TYPE, render_metrics

    text = await render_metrics(call.services.metrics, call.orchestra, await _tenant_gauges(call.services))
    return Response(text, headers={"Content-Type": CONTENT_TYPE})


async def _tenant_gauges(services: Services) -> list[Gauge]:
    """Returns what the limits of tenants do, without names of tenants."""
    from orchestra.telemetry.exposition import Gauge

    if not services.settings.tenants:
        return []
    shares = await services.budgets.largest_shares()
    return [
        Gauge(
            "orchestra_tenant_refusals",
            "Requests that this process refused because of a limit of their tenant, by the kind of the limit.",
            ("limit",),
            {(kind,): services.budgets.refusals[kind] for kind in REFUSAL_KINDS},
        ),
        Gauge(
            "orchestra_tenant_budget_used_ratio",
            "The part of a budget that is spent or reserved, of the tenant that has used the largest part.",
            ("period", "amount"),
            shares,
        ),
    ]


@ROUTES.route("GET", "/api/errors/{code}", None, Explanation)
async def explain_error(call: Call) -> Explanation:
    """Explain an error code."""
    explanation = explanations().get(call.path["code"].upper())
    if explanation is None:
        raise RequestError("S009", f"there is no error code {call.path['code'][:20]!r}", hint="E012")
    return Explanation(code=explanation.code, title=explanation.title, text=explanation.text)
