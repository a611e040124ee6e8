"""Rows that were written for training: claims with their evidence, and questions to tables.

    python -m bench.written_rows claims FILE ... [--rows OUT]
    python -m bench.written_rows sentences FILE ... [--rows OUT]
    python -m bench.written_rows tables FILE ... [--rows OUT]
    python -m bench.written_rows passages FILE ... [--rows OUT]
    python -m bench.written_rows problems FILE ... [--rows OUT]

The files of `agents/NAME/data/written` are training data, those of `bench/evaluations` are evaluation rows. They were
written for this project (Apache-2.0) by several language models that had seen no row of a public set and none of
`bench/ask_strangers.yaml`. This command checks files and prints their numbers of rows. An empty line separates blocks;
a line that begins with a semicolon is a comment.

A block of claims is a passage in one line, and claims below it: `+` is supported, `-` is contradicted, `?` is not
stated.

    The bridge was closed for repairs in May 1931 and opened again in the autumn.
    + Nobody could cross the bridge in the summer of 1931.
    - The bridge was closed in the autumn.
    ? The repairs of the bridge were expensive.

From the same files `sentences` makes claims of two sentences of each passage: unchanged, which is supported, and with
an edit (`bench.claim_edits`), which is contradicted. Authors phrase errors in a passage's own words and true claims
in other words: an adapter trained on their claims alone called 72 of 100 sentences contradicted that were literally
in the evidence. The claims of `shortened` are on the same passages: their sentences with phrases left out, and also
with an error. An adapter trained without them called “The council met in the village hall” contradicted by “The
parish council met on Tuesday 9 January in the village hall”. Those of `plain` are claims in everyday words without a
trick, which authors leave out if they try to mislead.

A block of passages is a passage in one line, and questions to it (`?`), each followed by its answer in the passage's
own words (`=`), or by `-` if the passage has none.

    The bridge was closed for repairs in May 1931 and opened again in the autumn.
    ? When could people cross it again?
    = in the autumn
    ? How much did the repairs cost?
    -

A block of problems is a story in one line, and questions to it (`?`), each followed by the expression of its answer
(`#`), over numbers of the story, in digits or in words, or common constants (`bench.gsm8k.KNOWN`).

    Ann has 12 pears and gives a third of them away. A pear costs 40 cents.
    ? How many pears are left?
    # 12-12/3

A block of questions is a table (a line for each row, cells separated by `|`), paragraphs beside it (`>`), and
questions (`?`). Each question is followed by its answer: quotes (`=`, separated by ` ; `) or an expression over
figures of the block or of the question (`#`; also of times of day, `11:40 - 9:15`), and the scale in brackets if
there is one. If the answer compares or counts rows, a third line has the operation (`@`): the row with the `most` or
the `least` of a column, among all rows without the head, among those after a colon, or among all except those after `
! `; or the rows of a `count`. `range` is the difference of the most and the least of a column. A row is named by a
cell that is in no other row, preferably its first one, or by its number, `#1` is the first below the head.

Rows may be selected by a condition: `if`, a column, `>`, `>=`, `<` or `<=`, and the figure as the question has it. It
follows the operation: `count`, `most Price`, `least Price`, `range Price`, or `cells Price`, `sum Price` and `mean
Price` for all cells of a column in these rows. `and` adds a second condition with another figure of the question.

    Branch | Opened | Books
    Northgate | 1962 | 14,200
    Quay Street | 1998 | 9,350
    > Opening hours are from nine to five.
    ? When did Quay Street open?
    = 1998
    ? How many books do the two have together?
    # 14,200 + 9,350
    ? Which is the older one?
    = Northgate
    @ least Opened
    ? How many have at most 10,000 books?
    # 1
    @ count if Books <= 10,000
    ? In how many is there a café?
    # 1
    @ count Quay Street
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench.claim_edits import edits, names_in
from bench.gsm8k import as_written
from orchestra.agents.inference.tables.operations import (
    CELLS,
    COUNT,
    LEAST,
    MEAN,
    MOST,
    RANGE,
    SUM,
    build_expression,
    parse_figure,
    range_ends,
)
from orchestra.agents.inference.tables.question import find_figure, question_figures
from orchestra.learn.data.dataset import DatasetRow, DatasetSource, Split, SplitShares, split
from orchestra.schema.strict_json import digest
from orchestra.text.arithmetic import ArithmeticParseError, evaluate
from orchestra.text.keywords import find_words
from orchestra.text.numbers.sort_keys import ABOVE, BELOW, FROM, UP_TO, filter_by_limit, find_extremes

ROOT = Path(__file__).resolve().parents[1]
VERDICTS = {"+": "supported", "-": "contradicted", "?": "not stated"}
SCALES = ("percent", "thousand", "million", "billion")
SENTENCES, SHORTEST, LONGEST = 2, 25, 250
"""Number of sentences of a passage that become claims, and their minimal and maximal number of characters."""
_SENTENCE = re.compile(r"[A-Z0-9“\"‘'(].*[^.?]{3}[.!]")
_FIGURE = re.compile(r"\d[\d,]*(?:\.\d+)?")
MARKS = ">?=#@"
"""Starts of the lines of a block of questions that are not rows."""
_SCALED = re.compile(r"^(.*?)(?: \[(\w+)\])?$")
HOWS = (COUNT, CELLS, SUM, MEAN, MOST, LEAST, RANGE)
SIGNS = {">": ABOVE, ">=": FROM, "<": BELOW, "<=": UP_TO}
_HOW = re.compile(
    r"(?P<way>\w+)(?: (?!if |[!:] )(?P<name>.+?))??"
    r"(?: if (?P<left>.+?) (?P<sign>[<>]=?) (?P<limit>.+?)(?: and (?P<left2>.+?) (?P<sign2>[<>]=?) (?P<limit2>.+?))?)?"
    r"(?: ! (?P<but>.+?))?(?: : (?P<only>.+?))?(?: ! (?P<without>.+))?"
)
_SIGNED = re.compile(r"[<>=≤≥]")
_CLOCK = re.compile(r"\b\d{1,2}:[0-5]\d(?: ?[ap]\.?m\b\.?)?", re.IGNORECASE)


class Unusable(ValueError):
    """An invalid file, with the line."""


def blocks(path: Path) -> Iterator[list[tuple[int, str]]]:
    """Returns the blocks of a file, each line with its number."""
    block: list[tuple[int, str]] = []
    for number, line in enumerate([*path.read_text("utf-8").splitlines(), ""], 1):
        text = line.strip()
        if text.startswith(";"):
            continue
        if text:
            block.append((number, text))
        elif block:
            yield block
            block = []


def claims(path: Path) -> list[DatasetRow]:
    """Returns the claims of a file, grouped by passage. Raises `Unusable`."""
    found = []
    for (_, evidence), *said in blocks(path):
        group = digest(evidence.encode())[:16]
        if not said or evidence[:2] in ("+ ", "- ", "? "):
            raise Unusable(f"{path}: a passage and claims to it were to stand here: {evidence[:60]}")
        for number, line in said:
            label = VERDICTS.get(line[0])
            if label is None or line[1:2] != " ":
                raise Unusable(f"{path}:{number}: a claim begins with one of {' '.join(VERDICTS)} and a blank")
            given = {"claim": line[2:].strip(), "evidence": evidence}
            found.append(DatasetRow(f"written-{path.stem}-{number}", given, {"label": label}, group))
    return found


def sentences(path: Path) -> list[DatasetRow]:
    """Returns sentences of the passages of a file of claims, unchanged and with an edit. Raises `Unusable`."""
    found = []
    passages = {str(row.input["evidence"]): row.group for row in claims(path)}
    names = sorted({name for evidence in passages for name in names_in(evidence) if len(name) > 3})
    for evidence, group in passages.items():
        chance = random.Random(f"{group} sentences")
        own = names_in(evidence)
        every = [
            one
            for one in re.split(r"(?<=[.!?])\s+", evidence)
            if _SENTENCE.fullmatch(one) and SHORTEST <= len(one) <= LONGEST
        ]
        for number, claim in enumerate(chance.sample(every, min(SENTENCES, len(every)))):
            name = f"sentence-{group}-{number}"
            found.append(DatasetRow(name, {"claim": claim, "evidence": evidence}, {"label": "supported"}, group))
            made = (edit for edit in edits(claim, evidence, names, chance) if edit.kind != "denial")
            wrong = [
                edit for edit in made if edit.kind != "name" or edit.old in own
            ]  # a capital letter may only start a sentence
            if wrong:
                changed = chance.choice(wrong).applied(claim)
                found.append(
                    DatasetRow(
                        f"{name}-edited", {"claim": changed, "evidence": evidence}, {"label": "contradicted"}, group
                    )
                )
    return found


class Asked(NamedTuple):
    """A question to a text, and the lines below it."""

    text: str
    number: int
    """The question's line; the answer is on the next one."""
    question: str
    sign: str
    answer: str

    @property
    def group(self) -> str:
        """Returns the group of all questions to the text."""
        return digest(self.text.encode())[:16]


