"""python -m tests.server.kills: kill -9 of the server at random moments, with 200 runs in progress and their readers.

Each stream continues with Last-Event-ID at the next server: each event once, nothing lost, no call repeated whose end a
reader knows.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import tempfile
from pathlib import Path

from tests.server.kills.scene import Scene, kill_often


def main() -> int:
    """Returns 0 if there was no violation."""
    parser = argparse.ArgumentParser(prog="python -m tests.server.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--runs", type=int, default=200, help="runs in progress at the same time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no further kill after this time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orchestra-kills-") as folder:
        scene, violations = asyncio.run(
            kill_often(
                Path(folder), arguments.kills, arguments.runs, arguments.seed, 60 * arguments.minutes, _show_progress
            )
        )
    print("\n".join(violations[:40]))
    print(
        f"{len(scene.in_progress)} kills, with {min(scene.in_progress, default=0)} to "
        f"{max(scene.in_progress, default=0)} runs in progress; {len(scene.streams)} runs, "
        f"{sum(len(one.events) for one in scene.streams)} events, streams continued "
        f"{sum(one.continued for one in scene.streams)} times; {len(violations)} violations"
    )
    return 1 if violations else 0


def _show_progress(scene: Scene) -> None:
    """Prints how far it is, so that an interrupted test has shown something."""
    if len(scene.in_progress) % 10 == 0:
        ended = sum(one.has_ended for one in scene.streams)
        print(f"{len(scene.in_progress)} kills, {ended} runs ended", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
