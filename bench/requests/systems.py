"""The systems that answer requests: Orchestra as `orchestra ask -d FOLDER` uses it, and the comparisons."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from bench.requests.scoring import Status, answer_text
from bench.requests.worlds import Request, World
from orchestra.app.orchestra import Orchestra
from orchestra.app.planning import PlanOptions, plan_result, request_workflow
from orchestra.cli.run.plan import read_values
from orchestra.core.errors import OrchestraError
from orchestra.workflows.model import REQUEST


@dataclass(frozen=True)
class Answer:
    """The answer of a system, and what it took."""

    status: Status
    text: str
    reason: str = ""
    """Why there is no answer."""
    steps: tuple[str, ...] = ()
    """The plan of Orchestra, or the turns of a model."""
    prompt_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0


class System(Protocol):
    """A system that answers requests over the files of a world."""

    async def answer(self, world: World, request: Request) -> Answer:
        """Answers a request. An error is an answer with the status `failed`."""
        ...


@dataclass
class OrchestraSystem:
    """Orchestra with its router, as `orchestra ask REQUEST -d FOLDER` runs it."""

    orchestra: Orchestra
    folder: Path
    """A folder for copies of the worlds, without their requests."""
    options: PlanOptions = field(default_factory=lambda: PlanOptions(cache=False))
    _values: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    async def answer(self, world: World, request: Request) -> Answer:
        """Answers a request. A request without a plan, and a withheld answer, is refused."""
        if world.name not in self._values:
            self._values[world.name] = dict(read_values([copy_files(world, self.folder)], []).values)
        values = self._values[world.name]
        try:
            step = request_workflow(self.orchestra, request.request, values, self.options)
            run = await self.orchestra.start(step, **{REQUEST: request.request, **values})
            try:
                result = await run.wait()
            except asyncio.CancelledError:
                run.cancel("bench.requests")
                raise
            events = [event async for event in run.events()]
            draft = await plan_result(self.orchestra, step, request.request, events)
        except OrchestraError as error:
            return Answer("failed", "", f"{error.code}: {error}")
        plan = tuple(str(draft.plan).splitlines()) if draft.plan is not None else ()
        reason = "; ".join(map(str, draft.rejections)) or (str(result.error) if result.error else "")
        withheld = result.status == "abstained" or (draft.plan is None and bool(draft.rejections))
        status: Status = "done" if result.status == "done" else "refused" if withheld else "failed"
        usage = result.usage
        text = answer_text(result.value) if status == "done" else ""
        return Answer(status, text, reason, plan, usage.prompt_tokens, usage.output_tokens, usage.calls)


def copy_files(world: World, folder: Path) -> Path:
    """Copies the documents and tables of a world, and returns the folder that a user would pass."""
    target = folder / world.name
    for file in world.files:
        copied = target / file.parent.name / file.name
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copied)
    return target


@asynccontextmanager
async def open_orchestra_system(
    opened: AbstractAsyncContextManager[Orchestra], options: PlanOptions | None = None
) -> AsyncIterator[OrchestraSystem]:
    """Opens Orchestra, with a temporary folder for the worlds."""
    with tempfile.TemporaryDirectory() as folder:
        async with opened as orchestra:
            yield OrchestraSystem(orchestra, Path(folder), options or PlanOptions(cache=False))


@cache
def clock_ticks() -> int:
    """Returns the ticks of a CPU second."""
    return os.sysconf("SC_CLK_TCK")


def cpu_seconds(servers: str = "vllm") -> float:
    """Returns the CPU seconds of this process and its children, and of all model servers: processes whose command line
    has this text. 0 on systems without `/proc`.
    """
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            own = int(folder.name) == os.getpid()
            if own or servers in (folder / "cmdline").read_bytes().decode("utf-8", "replace").casefold():
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                total += sum(map(int, fields[11:15] if own else fields[11:13]))
        except OSError:  # the process has ended
            continue
    return total / clock_ticks()