def in_turns(path: Path, signs: str) -> Iterator[Asked]:
    """Returns the questions to the texts of a file; an answer begins with one of these signs. Raises `Unusable`."""
    for (first, text), *lines in blocks(path):
        if not lines or len(lines) % 2 or text[:1] in f"?{signs}":
            raise Unusable(
                f"{path}:{first}: a text, and below it questions (?) and answers ({' or '.join(signs)}) in "
                f"turns, were to stand here"
            )
        if len({question for _, question in lines[::2]}) < len(lines) // 2:
            raise Unusable(f"{path}:{first}: a question is asked twice of this text")
        for (number, question), (_, answer) in zip(lines[::2], lines[1::2], strict=True):
            if question[:2] != "? " or answer[0] not in signs or answer[1:2].strip():
                raise Unusable(f"{path}:{number}: a question (?) and its answer ({' or '.join(signs)}) take turns")
            yield Asked(text, number, question[2:].strip(), answer[0], answer[2:].strip())


def passages(path: Path) -> list[DatasetRow]:
    """Returns the questions of a file to passages, grouped by passage. Raises `Unusable`."""
    found = []
    for one in in_turns(path, "=-"):
        words = one.answer if one.sign == "=" else None
        if words is None and one.answer:
            raise Unusable(f"{path}:{one.number + 1}: nothing may follow -, which marks a question without an answer")
        if words is not None and not find_words(words, one.text):
            raise Unusable(f"{path}:{one.number + 1}: {words!r} is not in the passage, exactly and as whole words")
        given = {"question": one.question, "context": one.text}
        found.append(DatasetRow(f"written-{path.stem}-{one.number}", given, {"answer": words}, one.group))
    return found


