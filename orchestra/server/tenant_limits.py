"""The limits of tenants: what each may spend in a day and in a month, how many runs it may have at once, and how many
requests it may send. They are settings of the server, or a file in TOML.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from orchestra.core.errors import InputError

ANY_TENANT: Final = "*"
"""The name for all tenants that have no limits of their own."""
DEFAULT_SHARE: Final = 10
"""A run without a limit of its own reserves this fraction of the smallest budget: a tenth."""
Count: TypeAlias = Annotated[int, Meta(gt=0)]
Money: TypeAlias = Annotated[float, Meta(gt=0)]
_EXAMPLE = "[tenants.acme]\nrequests_per_minute = 600\nday = {tokens = 1000000}\nrun = {tokens = 20000}"


class SpendingLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What may be spent; None for no limit. `tokens` are those of prompts and outputs together, `money` is in the
    currency of the fleet's prices.
    """

    tokens: Count | None = None
    calls: Count | None = None
    money: Money | None = None

    def get(self, name: str) -> float | None:
        """Returns the limit of this name."""
        limit: float | None = getattr(self, name)
        return limit


NO_SPENDING_LIMITS: Final = SpendingLimits()


class TenantLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The limits of a tenant; None for no limit."""

    requests_per_minute: Count | None = None
    """Requests in any minute, counted by each server process."""
    concurrent_runs: Count | None = None
    """Runs that have started and not ended. Runs that wait for a person do not count."""
    day: SpendingLimits = NO_SPENDING_LIMITS
    """Of the runs that start in a day, in UTC."""
    month: SpendingLimits = NO_SPENDING_LIMITS
    """Of the runs that start in a month, in UTC."""
    run: SpendingLimits = NO_SPENDING_LIMITS
    """Of one run, and what a run reserves that states no limit of its own. By default a tenth of the smallest budget
    of day and month.
    """

    def reservation(self, name: str, stated: float | None) -> float | None:
        """Returns what a run reserves that states this limit of its own; None if nothing is limited."""
        limits = [limit for limit in (self.run.get(name), stated) if limit is not None]
        if limits:
            return min(limits)
        periods = [limit for period in (self.day, self.month) if (limit := period.get(name)) is not None]
        if not periods:
            return None
        share = min(periods) / DEFAULT_SHARE
        return share if name == "money" else max(1, int(share))

    @property
    def limits_runs(self) -> bool:
        """Whether runs are limited, and not only requests."""
        unlimited = self.day == self.month == self.run == NO_SPENDING_LIMITS
        return self.concurrent_runs is not None or not unlimited


LimitsByTenant: TypeAlias = Mapping[str, TenantLimits]


class _LimitsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tenants: dict[str, TenantLimits] = {}


def read_tenant_limits(path: Path) -> LimitsByTenant:
    """Returns the limits in a file. Raises `InputError` S023 if it cannot be read, or is not valid."""
    try:
        limits_file = msgspec.convert(tomllib.loads(path.read_text("utf-8")), _LimitsFile)
    except (OSError, ValueError, RecursionError) as error:  # ValueError: TOML, UTF-8, and values of other types
        raise InputError("S023", f"the limits of tenants in {path}: {error}", hint=_EXAMPLE) from error
    return limits_file.tenants
