"""python -m tests.server.hostile: hostile requests to a real server.

No reply is a fault of the server or shows anything of it, each error has code, place and hint, and
afterwards the server works as before.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.server.hostile.campaign import attack_server


def main() -> int:
    """Returns 0 if no fault was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.server.hostile", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shown", type=int, default=40, help="faults that are shown at most")
    parser.add_argument("--log", type=Path, help="where the log of the server is kept")
    parser.add_argument(
        "--max-growth", type=float, metavar="RATIO",
        help="send as many requests again; the memory may then grow by this share of its first growth",
    )  # fmt: skip
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orchestra-hostile-") as folder:
        report = asyncio.run(attack_server(Path(folder), arguments.requests, arguments.seed, arguments.max_growth))
        if arguments.log is not None:
            arguments.log.write_bytes((Path(folder) / "log").read_bytes())
    for fault, times in Counter(report.faults).most_common(arguments.shown):
        print(f"{times} x {fault[:700]}")
    print(report)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