def problems(path: Path) -> list[DatasetRow]:
    """Returns the problems of a file, grouped by story. Raises `Unusable`."""
    found = []
    for one in in_turns(path, "#"):
        text = f"{one.text} {one.question}"
        try:
            expression = as_written(one.answer, text)
        except ArithmeticParseError as error:
            raise Unusable(f"{path}:{one.number + 1}: {error}") from error
        found.append(
            DatasetRow(f"written-{path.stem}-{one.number}", {"question": text}, {"expression": expression}, one.group)
        )
    return found


def tables(path: Path) -> list[DatasetRow]:
    """Returns the questions of a file to tables, grouped by table. Raises `Unusable`."""
    found = []
    for block in blocks(path):
        rows = [[cell.strip() for cell in line.split("|")] for _, line in block if "|" in line and line[0] not in MARKS]
        paragraphs = [line[1:].strip() for _, line in block if line.startswith(">")]
        number = block[0][0]
        if len({len(row) for row in rows}) != 1:
            raise Unusable(
                f"{path}:{number}: the rows of a table have equally many cells, and here "
                f"{sorted({len(row) for row in rows})}"
            )
        group = digest("\n".join("|".join(row) for row in rows).encode())[:16]
        if strange := [number for number, line in block if line[0] not in MARKS and "|" not in line]:
            raise Unusable(
                f"{path}:{strange[0]}: a line is a row of the table, or begins with one of {' '.join(MARKS)}"
            )
        asked = list(_asked(path, [(number, line) for number, line in block if line[0] in MARKS and line[0] != ">"]))
        if not asked:
            raise Unusable(f"{path}:{number}: nothing is asked of this table")
        for number, question, answer, how in asked:
            given = {"question": question, "table": rows, "paragraphs": paragraphs}
            try:
                output = _output(answer, [*(cell for row in rows for cell in row), *paragraphs], question)
                output |= _compared(how, rows, question, output)
            except ValueError as error:
                raise Unusable(f"{path}:{number}: {error}") from error
            found.append(DatasetRow(f"written-{path.stem}-{number}", given, output, group))
    return found


