"""The API without asyncio: a thread with an event loop of its own, for scripts, notebooks and consoles.

    with orchestra.blocking() as fleet:
        print(fleet.run("answer_from_documents", question="…", documents=documents).output)

It works in a notebook cell, where a loop already runs: its own loop runs in another thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from orchestra.app.orchestra import BlockingOrchestra, Orchestra
from orchestra.core.settings import Settings

if TYPE_CHECKING:
    from orchestra.app.workers import FleetMode
    from orchestra.core.protocols import Workers
    from orchestra.engine.streaming import TextPiece
    from orchestra.fleet.progress import Progress


@contextmanager
def blocking(
    config: str | Path | Settings | None = None,
    *,
    project: str | Path | None = None,
    fleet: FleetMode = "start",
    workers: Workers | None = None,
    progress: Callable[[Progress], None] | None = None,
    text: Callable[[TextPiece], None] | None = None,
) -> Iterator[BlockingOrchestra]:
    """Opens an `Orchestra` for a block of code without asyncio. The parameters are those of `Orchestra.open_sync`.

    Args:
        text: Called with each piece of text that models write, on the thread that called `run`; not verified
        (`Run.text`).
    """
    blocking_orchestra = Orchestra.open_sync(
        config, project=project, fleet=fleet, workers=workers, progress=progress, text=text
    )
    with blocking_orchestra as orchestra:
        yield orchestra
