"""python -m tests.crash: kill -9 at many points, and again during recovery; no event is lost, no effect repeated.

`--point N` runs one point; `--dry` kills no process and prints the points that a run passes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import msgspec

from tests.crash.matrix import POSTGRES, SQLITE, Store, Summary, perform, plan, prepared, spread
from tests.journal.postgres_server import running


@contextmanager
def _store(name: str) -> Iterator[Store]:
    if name == "sqlite":
        yield SQLITE
    else:
        with running() as server:
            yield msgspec.structs.replace(POSTGRES, dsn=server.dsn, schema="crash")


def main() -> int:
    """Returns 0 if no violation was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--kills", type=int, default=500, help="points at which a process is killed, in all")
    parser.add_argument("--first", type=int, default=0, help="the number of the first point")
    parser.add_argument("--point", type=int, help="this one only")
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument(
        "--keep", type=Path, help="an empty folder for what is written; that of points with faults stays there"
    )
    parser.add_argument(
        "--hasty", action="store_true", help="with a journal that does not wait for the disk: it must be found out"
    )
    parser.add_argument("--dry", action="store_true", help="kill no process")
    parser.add_argument("--places", action="store_true", help="show where processes were killed")
    wanted = parser.parse_args()
    folder = (
        tempfile.TemporaryDirectory(prefix="orchestra-crash-") if wanted.keep is None else nullcontext(str(wanted.keep))
    )
    with folder as root, _store(wanted.store) as bare:
        store = prepared(bare, Path(root))
        summary = Summary(store, lambda line: print(line, flush=True))
        if wanted.dry:
            result = perform(store, wanted.point or 0, Path(root), ())
            summary.add(result)
            passed = json.loads((Path(root) / "passed-0").read_bytes())
            print(
                "\n".join(f"{times:5} {place}" for place, times in sorted(passed.items())),
                sum(passed.values()),
                sep="\n",
            )
        elif wanted.point is not None:
            print(plan(store, wanted.point))
            summary.add(perform(store, wanted.point, Path(root), hasty=wanted.hasty))
        else:
            spread(store, wanted.first, wanted.kills, Path(root), wanted.lanes, summary.add, hasty=wanted.hasty)
    if wanted.places or wanted.point is not None:
        print("\n".join(f"{times:5} {place}" for place, times in sorted(summary.places.items())))
    print(summary)
    return 1 if summary.violations else 0


if __name__ == "__main__":
    sys.exit(main())
