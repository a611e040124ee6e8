"""Budgets of tenants: a run reserves what it may spend before it starts, and is charged what it has spent at its end.

The account of a tenant is a record, which all processes with the same journal share. It is made from the journal: it
counts the runs of the month, also those before there was a limit. What a process that dies did not charge is charged
later, from the journal. The run gets its reservation as its budget, so that it cannot spend more.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias, get_args

import msgspec

from orchestra.app.orchestra import Orchestra
from orchestra.app.run_queries import query_usages
from orchestra.core.errors import OrchestraError
from orchestra.core.events import Event, RunFinished, RunStarted, Usage
from orchestra.core.protocols import RunSelection
from orchestra.engine.request import RunOptions
from orchestra.server.principals import TENANT_TAG
from orchestra.server.problems import RequestError
from orchestra.server.records import Record, Records, new_id
from orchestra.server.tenant_limits import ANY_TENANT, LimitsByTenant, TenantLimits
from orchestra.workflows.model import Budget

Period: TypeAlias = Literal["day", "month"]
PERIODS: tuple[Period, ...] = get_args(Period)
AMOUNTS: Final = ("tokens", "calls", "money")
RESERVATION_TAG: Final = "orchestra.reservation"
"""Names the reservation from which a run without one of its own spends."""
START_SECONDS: Final = 900.0
"""Seconds after which a reservation whose run does not exist belongs to a process that has died."""
RETRY_SECONDS: Final = 5
"""`Retry-After` of a request that has to wait for runs in progress."""
MINUTE: Final = 60.0
_REFUSAL_KINDS: Final = {"S022": "runs", "S024": "budget"}
REFUSAL_KINDS: Final = ("requests", *_REFUSAL_KINDS.values())


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """What is spent or reserved."""

    tokens: int = 0
    calls: int = 0
    money: float = 0.0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            tokens=self.tokens + other.tokens, calls=self.calls + other.calls, money=self.money + other.money
        )

    @classmethod
    def of(cls, usage: Usage) -> Amounts:
        """Returns what calls have spent."""
        return cls(tokens=usage.prompt_tokens + usage.output_tokens, calls=usage.calls, money=usage.money)

    def get(self, name: str) -> float:
        """Returns the amount of this name."""
        amount: float = getattr(self, name)
        return amount


NOTHING: Final = Amounts()
ACCOUNT: Final = "account"
"""The kind of the records of accounts."""


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """What a run may still spend."""

    at: float
    amounts: Amounts


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The account of a tenant: what its ended runs have spent, and what the others have reserved, by run."""

    day: str
    month: str
    spent_day: Amounts = NOTHING
    spent_month: Amounts = NOTHING
    reserved: dict[str, Reservation] = {}

    def at(self, now: float) -> Account:
        """Returns the account at a time: a new day and a new month begin with nothing spent."""
        day, month = period_name("day", now), period_name("month", now)
        if (day, month) == (self.day, self.month):
            return self
        return msgspec.structs.replace(
            self,
            day=day,
            month=month,
            spent_day=NOTHING,
            spent_month=self.spent_month if month == self.month else NOTHING,
        )

    def spent(self, period: Period) -> Amounts:
        """Returns what the ended runs of a period have spent."""
        return self.spent_day if period == "day" else self.spent_month

    def reserved_in(self, period: Period) -> Amounts:
        """Returns what the other runs of a period have reserved."""
        name = self.day if period == "day" else self.month
        return sum_amounts(
            reservation.amounts for reservation in self.reserved.values() if period_name(period, reservation.at) == name
        )

    def reserve(self, run: str, amounts: Amounts, now: float) -> Account:
        """Returns the account with a further reservation."""
        return msgspec.structs.replace(self, reserved={**self.reserved, run: Reservation(at=now, amounts=amounts)})

    def charge(self, run: str, spent: Amounts) -> Account | None:
        """Returns the account with what a run has spent in place of its reservation; None if it has none."""
        if (reservation := self.reserved.get(run)) is None:
            return None
        of_day = period_name("day", reservation.at) == self.day
        of_month = period_name("month", reservation.at) == self.month
        return msgspec.structs.replace(
            self,
            spent_day=self.spent_day + spent if of_day else self.spent_day,
            spent_month=self.spent_month + spent if of_month else self.spent_month,
            reserved={name: other_reservation for name, other_reservation in self.reserved.items() if name != run},
        )