def _asked(path: Path, lines: Sequence[tuple[int, str]]) -> Iterator[tuple[int, str, str, str]]:
    """Returns for each question its line number, the question, the answer, and the comparison or count, or nothing."""
    at = 0
    while at < len(lines):
        number, question = lines[at]
        answer = lines[at + 1][1] if at + 1 < len(lines) else " "
        if question[0] != "?" or answer[0] not in "=#":
            raise Unusable(f"{path}:{number}: a question (?) and its answer (= or #) take turns")
        how = lines[at + 2][1] if at + 2 < len(lines) and lines[at + 2][1][0] == "@" else ""
        yield number, question[1:].strip(), answer, how[1:].strip()
        at += 3 if how else 2


def _compared(how: str, table: Sequence[Sequence[str]], question: str, output: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the rows of a table that a line compares by a column, or counts; the result must be the answer."""
    if not how:
        return {}
    said = _HOW.fullmatch(how)
    if said is None or said["way"] not in HOWS:
        raise Unusable(f"{how!r} is not a way of {', '.join(HOWS)}, a column, and rows")
    way, name = said["way"], (said["name"] or "").strip()
    column = None if way == COUNT else _column(name, table)
    rows = (
        _rows(said["only"], table)
        if said["only"]
        else []
        if way == COUNT and not said["left"]
        else list(range(1, len(table)))
    )
    if way == COUNT and name:
        rows = _rows(name, table)
    rows = sorted(set(rows).difference(*(_rows(names, table) for names in (said["but"], said["without"]) if names)))
    found = []
    for end in ("", "2"):
        if said[f"left{end}"]:
            found.append(_condition(said[f"left{end}"], said[f"sign{end}"], said[f"limit{end}"], table, question))
            rows = [row for row in rows if row in found[-1][2]]
    if len({at for at, *_ in found}) < len(found):
        raise Unusable(f"{said['limit']!r} and {said['limit2']!r} are one figure of the question, or equal ones")
    conditions = dict(
        zip(("condition", "also"), (one for _, one, _ in sorted(found, key=lambda one: one[0])), strict=False)
    )
    _checked(way, column, rows, table, output)
    return {"way": way, "rows": rows, "column": column if way in (MOST, LEAST, RANGE) else None} | conditions


def _condition(
    left: str, sign: str, limit: str, table: Sequence[Sequence[str]], question: str
) -> tuple[int, dict[str, Any], list[int]]:
    """Returns the condition of a question (column, bound, limit as written) and the rows that satisfy it."""
    every, column = question_figures(question), _column(left.strip(), table)
    at = find_figure(limit, question)
    if _SIGNED.search(limit) or (at is not None and " and " in limit and " and " not in every[at].text):
        raise Unusable(f"{limit.strip()!r} is no figure: two conditions at most, as in `A > 1 and B <= 2`")
    if at is None:
        raise Unusable(
            f"{limit.strip()!r} is no figure of the question, which has "
            f"{', '.join(one.text for one in every) or 'none'}"
        )
    holds = filter_by_limit([row[column] for row in table[1:]], every[at].measure, SIGNS[sign], table[0][column])
    if holds is None:
        raise Unusable(f"{every[at].text!r} cannot be compared with the column {table[0][column]}")
    condition = {"column": column, "bound": SIGNS[sign], "limit": every[at].text}
    return at, condition, [row for row, one in enumerate(holds, 1) if one]


def _checked(
    way: str, column: int | None, rows: Sequence[int], table: Sequence[Sequence[str]], output: Mapping[str, Any]
) -> None:
    """Raises `Unusable` if an operation does not give the answer."""
    answer = output["expression"] or output["quotes"]
    if column is None:
        if output["quotes"] or evaluate(str(output["expression"])) != len(rows):
            raise Unusable(f"{len(rows)} rows are counted, and the answer is {answer}")
        return
    cells = [table[row][column] for row in rows]
    figures = sorted(_FIGURE.findall(output["expression"] or ""))
    if way == CELLS and sorted(output["quotes"]) != sorted(cells):
        raise Unusable(f"the cells are {cells}, and the answer is {answer}")
    if way in (SUM, MEAN):
        wanted = [said for cell in cells if (said := parse_figure(cell)) is not None]
        if (
            not wanted
            or output["expression"] is None
            or evaluate(build_expression(way, wanted)) != evaluate(output["expression"])
        ):
            raise Unusable(f"the figures are {wanted}, and the answer is {answer}")
    if way in (MOST, LEAST):
        tops = [rows[at] for at in find_extremes(cells, largest=way == MOST)]
        texts = [*output["quotes"], *figures]
        if not any(text in cell for row in tops for cell in table[row] for text in texts):
            raise Unusable(
                f"the {way} of {table[0][column]} is in {[table[row][0] for row in tops]}, and the answer is not"
            )
    if way == RANGE:
        ends = range_ends(cells)
        said = None if ends is None else build_expression(RANGE, [str(parse_figure(cells[at])) for at in ends])
        if said is None or output["expression"] is None or evaluate(said) != evaluate(output["expression"]):
            raise Unusable(f"the range of {table[0][column]} is {said}, and the answer is {answer}")


def _column(name: str, table: Sequence[Sequence[str]]) -> int:
    if table[0].count(name) != 1:
        raise Unusable(f"{name!r} is not the head of one column")
    return table[0].index(name)


def _rows(names: str, table: Sequence[Sequence[str]]) -> list[int]:
    return [_row(one, table) for one in names.split(" ; ")]


def _row(name: str, table: Sequence[Sequence[str]]) -> int:
    """Returns the number of a row by its name."""
    text = name.strip()
    if text.startswith("#") and text[1:].isdigit() and 0 < int(text[1:]) < len(table):
        return int(text[1:])
    for column in range(len(table[0])):
        found = [at for at, row in enumerate(table) if at and row[column] == text]
        if len(found) == 1:
            return found[0]
    raise Unusable(f"{text!r} is no cell of exactly one row")


def _output(answer: str, texts: list[str], question: str) -> dict[str, Any]:
    text, scale = _SCALED.fullmatch(answer[1:].strip()).groups(default="")  # type: ignore[union-attr]  # it fits any line
    if scale and scale not in SCALES:
        raise Unusable(f"[{scale}] is no scale; there are {', '.join(SCALES)}")
    if answer[0] == "=":
        quotes = [quote.strip() for quote in text.split(" ; ")]
        if unknown := [quote for quote in quotes if not quote or not any(quote in one for one in texts)]:
            raise Unusable(f"{unknown[0]!r} is not in the table or a paragraph")
        return {"expression": None, "quotes": quotes, "scale": scale}
    if unknown := [time for time in _CLOCK.findall(text) if not any(time in one for one in [*texts, question])]:
        raise Unusable(f"{unknown[0]} is not in the table, a paragraph or the question")
    text = _CLOCK.sub(lambda time: str(parse_figure(time[0])), text)
    try:
        evaluate(text)
    except ArithmeticParseError as error:
        raise Unusable(f"{text!r} is no arithmetic: {error}") from error
    stands = {found for one in [*texts, question] for found in _FIGURE.findall(one)} | {
        one.figure for one in question_figures(question)
    }
    figures = _FIGURE.findall(_CLOCK.sub(" ", answer[1:]))
    counts = {"100", *map(str, range(1, 20))} if len(figures) > 1 else set(map(str, range(30)))
    if unknown := [one for one in figures if one not in stands | counts]:
        raise Unusable(f"{unknown[0]} is not in the table, a paragraph or the question")
    return {"expression": text, "quotes": [], "scale": scale}


READERS = {
    "claims": claims,
    "office": passages,
    "passages": passages,
    "plain": claims,
    "problems": problems,
    "sentences": sentences,
    "shortened": claims,
    "tables": tables,
}
PLACES = {"sentences": "claims"}
"""The folders of kinds without a folder of their own name."""
AGENTS = {"office": "reader", "passages": "reader", "problems": "calculator", "tables": "table_reader"}
"""The agents whose training data the kinds are; `entailment` for the others."""


def folder_of(kind: str) -> Path:
    """Returns the folder of the written training data of a kind."""
    return ROOT / "agents" / AGENTS.get(kind, "entailment") / "data" / "written" / PLACES.get(kind, kind)


def written(kind: str) -> tuple[list[DatasetRow], DatasetSource]:
    """Returns all rows of a kind in the tree, and their source. Raises `Unusable`."""
    folder = folder_of(kind)
    paths = sorted(folder.glob("*.txt"))
    rows = [row for path in paths for row in READERS[kind](path)]
    place, made = (
        folder.relative_to(ROOT).as_posix(),
        "sentences of the passages and edits" if kind in PLACES else "as they are",
    )
    return rows, DatasetSource(
        place, "Apache-2.0", digest(b"".join(path.read_bytes() for path in paths)), made, len(rows)
    )


def renewed(
    parts: Mapping[Split, list[DatasetRow]], kinds: Sequence[str], again: float, shares: SplitShares
) -> tuple[dict[Split, list[DatasetRow]], list[DatasetSource]]:
    """Returns the splits with written rows: a share of the other training rows, and all rows of these kinds; and their
    sources. Raises `Unusable`.
    """
    kept = random.Random("again")
    made = {**parts, "train": [row for row in parts["train"] if kept.random() < again]}
    origins = []
    for kind in kinds:
        rows, origin = written(kind)
        ours = split(rows, shares)
        made = {part: [*made[part], *ours[part]] for part in made}
        origins.append(
            msgspec.structs.replace(
                origin, description=f"{origin.description}, beside {again:.0%} of the other rows to train on"
            )
        )
    return made, origins


def as_test(rows: Iterable[DatasetRow]) -> bytes:
    """Returns evaluation rows, one a line, with their groups; an expression has its value, and words of a passage are
    in XQuAD's form.
    """
    lines = []
    for row in rows:
        expected = dict(row.output)
        if kind_of(row) in ("told", "not told"):
            words = expected.pop("answer")
            expected["answers"] = (
                [] if words is None else [{"text": words, "start": find_words(words, str(row.input["context"]))[0]}]
            )
        if "expression" in expected:
            expression = expected["expression"]
            expected["answer"] = expected["quotes"] if expression is None else float(evaluate(expression))
        line = {"id": row.id, "input": row.input, "expected": expected, "group": row.group}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def kind_of(row: DatasetRow) -> str:
    """Returns the kind of answer of a row, in a word or two."""
    match row.output:
        case {"label": str(label)}:
            return label
        case {"answer": answer}:
            return "not told" if answer is None else "told"
        case _:
            return "quote" if row.output.get("quotes") else "expression"


def main() -> None:
    """Prints the contents of files, and writes rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=READERS)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--rows", type=Path, help="write them to this file as evaluation rows")
    given = parser.parse_args()
    found: list[DatasetRow] = []
    for path in given.files:
        try:
            rows = READERS[given.kind](path)
        except Unusable as error:
            sys.exit(str(error))
        what = Counter(kind_of(row) for row in rows)
        print(f"{path}: {len(rows)} rows of {len({row.group for row in rows})} groups: {dict(what)}")
        found += rows
    if given.rows is not None:
        given.rows.write_bytes(as_test(found))


if __name__ == "__main__":
    main()
