"""The crash matrix: for each point one process that is killed there, one that is killed during recovery, and one that
completes the work.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal

import msgspec

from orchestra.journal.sqlite.journal import SqliteJournal
from tests.crash.audit import audit
from tests.crash.child import OVER, WAITING, Answers, Child, Scene, bring_letters
from tests.crash.points import Kill
from tests.crash.stores import Place, fresh

PATIENCE = 60.0
"""Seconds after which a process counts as hanging."""
EVER = 1_000_000
"""Upper limit of points; no run of the matrix reaches it."""
MOST = 12
"""Maximum number of processes of one point: two are killed; the others exist because questions are answered between
processes.
"""


class Store(msgspec.Struct, frozen=True):
    """A kind of journal under test: approximate number of points in a run and in its recovery, and approximate
    seconds.
    """

    name: Literal["sqlite", "postgres"]
    points: int
    recovery: int
    seconds: float
    late: float
    """Share of the kills that the parent sends, shortly after a point or after the start."""
    template: str = ""
    dsn: str = ""
    schema: str = ""


SQLITE = Store("sqlite", points=1381, recovery=600, seconds=0.15, late=0.3)
POSTGRES = Store("postgres", points=501, recovery=200, seconds=0.25, late=0.6)


class Result(msgspec.Struct):
    """Result of one point."""

    point: int
    kills: int = 0
    places: list[str] = []
    violations: list[str] = []


class Plan(msgspec.Struct, frozen=True):
    """Actions at a point."""

    kills: tuple[Kill, Kill]
    answers: Answers


def plan(store: Store, point: int) -> Plan:
    """Returns the plan of a point: deterministic for its number."""
    chance = Random(f"crash {point}")
    # Seven and the number of points are coprime: each point occurs, and neighbouring points are far apart.
    first = Kill(1 + point * 7 % store.points)
    if chance.random() < store.late:
        first = _late(store, first, chance)
    second = Kill(1 + int(store.recovery * chance.random() ** 2))
    if chance.random() < store.late:
        second = _late(store, second, chance)
    answers: Answers = chance.choices(("itself", "between", "outside"), (5, 3, 1))[0]
    return Plan((first, second), answers)


def _late(store: Store, kill: Kill, chance: Random) -> Kill:
    if chance.random() < 0.7:
        return Kill(kill.point, chance.uniform(0.00001, 0.002))
    return Kill(0, chance.uniform(0, store.seconds))


# Processes


def _fork(work: Callable[[int], int], folder: Path) -> tuple[int, int]:
    """Starts a process that runs `work` with one end of a pipe; returns its process id and the other end."""
    here, there = os.pipe()
    if (process := os.fork()) == 0:
        code = 1
        try:
            os.close(here)
            code = work(there)
        except BaseException:  # noqa: BLE001  # written down; the parent sees the exit code
            (folder / "errors").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    os.close(there)
    return process, here


def _end(
    process: int, pipe: int, kill: Kill | None = None, post: Callable[[], None] | None = None
) -> tuple[int, bytes]:
    """Waits for a process, kills it at the planned time, and returns its exit code and its error output. A negative
    exit code is a signal number.
    """
    began, said = time.perf_counter(), b""
    due = began + (kill.delay if kill is not None and not kill.point else PATIENCE)
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, due - time.perf_counter()))
        if not ready:
            os.kill(process, signal.SIGKILL)
            due = time.perf_counter() + PATIENCE
            continue
        news = os.read(pipe, 65536)
        if not news:
            break
        said += news
        if kill is not None and b"k" in news:
            due = time.perf_counter() + kill.delay
        if post is not None and b"a" in news:
            post()
    os.close(pipe)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), said


def _aside(work: Callable[[], Coroutine[Any, Any, Any]], folder: Path) -> Any:
    """Returns the result of a coroutine that runs in a separate process, because this process may have no loop or
    thread; raises if it failed.
    """

    def do(pipe: int) -> int:
        os.write(pipe, msgspec.json.encode(asyncio.run(work())))
        return OVER

    code, said = _end(*_fork(do, folder))
    if code != OVER:
        raise RuntimeError((folder / "errors").read_text() if (folder / "errors").exists() else f"ended with {code}")
    return msgspec.json.decode(said)


# Points


def perform(
    store: Store, point: int, folder: Path, kills: tuple[Kill, ...] | None = None, *, hasty: bool = False
) -> Result:
    """Runs one point in an empty folder. Without `kills` only the planned kills happen."""
    planned = plan(store, point)
    waiting = list(planned.kills if kills is None else kills)
    # In some points the journal does not exist yet, and the process is killed while it creates the journal.
    template = Path(store.template) if store.template and point % 16 else None
    place = fresh(folder, template) if store.name == "sqlite" else Place(dsn=store.dsn, schema=store.schema)
    scene = Scene(str(folder), place, point, planned.answers, hasty)
    result = Result(point)
    for number in range(MOST):
        kill = waiting[0] if waiting else None
        try:
            code = _child(scene, number, kill)
        except RuntimeError as error:
            result.violations.append(f"a postman failed: {error}")
            return result
        if code == -signal.SIGKILL and kill is not None:
            result.kills += 1
            waiting.pop(0)
        elif code == WAITING:
            _aside(lambda: bring_letters(scene), folder)
        elif code == OVER:
            break
        else:
            said = (folder / "errors").read_text() if (folder / "errors").exists() else ""
            result.violations.append(
                f"process {number} {'did not end in time' if code < 0 else f'ended with {code}: {said}'}"
            )
            return result
    else:
        result.violations.append(f"not over after {MOST} processes")
    if (killed := folder / "killed").exists():
        result.places = [line for line in killed.read_text().splitlines() if line]
    result.violations += _aside(lambda: audit(scene), folder)
    return result


def _child(scene: Scene, number: int, kill: Kill | None) -> int:
    def act(pipe: int) -> int:
        child = Child(scene, number, kill, pipe)
        code = asyncio.run(child.act())
        (Path(scene.folder) / f"passed-{number}").write_bytes(msgspec.json.encode(child.points.passed))
        return code

    folder = Path(scene.folder)
    return _end(*_fork(act, folder), kill, lambda: _aside(lambda: bring_letters(scene), folder))[0]


def command(store: Store, point: int) -> str:
    """Returns the command that repeats a point."""
    return f"python -m tests.crash --store {store.name} --point {point}"


def play(store: Store, points: range, kills: int, root: Path, *, hasty: bool = False) -> Iterator[Result]:
    """Runs points in sequence until the given number of processes was killed; a run may end before its point is
    reached.

    All files of a point with a violation are kept until `root` is removed.
    """
    for point in points:
        if kills <= 0:
            return
        folder = Path(tempfile.mkdtemp(prefix=f"point-{point}-", dir=root))
        result = perform(store, point, folder, hasty=hasty)
        kills -= result.kills > 0
        if not result.violations:
            shutil.rmtree(folder)
        yield result


def spread(
    store: Store, first: int, kills: int, root: Path, lanes: int, tell: Callable[[Result], None], *, hasty: bool = False
) -> None:
    """Runs points from `first` on in several concurrent lanes, each a process, until the given number of processes was
    killed. `tell` is called with each result.
    """
    pipes: dict[int, int] = {}
    rests: dict[int, bytes] = {}
    for lane in range(lanes):
        share = range(kills)[lane::lanes]
        process, pipe = _fork(
            partial(_lane, store, range(first + lane, first + EVER, lanes), len(share), root, hasty), root
        )
        pipes[pipe], rests[pipe] = process, b""
    while pipes:
        for pipe in select.select(list(pipes), [], [])[0]:
            news = os.read(pipe, 65536)
            *lines, rests[pipe] = (rests[pipe] + news).split(b"\n")
            for line in lines:
                tell(msgspec.json.decode(line, type=Result))
            if not news:
                os.close(pipe)
                code = os.waitstatus_to_exitcode(os.waitpid(pipes.pop(pipe), 0)[1])
                if code:
                    tell(Result(-1, violations=[f"a lane ended with {code}: {(root / 'errors').read_text()}"]))


def _lane(store: Store, points: range, kills: int, root: Path, hasty: bool, pipe: int) -> int:
    for result in play(store, points, kills, root, hasty=hasty):
        os.write(pipe, msgspec.json.encode(result) + b"\n")
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return OVER
    os.write(pipe, msgspec.json.encode(Result(-1, violations=["a process is left"])) + b"\n")
    return OVER


def prepared(store: Store, root: Path) -> Store:
    """The prepared store, with an empty journal to copy."""
    gc.collect()
    gc.freeze()  # existing objects are not touched in later processes, and so not copied for them
    if store.name == "postgres":
        return store
    template = root / "template.db"

    async def make() -> None:
        async with SqliteJournal.open(template):
            pass

    _aside(make, root)
    return msgspec.structs.replace(store, template=str(template))


class Summary:
    """Summary of all points."""

    def __init__(self, store: Store, say: Callable[[str], None]) -> None:
        self._store, self._say, self._began = store, say, time.monotonic()
        self.points = self.kills = self.second = self.violations = 0
        self.places: Counter[str] = Counter()

    def add(self, result: Result) -> None:
        """Adds a point; prints its violations at once."""
        self.points += 1
        self.kills += result.kills > 0
        self.second += result.kills > 1
        self.places.update(result.places)
        self.violations += len(result.violations)
        for fault in result.violations:
            self._say(f"{command(self._store, result.point)}  # {'; then '.join(result.places)}: {fault}")

    def __str__(self) -> str:
        seconds = time.monotonic() - self._began
        return (
            f"{self._store.name}: {self.points} points, {self.kills} kills, {self.second} second kills during recovery,"
            f" {len(self.places)} kinds of places, {seconds:.1f} s, {self.violations} violations"
        )
