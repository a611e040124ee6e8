"""The route that shows a tenant its limits, and what it has spent."""

from __future__ import annotations

import time

import msgspec

from orchestra.server.endpoints import Call, RouteTable
from orchestra.server.tenant_budgets import AMOUNTS, PERIODS, Amounts, Period, period_bounds
from orchestra.server.tenant_limits import TenantLimits

ROUTES = RouteTable()
NO_LIMITS = TenantLimits()


class PeriodUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What the runs that started in a period have spent."""

    start: float
    end: float
    """When the next period begins, in seconds since the epoch."""
    spent: Amounts
    reserved: Amounts
    """What runs in progress have reserved, and may still spend."""
    available: dict[str, float]
    """What can still be reserved, where there is a limit."""


class TenantUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a tenant, and what it has spent."""

    tenant: str
    limits: TenantLimits
    """A limit that is null does not exist."""
    runs: int
    """Runs that have started and not ended, with those that wait for a person."""
    day: PeriodUsage
    month: PeriodUsage


@ROUTES.route("GET", "/api/usage", "read", TenantUsage)
async def get_usage(call: Call) -> TenantUsage:
    """Show the limits of the tenant, and what it has spent and reserved today and in this month."""
    tenant, now = call.principal.tenant, time.time()
    limits = call.services.budgets.limits_of(tenant) or NO_LIMITS
    account = await call.services.budgets.account(tenant)

    def usage(period: Period) -> PeriodUsage:
        start, end = period_bounds(period, now)
        spent, reserved = account.spent(period), account.reserved_in(period)
        limit_values = {name: getattr(limits, period).get(name) for name in AMOUNTS}
        return PeriodUsage(
            start=start,
            end=end,
            spent=spent,
            reserved=reserved,
            available={
                name: max(0, limit - spent.get(name) - reserved.get(name))
                for name, limit in limit_values.items()
                if limit is not None
            },
        )

    day, month = (usage(period) for period in PERIODS)
    return TenantUsage(tenant=tenant, limits=limits, runs=len(account.reserved), day=day, month=month)
