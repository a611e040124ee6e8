"""What the scripts that make training data have in common: their command line, and what they say in the end."""

from __future__ import annotations

import argparse
from pathlib import Path

from orchestra.learn.data.dataset import Dataset


def command_line(doc: str | None, folder: str) -> argparse.ArgumentParser:
    """The options of all of them: `--data`, which is this folder, and `--out`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=folder)
    parser.add_argument("--out", type=Path, required=True, help="where the data set goes")
    return parser


def write(data: Dataset, out: Path) -> None:
    """Writes a data set, and says its digest and how many rows its parts have."""
    data.write(out)
    print(f"{out}: {data.manifest.digest}, " + ", ".join(f"{part} {record.rows}" for part, record in data.manifest.splits.items()))
