"""Common parts of the scripts that build training data: command line and summary."""

from __future__ import annotations

import argparse
from pathlib import Path

from orchestra.learn.data.dataset import Dataset


def command_line(doc: str | None, folder: str) -> argparse.ArgumentParser:
    """Returns their common options: `--data` (described by the argument) and `--out`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=folder)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the data set")
    return parser


def write(data: Dataset, out: Path) -> None:
    """Writes a data set, and prints its digest and the number of rows of each split."""
    data.write(out)
    print(
        f"{out}: {data.manifest.digest}, "
        + ", ".join(f"{part} {record.rows}" for part, record in data.manifest.splits.items())
    )