decode_account = msgspec.json.Decoder(Account).decode
"""Decodes a stored account."""


def sum_amounts(amounts: Iterable[Amounts]) -> Amounts:
    """Returns the sum of amounts."""
    return sum(amounts, NOTHING)


def period_name(period: Period, at: float) -> str:
    """Returns the name of the day or the month of a time, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d" if period == "day" else "%Y-%m")


def period_bounds(period: Period, at: float) -> tuple[float, float]:
    """Returns the start and the end of the day or the month of a time, in UTC."""
    start = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return start.timestamp(), (start + timedelta(days=1)).timestamp()
    start = start.replace(day=1)
    return start.timestamp(), (start + timedelta(days=32)).replace(day=1).timestamp()


class Shortage(NamedTuple):
    """A budget that does not suffice."""

    name: str
    period: Period
    limit: float
    unspent: float
    reserved: float

    @property
    def available(self) -> float:
        """What can be reserved."""
        return self.unspent - self.reserved

    @property
    def is_spent(self) -> bool:
        """Whether the budget is spent."""
        return self.unspent <= 0

    @property
    def is_held(self) -> bool:
        """Whether runs in progress hold a part of what is missing."""
        return self.reserved > 0

    def text(self, wanted: Amounts) -> str:
        """Returns a message for the tenant."""
        return (
            f"the tenant's budget of {self.limit:,g} {self.name} for a {self.period} does not suffice: "
            f"{max(0, self.available):,g} are left, and the run may spend {wanted.get(self.name):,g}"
        )


def shortages(account: Account, limits: TenantLimits, wanted: Amounts) -> list[Shortage]:
    """Returns the budgets that do not suffice for an amount."""
    budget_shortages = list[Shortage]()
    for period in PERIODS:
        for name in AMOUNTS:
            if (limit := getattr(limits, period).get(name)) is None:
                continue
            unspent = limit - account.spent(period).get(name)
            shortage = Shortage(name, period, limit, unspent, account.reserved_in(period).get(name))
            if shortage.available < wanted.get(name) or shortage.available <= 0:
                budget_shortages.append(shortage)
    return budget_shortages


class Spawner(Protocol):
    """Starts work in the background."""

    def __call__(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]: ...


class TenantBudgets:
    """The limits of all tenants, and their accounts."""

    def __init__(self, orchestra: Orchestra, records: Records, limits: LimitsByTenant, spawn: Spawner) -> None:
        self._orchestra, self._limits, self._spawn = orchestra, limits, spawn
        self._records = records
        self._locks: dict[str, asyncio.Lock] = {}
        """One writer of an account in this process at a time: others would only have to repeat their work."""
        self._starting: Counter[str] = Counter()
        """The requests of this process by the reservation whose run they start."""
        self._tenants: dict[str, tuple[str, str]] = {}
        """The tenant and the shared reservation of each run in progress here."""
        self._shared: dict[str, Amounts] = {}
        """What the ended runs of a shared reservation have spent."""
        self._requests: dict[str, deque[float]] = {}
        self.refusals: Counter[str] = Counter()
        """Refused requests by the kind of the limit."""
        if limits:
            orchestra.observe(self._observe, self._restore)

    def limits_of(self, tenant: str) -> TenantLimits | None:
        """Returns the limits of a tenant; None without any."""
        return self._limits.get(tenant, self._limits.get(ANY_TENANT))

    # Requests

    def count_request(self, tenant: str, now: float) -> None:
        """Counts a request. Raises `RequestError` S021 if the last minute has as many as allowed."""
        limits = self.limits_of(tenant)
        if limits is None or (most := limits.requests_per_minute) is None:
            return
        times = self._requests.setdefault(tenant, deque(maxlen=most))
        if len(times) == most and now - times[0] < MINUTE:
            self.refusals["requests"] += 1
            hint = "repeat the request after the seconds in Retry-After"
            raise _refusal("S021", f"the tenant has sent {most:,} requests in a minute", hint, times[0] + MINUTE - now)
        times.append(now)

    # Runs

    @asynccontextmanager
    async def reserve(self, options: RunOptions, own: Budget | None) -> AsyncIterator[RunOptions]:
        """Reserves what a run may spend, and yields its options with that budget. The reservation is undone if the run
        does not start.

        Args:
            options: The options of the run, with the tag of its tenant.
            own: The budget of its workflow.

        Raises:
            RequestError: S022 if too many runs are in progress; S024 if the budget does not suffice.
        """
        tenant = (options.tags or {}).get(TENANT_TAG, "")
        limits = self.limits_of(tenant)
        if limits is None or not limits.limits_runs:
            yield options
            return
        if not options.run_id:
            options = options.replace(idempotency_key=f"{tenant}/{new_id('run')}")  # The id is known before the start.
        run = options.run_id
        if await self._orchestra.journal.summary(run) is not None:
            yield options  # A repeated request: the run has its reservation, or has ended.
            return
        self._starting[run] += 1
        try:
            amounts = await self._reserve(tenant, limits, run, options.budget, own)
            try:
                yield options.replace(budget=granted_budget(options.budget, limits, amounts))
            except BaseException:
                await self._release(tenant, run)
                raise
        finally:
            self._forget_start(run)

    def _forget_start(self, run: str) -> None:
        self._starting[run] -= 1
        self._starting += Counter()  # Drops those with none.

    async def _release(self, tenant: str, run: str) -> None:
        """Undoes a reservation, unless its run exists, or another request starts it."""
        if self._starting[run] == 1 and await self._orchestra.journal.summary(run) is None:
            await self._charge(tenant, run, NOTHING)

    @asynccontextmanager
    async def share(self, options: RunOptions) -> AsyncIterator[RunOptions]:
        """Reserves once for several runs, and yields their options. Each of them may spend as much as is reserved.
        Raises as `reserve` does.
        """
        tenant = (options.tags or {}).get(TENANT_TAG, "")
        limits = self.limits_of(tenant)
        if limits is None or not limits.limits_runs:
            yield options
            return
        name = new_id("shared")
        self._shared[name] = NOTHING
        try:
            amounts = await self._reserve(tenant, limits, name, options.budget, None)
            tags = {**(options.tags or {}), RESERVATION_TAG: name}
            yield options.replace(budget=granted_budget(options.budget, limits, amounts), tags=tags)
        finally:
            await self._charge(tenant, name, self._shared.pop(name))

    async def _reserve(
        self, tenant: str, limits: TenantLimits, run: str, stated_budget: Budget | None, own: Budget | None
    ) -> Amounts:
        """Reserves for a run; returns the amounts, 0 where nothing is limited."""
        budget = own if stated_budget is None else stated_budget.with_defaults(own)
        reservations = {name: limits.reservation(name, getattr(budget, name, None)) or 0 for name in AMOUNTS}
        async with self._lock(tenant):
            try:
                return await self._try_reserve(tenant, limits, run, amounts_of(reservations), ())
            except RequestError:
                waiting = await self._settle(tenant)
            try:
                return await self._try_reserve(tenant, limits, run, amounts_of(reservations), waiting)
            except RequestError as error:
                self.refusals[_REFUSAL_KINDS[error.code]] += 1
                raise

    async def _try_reserve(
        self, tenant: str, limits: TenantLimits, run: str, amounts: Amounts, waiting: Collection[str]
    ) -> Amounts:
        granted = NOTHING

        def change(account: Account, now: float) -> Account:
            nonlocal granted
            granted = grant(account, limits, amounts, now, waiting)
            return account.reserve(run, granted, now)

        await self._change(tenant, change)
        return granted

    # Accounts

    def _lock(self, tenant: str) -> asyncio.Lock:
        return self._locks.setdefault(tenant, asyncio.Lock())

    async def _read(self, tenant: str) -> Record:
        """Returns the record of a tenant's account, which is made from the journal if there is none."""
        while (record := await self._records.get(ACCOUNT, tenant)) is None:
            account = await self._recorded_account(tenant)
            await self._records.add(ACCOUNT, tenant, tenant, msgspec.json.encode(account))
        return record

    async def _change(self, tenant: str, change: Callable[[Account, float], Account | None]) -> None:
        """Replaces the account of a tenant by what `change` returns for it and the time, also if other processes change
        it at the same time; None changes nothing.
        """
        replaced: Record | None = None
        while replaced is None:
            record, now = await self._read(tenant), time.time()
            if (account := change(decode_account(record.data).at(now), now)) is None:
                return
            replaced = await self._records.replace(record, msgspec.json.encode(account))

    async def _recorded_account(self, tenant: str) -> Account:
        """Returns the account of a tenant as the journal has it."""
        now = time.time()
        account = Account(day=period_name("day", now), month=period_name("month", now))
        selection = RunSelection(tags={TENANT_TAG: tenant}, since=period_bounds("month", now)[0])
        async for usage_row in query_usages(self._orchestra.journal, selection):
            if usage_row.usage is None:
                continue
            spent = Amounts.of(sum((calls.usage for calls in usage_row.usage.calls), Usage()))
            if usage_row.usage.status:
                account = account.reserve(usage_row.run, NOTHING, usage_row.started)
                account = account.charge(usage_row.run, spent) or account
            elif RESERVATION_TAG not in usage_row.usage.tags:
                account = account.reserve(usage_row.run, spent, usage_row.started)
        return account

    async def _charge(self, tenant: str, run: str, spent: Amounts) -> None:
        await self._change(tenant, lambda account, _: account.charge(run, spent))

    async def _settle(self, tenant: str) -> Collection[str]:
        """Charges the runs that have ended elsewhere, and releases the reservations of processes that have died.
        Returns the runs that wait for a person.
        """
        account, waiting = decode_account((await self._read(tenant)).data), set[str]()
        for run, reservation in account.reserved.items():
            if self._starting[run] or run in self._shared:
                continue
            summary = await self._orchestra.journal.summary(run)
            if summary is not None and summary.finished is not None:
                await self._charge(tenant, run, Amounts.of(summary.usage))
            elif summary is not None and summary.status == "waiting":
                waiting.add(run)
            elif summary is None and time.time() - reservation.at > START_SECONDS:
                await self._charge(tenant, run, await self._shared_usage(tenant, run))
        return waiting

    async def _shared_usage(self, tenant: str, reservation: str) -> Amounts:
        """Returns what the runs of a shared reservation have spent."""
        selection = RunSelection(tags={TENANT_TAG: tenant, RESERVATION_TAG: reservation})
        usages = [
            usage_row.usage
            async for usage_row in query_usages(self._orchestra.journal, selection)
            if usage_row.usage is not None
        ]
        return sum_amounts(Amounts.of(calls.usage) for usage in usages for calls in usage.calls)

    async def account(self, tenant: str) -> Account:
        """Returns the account of a tenant now."""
        limits = self.limits_of(tenant)
        if limits is None or not limits.limits_runs:
            return await self._recorded_account(tenant)
        async with self._lock(tenant):
            await self._settle(tenant)
            return decode_account((await self._read(tenant)).data).at(time.time())

    async def largest_shares(self) -> dict[tuple[str, ...], float]:
        """Returns the largest part that any tenant has used of a budget, by the period and the name of the amount."""
        shares = dict[tuple[str, ...], float]()
        now = time.time()
        for record in await self._records.list(ACCOUNT, None):
            if (limits := self.limits_of(record.tenant)) is None:
                continue
            account = decode_account(record.data).at(now)
            for period in PERIODS:
                amounts = account.spent(period) + account.reserved_in(period)
                for name in AMOUNTS:
                    if (limit := getattr(limits, period).get(name)) is not None:
                        shares[period, name] = max(shares.get((period, name), 0.0), amounts.get(name) / limit)
        return shares

    # Events

    def _restore(self, run: str, events: Sequence[Event]) -> None:
        for event in events:
            self._observe(run, event)

    def _observe(self, run: str, event: Event) -> None:
        match event:
            case RunStarted():
                tenant = event.tags.get(TENANT_TAG, "")
                limits = self.limits_of(tenant)
                if tenant and limits is not None and limits.limits_runs:
                    self._tenants[run] = tenant, event.tags.get(RESERVATION_TAG, "")
            case RunFinished() if run in self._tenants:
                tenant, shared = self._tenants.pop(run)
                spent = Amounts.of(event.usage)
                if shared in self._shared:
                    self._shared[shared] += spent
                elif not shared:
                    self._spawn(self._charge_ended(tenant, run, spent))
            case _:
                pass

    async def _charge_ended(self, tenant: str, run: str, spent: Amounts) -> None:
        try:
            async with self._lock(tenant):
                await self._charge(tenant, run, spent)
        except OrchestraError:
            return  # The records cannot be written now. `_settle` charges the run later.


