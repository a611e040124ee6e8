"""What tenants keep on the server, as typed records: reading, listing and changing them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Generic, TypeVar

import msgspec

from orchestra.server.endpoints import Page, PageQuery
from orchestra.server.problems import RequestError, not_found
from orchestra.server.records import Record, Records, new_id

R = TypeVar("R")
T = TypeVar("T", bound=msgspec.Struct)
MAX_TRIES = 50
"""Writers that may be faster, one after the other."""
SCAN_SIZE = 200
"""Records that a scan reads at a time."""


class Stored(msgspec.Struct, Generic[T], frozen=True):
    """A record and its value."""

    record: Record
    value: T


class SharedRead(Generic[R]):
    """A read that concurrent callers share: each gets the result of one that began after its call."""

    def __init__(self, read: Callable[[], Awaitable[R]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[R] | None = None
        """The read that waits for the end of the current one."""

    async def get(self) -> R:
        """Returns what is there now. Raises as the read does."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._run())
        return await asyncio.shield(self._next)

    async def _run(self) -> R:
        async with self._lock:
            self._next = None
            return await self._read()


class Collection(Generic[T]):
    """The records of one kind.

    Args:
        records: The store.
        kind: The kind.
        prefix: How the ids of new records begin.
        type: The type of the values.
        due: Returns when something must be done about a value (`all_due`); None for a kind without such times.
    """

    def __init__(
        self,
        records: Records,
        kind: str,
        prefix: str,
        type: type[T],
        due: Callable[[T], float | None] | None = None,
    ) -> None:
        self._records, self.kind, self._prefix = records, kind, prefix
        self._decoder = msgspec.json.Decoder(type)
        self._due = due

    def _stored(self, record: Record) -> Stored[T]:
        return Stored(record, self._decoder.decode(record.data))

    def _due_time(self, value: T) -> float | None:
        return None if self._due is None else self._due(value)

    def new_id(self) -> str:
        """Returns an id for a new record."""
        return new_id(self._prefix)

    async def add(self, id: str, tenant: str, value: T) -> Stored[T] | None:
        """Adds a record; None if the id is taken."""
        record = await self._records.add(self.kind, id, tenant, msgspec.json.encode(value), self._due_time(value))
        return None if record is None else Stored(record, value)

    async def get(self, id: str) -> Stored[T] | None:
        """Returns a record of any tenant, or None."""
        record = await self._records.get(self.kind, id)
        return None if record is None else self._stored(record)

    async def require(self, id: str, tenant: str | None) -> Stored[T]:
        """Returns a record of a tenant (None for any). Raises `RequestError` S009 for any other."""
        item = await self.get(id)
        if item is None or tenant not in (None, item.record.tenant):
            raise not_found(self.kind, id[:100])
        return item

    async def all(self, tenant: str | None = None) -> list[Stored[T]]:
        """Returns all records of a tenant, or of all, newest first."""
        return [self._stored(record) for record in await self._records.list(self.kind, tenant)]

    async def all_due(self, now: float, limit: int) -> list[Stored[T]]:
        """Returns the records of all tenants that are due at a time, the longest due first."""
        return [self._stored(record) for record in await self._records.list_due(self.kind, now, limit)]

    async def scan(self, tenant: str | None = None, cursor: str = "") -> AsyncGenerator[Stored[T], None]:
        """Yields the records of a tenant, or of all, newest first, without holding all of them in memory; those after
        a cursor. Raises `RequestError` S002 for an unknown cursor.
        """
        before = await self._position(tenant, cursor)
        while page := await self._records.list(self.kind, tenant, SCAN_SIZE, before):
            for record in page:
                yield self._stored(record)
            before = (page[-1].created, page[-1].id)

    async def _position(self, tenant: str | None, cursor: str) -> tuple[float, str] | None:
        """Returns the place of a cursor, which is the id of the last record of a page."""
        if not cursor:
            return None
        last = await self._records.get(self.kind, cursor)
        if last is None or tenant not in (None, last.tenant):
            raise RequestError("S002", "the cursor is unknown", hint="start without one", pointer="cursor")
        return last.created, last.id

    async def page(self, tenant: str | None, query: PageQuery, show: Callable[[Stored[T]], Any]) -> Page[Any]:
        """Returns a page of a tenant's records. Raises `RequestError` S002 for an unknown cursor."""
        before = await self._position(tenant, query.cursor)
        records = await self._records.list(self.kind, tenant, query.limit + 1, before)
        items = [self._stored(record) for record in records[: query.limit]]
        more = len(records) > query.limit
        return Page(items=tuple(map(show, items)), next=items[-1].record.id if more else None)

    async def change(self, id: str, change: Callable[[T], T | None]) -> T | None:
        """Replaces a value by what `change` returns, also if others change it at the same time. None if it returns
        None, or there is no such record.
        """
        for _ in range(MAX_TRIES):
            item = await self.get(id)
            value = None if item is None else change(item.value)
            if item is None or value is None:
                return None
            if await self.replace(item, value):
                return value
        raise RequestError("S010", f"{self.kind} {id} is changed by others all the time", hint="try again")

    async def replace(self, stored: Stored[T], value: T) -> bool:
        """Replaces a value, unless another writer was first; returns whether it did."""
        data, due = msgspec.json.encode(value), self._due_time(value)
        return await self._records.replace(stored.record, data, due) is not None

    async def delete(self, id: str) -> bool:
        """Deletes a record; returns whether it was there."""
        return await self._records.delete(self.kind, id)
