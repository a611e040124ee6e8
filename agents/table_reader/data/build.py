"""The training data set of the agent `table_reader`, from the training split of TAT-QA and from written questions.

    python -m agents.table_reader.data.build --data FOLDER/tatqa --out FOLDER [--asked 1] [--share 0.4]

TAT-QA (Zhu, Lei, Huang, Wang, Zhang, Lv, Feng, Chua 2021), `github.com/NExTplusplus/TAT-QA`, MIT. Derivations, which
are free text, become expressions whose exact value is the answer; rows without such an expression, and rows whose words
are not in the table or the text, are left out. Additional rows: generated questions to the same tables (a cell, a
difference, a change in per cent, a mean, a sum), and written questions to tables of all kinds (`bench.written_rows`).
Each row has the operation of its answer (`orchestra.agents.inference.tables.operations`); rows without an operation are
left out.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from bench.data_sets import command_line, write
from bench.written_rows import renewed
from orchestra.agents.card import Card
from orchestra.agents.inference.tables.encoding import TOTAL_ROW, count_header_rows
from orchestra.agents.inference.tables.filters import FILTERABLE_OPERATIONS
from orchestra.agents.inference.tables.operations import (
    CELLS,
    COUNT,
    DIFFERENCE,
    GAP,
    LEAST,
    MOST,
    RANGE,
    parse_expression,
    parse_figure,
)
from orchestra.agents.inference.tables.question import question_figures
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow, DatasetSource, SplitShares, split
from orchestra.learn.encoders.table_targets import operation_of
from orchestra.schema.strict_json import digest
from orchestra.text.arithmetic import ArithmeticParseError, evaluate
from orchestra.text.numbers.sort_keys import filter_by_limit

ROOT = Path(__file__).resolve().parents[3]
SHARES = SplitShares(tune=0.06, test=0.0)
SEED = 1
LONGEST = 5_000
"""Maximal number of characters of a table and its text."""
QUOTED = 300
"""Maximal number of characters of a quoted answer."""
Table: TypeAlias = Sequence[Sequence[str]]
_SIGNED = re.compile(r"\b(?:chang|increase|decrease|growth|develop|movement|variation)", re.IGNORECASE)
"""Words of questions whose answer may be negative. Without them 5 of 420 differences of the training rows are negative,
with them 119 of 316.
"""
_FIGURE = re.compile(r"^[$€£ ]*\(?-?[\d,]*\.?\d+\)?\s*%?$")
_YEAR = re.compile(r"\b(?:FY|fiscal )?(?:19|20)\d\d\b|\bFY\d\d\b")


def expression_of(derivation: str, answer: float, scale: str) -> str | None:
    """Returns a derivation as an expression whose value is the answer, or None: factors of a hundred and signs are
    corrected.
    """
    text = re.sub(r"[$€£]|(?<=\d)%", "", derivation).strip()
    text = re.sub(r"\s*([-+*/])\s*", r" \1 ", text).replace("( ", "(").replace(" )", ")")
    text = re.sub(r"(^|[(*/+-] ?)- (?=\d)", r"\1-", re.sub(r"\s+", " ", text)).strip()
    candidates = [text, f"({text}) * 100" if scale == "percent" else text, f"-({text})", f"-({text}) * 100"]
    for candidate in candidates:
        try:
            value = evaluate(candidate)
        except ArithmeticParseError:
            return None
        if abs(value - Fraction(str(answer))) <= Fraction(6, 1000):
            return re.sub(
                r"^\(\((.+?)\) / ([\d,.-]+)\) \* 100$", r"(\1) / \2 * 100", candidate
            )  # one notation of a change in per cent
    return None


def rows_of(path: Path, longest: int = LONGEST) -> list[DatasetRow]:
    """Returns the rows of TAT-QA that have an expression or quotes."""
    found = []
    for line in path.read_text("utf-8").splitlines():
        item = json.loads(line)
        given, expected = item["input"], item["expected"]
        texts = [cell for row in given["table"] for cell in row] + given["paragraphs"]
        if sum(map(len, texts)) > longest or (output := _output(expected, texts)) is None:
            continue
        found.append(
            DatasetRow(
                item["id"], given, output, digest(json.dumps([given["table"], given["paragraphs"]]).encode())[:16]
            )
        )
    return found


def _output(expected: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any] | None:
    answer, scale = expected["answer"], expected["scale"]
    if expected["type"] == "arithmetic":
        expression = expression_of(expected["derivation"], answer, scale)
        return None if expression is None else {"expression": expression, "quotes": [], "scale": scale}
    if expected["type"] == "count":
        return None  # the base of the value is unknown
    quotes = [" ".join(one.split()) for one in answer]
    if not quotes or any(len(one) > QUOTED or not any(one in text for text in texts) for one in quotes):
        return None
    return {"expression": None, "quotes": quotes, "scale": scale}


class _Grid:
    """A table with a detected head: its figures by row and column."""

    def __init__(self, table: Table) -> None:
        at = next(
            (i for i, row in enumerate(table[:4]) if sum(bool(_YEAR.search(cell)) for cell in row[1:]) >= 2), None
        )
        self.columns = (
            {}
            if at is None
            else {i: " ".join(cell.split()) for i, cell in enumerate(table[at]) if i and _YEAR.search(cell)}
        )
        self.rows: dict[str, dict[int, str]] = {}
        for row in table[(at or 0) + 1 :]:
            figures = {i: row[i] for i in self.columns if i < len(row) and _FIGURE.match(row[i].strip())}
            if len(figures) >= 2 and re.search("[A-Za-z]", row[0]):
                self.rows.setdefault(" ".join(row[0].split()), figures)


def asked(rows: Sequence[DatasetRow], count: int) -> Iterator[DatasetRow]:
    """Generates `count` questions to each table of these rows."""
    tables: dict[str, list[DatasetRow]] = defaultdict(list)
    for row in rows:
        tables[row.group].append(row)
    for group, known in tables.items():
        chance = random.Random(f"{SEED} {group}")
        grid = _Grid(known[0].input["table"])
        scales = Counter(row.output["scale"] for row in known if row.output["scale"] != "percent")
        scale = scales.most_common(1)[0][0] if scales else ""
        for number in range(count if grid.rows else 0):
            question, output = _asked(grid, scale, chance)
            yield DatasetRow(f"asked-{group}-{number}", {**known[0].input, "question": question}, output, group)


def _asked(grid: _Grid, scale: str, chance: random.Random) -> tuple[str, dict[str, Any]]:
    label = chance.choice(sorted(grid.rows))
    figures = grid.rows[label]
    (one, first), (other, second) = chance.sample(sorted(figures.items()), 2)
    old, new = (first, second) if _year(grid.columns[one]) < _year(grid.columns[other]) else (second, first)
    when = sorted((grid.columns[one], grid.columns[other]), key=_year)
    name = label[0].lower() + label[1:] if label[1:2].islower() and chance.random() < 0.5 else label
    percent = "%" in first or "%" in second
    kind = chance.choice(("cell", "change", "percent", "mean", "sum", "change", "percent", "both"))
    plain = "percent" if percent else scale
    a, b = str(parse_figure(new)), str(parse_figure(old))
    ask: tuple[str, ...]
    match kind:
        case "change":
            ask = (
                "What is the change in {} from {} to {}?",
                "What was the change in {} between {} and {}?",
                "How much did {} change from {} to {}?",
            )
            return chance.choice(ask).format(name, *when), _sum(f"{a} - {b}", plain)
        case "percent" if not percent and re.search("[1-9]", b):
            ask = (
                "What is the percentage change in {} from {} to {}?",
                "What was the percentage change in {} between {} and {}?",
            )
            return chance.choice(ask).format(name, *when), _sum(f"({a} - {b}) / {b} * 100", "percent")
        case "mean":
            return f"What is the average {name} for {when[0]} and {when[1]}?", _sum(f"({a} + {b}) / 2", plain)
        case "sum" if len(grid.rows) > 1:
            more = chance.choice(sorted(set(grid.rows) - {label}))
            if one in grid.rows[more]:
                text = f"{parse_figure(first)} + {parse_figure(grid.rows[more][one])}"
                return f"What is the sum of {name} and {more} in {grid.columns[one]}?", _sum(text, plain)
        case "both":
            question = f"What were the {name} in {when[0]} and {when[1]} respectively?"
            return question, {"expression": None, "quotes": [old, new], "scale": "" if percent else scale}
    return f"What was the {name} in {grid.columns[one]}?", {
        "expression": None,
        "quotes": [first],
        "scale": "" if percent else scale,
    }


def _sum(expression: str, scale: str) -> dict[str, Any]:
    return {"expression": expression, "quotes": [], "scale": scale}


def _year(header: str) -> str:
    found = _YEAR.search(header)
    return found[0][-2:] if found else ""


def told(rows: Iterable[DatasetRow]) -> Iterator[DatasetRow]:
    """Returns rows with the operation of their answer; rows without an operation are left out."""
    for row in rows:
        compared = row.output.get("way")
        output = {"way": "", "cells": [], "rows": [], "column": None, "condition": None, "also": None, **row.output}
        if not compared or (
            compared in (MOST, LEAST) and output["expression"] is not None
        ):  # in such a row the operation of a sum is the sum's
            way = operation_of(output["expression"], output["quotes"], row.input["table"])
            if (
                way == DIFFERENCE
                and evaluate(output["expression"]) >= 0
                and not _SIGNED.search(str(row.input["question"]))
            ):
                way = GAP
            output |= {"way": way, "rows": [], "column": None, "condition": None, "also": None}
        if output["way"]:
            yield msgspec.structs.replace(row, output=output | _condition(row.input, output))


def _condition(given_row: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the condition of a question that names its rows without it: the only column for which words of the
    question select exactly these rows.
    """
    question, table = str(given_row["question"]), given_row["table"]
    top, way = count_header_rows(table), output["way"]
    if output["condition"] is not None or way not in FILTERABLE_OPERATIONS:
        return {}
    found = []
    for one in question_figures(question):
        for column in range(max(map(len, table), default=0)) if one.bound is not None else ():
            cells = [row[column] if column < len(row) else "" for row in table]
            holds = filter_by_limit(cells[top:], one.measure, str(one.bound), " ".join(cells[:top])) or []
            rows = [
                top + at for at, held in enumerate(holds) if held and not TOTAL_ROW.match("".join(table[top + at][:1]))
            ]
            if rows and len(rows) < len(table) - top and _same(rows, way, output, table):
                found.append(({"column": column, "bound": one.bound, "limit": one.text}, rows))
    if len(found) != 1:
        return {}
    condition, rows = found[0]
    return {"condition": condition, "rows": rows}