def granted_budget(stated: Budget | None, limits: TenantLimits, granted: Amounts) -> Budget | None:
    """Returns the budget of a run: what it states, with what it has reserved where the tenant is limited."""
    names = [name for name in AMOUNTS if limits.reservation(name, None) is not None]
    amounts = {name: granted.get(name) for name in names}
    return Budget(**amounts).with_defaults(stated) if amounts else stated  # type: ignore[arg-type]  # by name


def grant(account: Account, limits: TenantLimits, wanted: Amounts, now: float, waiting: Collection[str]) -> Amounts:
    """Returns what a run gets: what it wants, or the rest of the budget if no other run holds a part of it.

    Args:
        account: The account of the tenant.
        limits: Its limits.
        wanted: What the run wants to reserve.
        now: The time.
        waiting: Runs that wait for a person, which do not count as runs in progress.

    Raises:
        RequestError: S022, S024.
    """
    active = sum(run not in waiting for run in account.reserved)
    if (most := limits.concurrent_runs) is not None and active >= most:
        hint = "repeat the request once one of them has ended"
        raise _refusal("S022", f"the tenant has {most:,} runs in progress", hint, RETRY_SECONDS)
    short = shortages(account, limits, wanted)
    if (spent_shortage := next((shortage for shortage in short if shortage.is_spent), None)) is not None:
        ends = max(period_bounds(shortage.period, now)[1] for shortage in short if shortage.is_spent)
        hint = f"wait until {datetime.fromtimestamp(ends, UTC):%Y-%m-%d %H:%M} UTC, or raise the budget"
        raise _refusal("S024", spent_shortage.text(wanted), hint, ends - now, status=402)
    if (spent_shortage := next((shortage for shortage in short if shortage.is_held), None)) is not None:
        hint = f"wait for the runs in progress, or state a smaller budget: options.budget.{spent_shortage.name}"
        raise _refusal("S024", spent_shortage.text(wanted), hint, RETRY_SECONDS)
    rest = {shortage.name: shortage.available for shortage in sorted(short, key=lambda shortage: -shortage.available)}
    return amounts_of({name: wanted.get(name) for name in AMOUNTS} | rest)


def amounts_of(found: Mapping[str, float]) -> Amounts:
    """Returns amounts by name."""
    return Amounts(tokens=int(found["tokens"]), calls=int(found["calls"]), money=found["money"])


def _refusal(code: str, message: str, hint: str, seconds: float, *, status: int = 429) -> RequestError:
    headers = {"Retry-After": str(max(1, math.ceil(seconds)))}
    return RequestError(code, message, hint=hint, status=status, headers=headers)


def must_wait(error: OrchestraError) -> bool:
    """Whether a run was refused that can start once others have ended."""
    return isinstance(error, RequestError) and error.status == 429
