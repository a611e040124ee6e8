"""Rewrites the output blocks of README.md and of the documentation from real runs. `make readme` and `make bench` run
it.

    .venv/bin/python scripts/readme.py              # all blocks but the benchmarks
    .venv/bin/python scripts/readme.py bench        # the blocks whose names begin with bench
    .venv/bin/python scripts/readme.py demo graph   # the blocks of these names

A block is between `<!-- begin:NAME -->` and `<!-- end:NAME -->`; its first line is `$ COMMAND`. The command runs in the
checkout, and its stdout becomes the rest of the block. A failed command leaves the page unchanged.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

BLOCK = re.compile(
    r"(?P<head><!-- begin:(?P<name>[a-z0-9-]+) -->\n+```console\n\$ (?P<command>[^\n]+)\n)"
    r"(?P<output>.*?)(?P<tail>```\n+<!-- end:(?P=name) -->)",
    re.DOTALL,
)
COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LIMIT_S = 1800


@dataclass(frozen=True)
class Failed(Exception):
    """A command with a non-zero exit status."""

    command: str
    status: int


def output_of(command: str) -> str:
    """Returns the output of a command as in a page."""
    print(f"$ {command}", file=sys.stderr, flush=True)
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "NO_COLOR": "1", "COLUMNS": "120"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S
    )
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        raise Failed(command, done.returncode)
    lines = COLOUR.sub("", done.stdout).replace(str(ROOT), ".").splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def chosen(name: str, names: Sequence[str]) -> bool:
    """Returns whether a block is selected: by name, by `bench`, or by default if it is not a benchmark."""
    bench = name.startswith("bench")
    return name in names or ("bench" in names and bench) or (not names and not bench)


def renew(text: str, names: Sequence[str]) -> str:
    """Returns a page with the selected blocks rewritten. Raises `Failed`."""
    return BLOCK.sub(
        lambda found: (
            found["head"] + output_of(found["command"]) + found["tail"] if chosen(found["name"], names) else found[0]
        ),
        text,
    )


def main() -> int:
    """Rewrites the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="names of blocks, or bench")
    names = parser.parse_args().names
    status = 0
    for page in PAGES:
        text = page.read_text("utf-8")
        try:
            renewed = renew(text, names)
        except Failed as failed:
            print(f"{page.name} is left as it was: `{failed.command}` ended with {failed.status}", file=sys.stderr)
            status = 1
            continue
        if renewed != text:
            page.write_text(renewed, "utf-8")
            print(f"{page.relative_to(ROOT)} written")
    return status


if __name__ == "__main__":
    sys.exit(main())