def _same(rows: Sequence[int], way: str, output: Mapping[str, Any], table: Table) -> bool:
    """Returns whether these rows are those of an answer."""
    if way in (COUNT, MOST, LEAST, RANGE):
        return rows == list(output["rows"])
    columns = (
        [table[row][column] if column < len(table[row]) else "" for row in rows]
        for column in range(max(map(len, table)))
    )
    if way == CELLS:
        return any(cells == list(output["quotes"]) for cells in columns)
    said = parse_expression(str(output["expression"]))
    return said is not None and any(
        sorted(said[1]) == sorted(str(parse_figure(cell)) for cell in cells) for cells in columns
    )


def made(source: Path, count: int, share: float, longest: int = LONGEST) -> Dataset:
    """Builds the data set."""
    rows = rows_of(source, longest)
    parts = split(rows, SHARES)
    more = list(asked(parts["train"], count))
    parts["train"] = [*parts["train"], *more]
    origin = "TAT-QA, Zhu et al. 2021, train part"
    origins = [
        DatasetSource(
            origin,
            "MIT",
            digest(source.read_bytes()),
            f"derivations as expressions, and quotes; {share:.0%} of them",
            len(rows),
        ),
        DatasetSource(
            origin,
            "MIT",
            digest(source.read_bytes()),
            f"questions put to its tables by rule; {share:.0%} of them",
            len(more),
        ),
    ]
    parts, found = renewed(parts, ("tables",), share, SHARES)
    card = Card.load(ROOT / "agents" / "table_reader")
    whole = {part: list(told(rows)) for part, rows in parts.items()}
    return Dataset.build("tables", card.name, contract_digest(card), "MIT and Apache-2.0", [*origins, *found], whole)


def main() -> None:
    """Writes the folder."""
    parser = command_line(__doc__, "the folder tatqa")
    parser.add_argument("--asked", type=int, default=1, help="generated questions for each table")
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of the TAT-QA rows and generated questions that is used"
    )
    parser.add_argument(
        "--longest", type=int, default=LONGEST, help="maximal number of characters of a table and its text"
    )
    given = parser.parse_args()
    write(made(given.data / "train.jsonl", given.asked, given.share, given.longest), given.out)


if __name__ == "__main__":
    main()
