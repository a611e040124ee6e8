"""A campaign: many hostile requests to one server, each reply audited, and the server looked at afterwards."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.server.hostile.attacks import all_attacks
from tests.server.hostile.audit import FAULTS_OF_THE_LOG, violations
from tests.server.hostile.exchange import Attack, send
from tests.server.hostile.generated import generate
from tests.server.hostile.target import Target, running
from tests.server.hostile.world import World, make_world, missing_things
from tests.server.servers import INPUTS

LANES = 12
"""Requests at the same time."""
GROWTH = 192 << 20
"""Bytes of memory that the server may use at most beyond those before the attacks."""


@dataclass
class Report:
    """What a campaign has shown."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    """Resident bytes before, and after each round."""
    peak: int = 0
    """Resident bytes at most."""

    def __str__(self) -> str:
        shown = ", ".join(f"{status or 'closed'}: {count}" for status, count in sorted(self.statuses.items()))
        before, *after = (str(value >> 20) for value in self.memory)
        return (
            f"{self.requests} requests ({shown}); memory {before} MiB before, {', '.join(after)} MiB after, "
            f"{self.peak >> 20} MiB at most; {len(self.faults)} faults"
        )


async def attack_server(folder: Path, count: int, number: int, max_growth: float | None = None) -> Report:
    """Sends so many hostile requests to a server in a folder: the written attacks, and generated requests.

    Args:
        folder: The folder of the server.
        count: The number of requests of a round.
        number: The seed.
        max_growth: With it there is a second round, in which the memory of the server may grow by this share of its
            growth in the first round. A server that keeps something of each request grows as much again.

    Returns:
        What was sent, and the faults.
    """
    report = Report()
    async with _canary() as connections:
        with running(folder, head_seconds=2.0, body_seconds=1.0) as target:
            world = await asyncio.to_thread(make_world, target)
            report.memory.append(target.memory())
            for round_number in range(1 if max_growth is None else 2):
                chosen = choose(world, connections.port, count, number + round_number)
                await _send_all(target, chosen, report)
                report.faults += await asyncio.to_thread(_aftermath, target, world)
                report.memory.append(target.memory())
            report.peak, log = target.memory("VmHWM"), target.log
    report.faults += [f"the log: {line}" for line in log.splitlines() if any(one in line for one in FAULTS_OF_THE_LOG)]
    if connections.count:
        report.faults.append(f"{connections.count} webhooks were sent to this machine")
    report.faults += memory_faults(report.memory, report.peak, max_growth)
    return report


def memory_faults(memory: Sequence[int], peak: int, max_growth: float | None) -> Iterator[str]:
    """Yields what is wrong with the resident bytes of a server before the first round, and after each."""
    if peak - memory[0] > GROWTH:
        yield "the server's memory grew too much"
    if max_growth is not None:
        first, second = memory[1] - memory[0], memory[2] - memory[1]
        if second > max_growth * first:
            yield f"the server's memory grew by {first >> 20} MiB in the first round, {second >> 20} MiB in the second"


def choose(world: World, canary_port: int, count: int, number: int) -> list[Attack]:
    """Returns the attacks of a campaign: half of them written, from each kind the same share, and half generated."""
    chance, written = random.Random(number), list[Attack]()
    kinds = {kind: chance.sample(attacks, len(attacks)) for kind, attacks in all_attacks(world, canary_port).items()}
    while len(written) < count // 2 and any(kinds.values()):
        written += [attacks.pop() for attacks in kinds.values() if attacks]
    chosen = [*written, *generate(world, count - len(written), number)]
    chance.shuffle(chosen)
    return chosen[:count]


async def _send_all(target: Target, attacks: Sequence[Attack], report: Report) -> None:
    """Sends requests, some at the same time, and audits each reply."""
    waiting = iter(attacks)

    async def lane() -> None:
        for attack in waiting:
            try:
                reply = await send(target.port, attack)
            except (TimeoutError, OSError) as error:
                report.faults.append(f"{attack.name}: {type(error).__name__} {error}: {attack.data[:300]!r}")
                continue
            report.requests += 1
            report.statuses[reply.status] += 1
            report.faults += [
                f"{attack.name}: {fault}: {attack.data[:300]!r}"
                for fault in violations(attack, reply, str(target.folder))
            ]

    async with asyncio.TaskGroup() as group:
        for _ in range(LANES):
            group.create_task(lane())


def _aftermath(target: Target, world: World) -> Iterable[str]:
    """Returns what is wrong with the server after the attacks."""
    if target.process.poll() is not None:
        return ["the server has ended"]
    with httpx.Client(base_url=world.url, headers=world.attacker.headers, timeout=60) as client:
        ready = client.get("/readyz")
        run = client.post("/api/runs", json={"workflow": "answer", "inputs": INPUTS})
    faults = [] if ready.status_code == 200 else [f"the server is not ready: {ready.text}"]
    if run.status_code != 200 or run.json()["status"] != "done":
        faults.append(f"a run does not work any more: {run.text[:300]}")
    return faults + missing_things(world)


@dataclass
class Canary:
    """A port of this machine to which no webhook may connect."""

    port: int
    count: int = 0


@asynccontextmanager
async def _canary() -> AsyncIterator[Canary]:
    canary = Canary(0)

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        canary.count += 1
        writer.close()

    async with await asyncio.start_server(connected, "localhost", 0) as server:
        canary.port = server.sockets[0].getsockname()[1]
        yield canary
