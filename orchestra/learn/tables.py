"""Readers of tables, trained: rows with a question, a table, its text and what answers it in, the files of a card of kind `encoder` out.

The base is frozen but for adapters on the linear layers of its blocks, and a head (`orchestra.agent.tables`). A row says what answers, and
not always where that stands: where several places have the same text, the loss asks that one of them be found (marginal likelihood), and
says nothing against the others. The rows to tune on settle how readily a further cell or row counts, and how sure it says that it is;
nothing else is chosen by them.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from orchestra.agent.card import Card
from orchestra.agent.classical import packed
from orchestra.agent.sheet import Frame, Sheet, Spot, heads
from orchestra.agent.table_ways import CELLS, COUNT, DIFFERENCE, GAP, LEAST, MEAN, MOST, PAIRS, SCALES, SUM, TEXT, WAYS, parsed
from orchestra.agent.tables import FORMAT, NAMES, Layout, Logits, Tables, of_tables, weighed, written
from orchestra.agent.units import UNITS, Units, signs
from orchestra.errors import InputError
from orchestra.fleet.encoders import described
from orchestra.learn.begun import Begun
from orchestra.learn.contract import check_contract
from orchestra.learn.dataset import Row
from orchestra.learn.encoder import Made, Settled
from orchestra.learn.spans import BATCH, HEATS, Training, arrays_of, batches
from orchestra.learn.spans import LEAST as LEAST_ROWS
from orchestra.learn.units import fitted
from orchestra.values.arithmetic import NotArithmetic, evaluate
from orchestra.values.measure import extremes
from orchestra.values.words import content

if TYPE_CHECKING:
    from torch import Tensor

    from orchestra.learn.member import Step
    from orchestra.learn.tuned import Frozen, Pace, Pointing

ARRAYS = "tables.npz"
EPOCHS = 3
"""Passes over the rows, where nothing is said."""
TOKENS = 512
"""Tokens of a window."""
MAX_TRAINED = 4
"""Windows of a row that is learnt from at most: longer ones take as long as ten others."""
Named: TypeAlias = AbstractSet[tuple[int, int]]
"""Rows and columns of cells."""
SHIFTS: Final = tuple(step / 2 for step in range(-6, 7))
"""What is tried on the rows to tune on as the logit that is added to those of places, and of rows."""


@dataclass(frozen=True, slots=True)
class Target:
    """What should be found on a sheet, by numbers. Of a set of which one will do, all are given."""

    way: int
    scale: int
    cells: frozenset[int] = frozenset()
    """Places that are read off or summed up."""
    alike: frozenset[int] = frozenset()
    """Others that say the same as one of them."""
    first: frozenset[int] = frozenset()
    second: frozenset[int] = frozenset()
    rows: frozenset[int] = frozenset()
    asked: frozenset[int] = frozenset()
    by: int | None = None
    spans: tuple[tuple[int, int], ...] = ()
    """First and last tokens of words."""


@dataclass(frozen=True, slots=True)
class Example:
    """A sheet, and what should be found on it."""

    sheet: Sheet
    target: Target


def way_of(expression: str | None, quotes: Sequence[str], table: Sequence[Sequence[str]]) -> str | None:
    """In which way an answer of figures, or of quotes, comes about where no rows are compared; None where in none of the ways."""
    if expression is not None:
        found = parsed(expression)
        return None if found is None else found[0]
    texts = {_plain(cell) for row in table for cell in row}
    return CELLS if all(_plain(quote) in texts for quote in quotes) else TEXT


def run(training: Training, tell: Callable[[Step], None], *, fresh: bool = False) -> Made:
    """Trains, or goes on after the last whole epoch of a training that was killed.

    Raises `InputError` N103 for a data set of other types, N104 for one without rows that can be learnt from, N147 for a card of another
    form, N140 for a checkpoint of another training.
    """
    from orchestra.agent.encoder import Encoder
    from orchestra.learn.tuned import Frozen, Pace

    card, data = training.card, training.data
    check_contract(card, data.manifest)
    if fresh:
        shutil.rmtree(training.folder, ignore_errors=True)
    reader, frozen, begun = Encoder.load(training.base), Frozen.load(training.base), training.begun
    layout: dict[str, Any] = {
        "format": FORMAT,
        **inputs_of(card),
        "base": described(card.model, training.base).model_dump(),
        "tokens": training.tokens,
        "units": _units(data.rows["train"], inputs_of(card)).model_dump(),
        "data": [source.model_dump() for source in training.sources],
        "arrays": ARRAYS,
    }
    draft = Layout.model_validate({**layout, "sha256": "0" * 64})
    found = [example for row in data.rows["train"] if (example := _example(row, reader, draft)) is not None]
    if not found:
        raise InputError("N104", f"{data.manifest.name} has no rows to train on", hint="more rows, or other shares of the parts")
    pace = Pace(epochs=training.epochs, rate=training.rate, rank=training.rank, blocks=frozen.shape.layers, seed=training.seed)
    member = trained(frozen, found, pace, training.folder / "member.safetensors", tell, begun)
    arrays = arrays_of(member)
    settled = _settled(Tables(draft, arrays, reader, card), data.rows["tune"])
    exact = {"exact": settled.pop("exact")} if settled else {}
    text, content = packed(layout | settled, arrays)
    return Made({ARRAYS: content, card.data: text.encode()}, Settled(1.0, 0.0, settled.get("heat", 1.0), 0.0, exact))


def _units(rows: Sequence[Row], inputs: Mapping[str, str]) -> Units:
    """What tells the unit of figures, by the rows whose answers have one."""
    found = []
    for row in rows:
        table = row.input[inputs["table"]]
        if (scale := str(row.output["scale"])) in UNITS:
            top = heads(table)
            found.append((signs(str(row.input[inputs["question"]]), table[:top], table[top:], row.input[inputs["paragraphs"]]), scale))
    return fitted(found)


def inputs_of(card: Card) -> dict[str, str]:
    """The names of a card's inputs, by what they are. Raises `InputError` N147 for a card of another form."""
    inputs: Mapping[str, Any] = card.input_schema.get("properties", {})
    depths = {name: _depth(schema) for name, schema in inputs.items()}
    if of_tables(card) and sorted(depths.values()) == [0, 1, 2]:
        of = {depth: name for name, depth in depths.items()}
        return {"question": of[0], "table": of[2], "paragraphs": of[1]}
    hint = "input: {question: str, table: list[list[str]], paragraphs: list[str]}; the output as that of table_reader"
    raise InputError("N147", f"{card.name} does not read tables", hint=hint)


def _depth(schema: Mapping[str, Any]) -> int:
    """How many lists a type is in."""
    return 1 + _depth(schema.get("items", {})) if schema.get("type") == "array" else 0


def _example(row: Row, encoder: Any, layout: Layout) -> Example | None:
    given = row.input
    sheet = Sheet(encoder, str(given[layout.question]), given[layout.table], given[layout.paragraphs], layout.tokens)
    found = target(row.output, sheet) if len(sheet.windows) <= MAX_TRAINED else None
    return None if found is None else Example(sheet, found)


def target(output: Mapping[str, Any], sheet: Sheet) -> Target | None:
    """What should be found on a sheet for an output; None where it does not stand there, or in no way that there is."""
    way, quotes = str(output["way"]), [str(quote) for quote in output["quotes"]]
    named = {(int(row), int(column)) for row, column in output["cells"]}
    begun = Target(WAYS.index(way), SCALES.index(output["scale"]), rows=frozenset(output["rows"]))
    found: Target | None
    if way == COUNT:
        found = begun if begun.rows else None
    elif way in (MOST, LEAST):
        found = _compared(begun, way, quotes, output["column"], sheet)
    elif way == TEXT:
        spans = _spans(quotes[0], sheet) if len(quotes) == 1 else ()
        found = replace(begun, spans=spans) if spans else None
    elif way == CELLS:
        found = _set(begun, [_cells(quote, sheet, named) for quote in quotes], sheet)
    else:
        found = _computed(begun, way, str(output["expression"]), sheet, named)
    return found


def _cells(quote: str, sheet: Sheet, named: Named) -> list[int]:
    return [at for at, spot in enumerate(sheet.spots) if spot.row >= 0 and _same(spot.text, quote) and _meant(spot, named)]


def _meant(spot: Spot, named: Named) -> bool:
    """Whether a place may be one of an answer's, by the cells that a row names: all may where it names none."""
    return not named or spot.row < 0 or (spot.row, spot.column) in named


def _computed(begun: Target, way: str, expression: str, sheet: Sheet, named: Named) -> Target | None:
    said = parsed(expression)
    if said is None or said[0] != (DIFFERENCE if way == GAP else way):
        return None
    lists = [_figures(figure, sheet, named, asked=way in PAIRS) for figure in said[1]]
    if not all(lists):
        return None
    if way in PAIRS:
        return replace(begun, first=frozenset(lists[0]), second=frozenset(lists[1]))
    return _set(begun, lists, sheet)


def _figures(figure: str, sheet: Sheet, named: Named, *, asked: bool) -> list[int]:
    """The places of a figure: those of the table and of the text, or else, where it may be `asked`, of the question."""
    value = _value(figure)
    every = [(at, spot.figure) for at, spot in enumerate(sheet.spots) if _meant(spot, named)]
    found = [at for at, said in every if said is not None and _value(said) == value]
    told = [at for at in found if not sheet.spots[at].asked]
    return told or (found if asked else [])


def _value(figure: str) -> Fraction | None:
    try:
        return Fraction(figure.replace(",", ""))
    except ValueError:
        return None


def _set(begun: Target, lists: Sequence[Sequence[int]], sheet: Sheet) -> Target | None:
    """A place for each list: of several the one whose row or column has most of the others, and most words of the question."""
    if not lists or not all(lists):
        return None
    known = [sheet.spots[one[0]] for one in lists if len(one) == 1]
    rows, columns = Counter(spot.row for spot in known), Counter(spot.column for spot in known)
    asked = content(sheet.question)

    def fit(at: int) -> tuple[int, int, int]:
        spot = sheet.spots[at]
        if spot.row < 0:
            return 0, 0, -at
        around = [*sheet.table[spot.row], _cell(sheet, 0, spot.column)]
        return max(rows[spot.row], columns[spot.column]), len(asked & content(" ".join(around))), -at

    taken: list[int] = []
    for one in sorted(lists, key=len):
        free = [at for at in one if at not in taken]
        if not free:
            return None
        taken.append(max(free, key=fit))
        rows[sheet.spots[taken[-1]].row] += 1
        columns[sheet.spots[taken[-1]].column] += 1
    every = {at for one in lists for at in one}
    return replace(begun, cells=frozenset(taken), alike=frozenset(every - set(taken)))


def _compared(begun: Target, way: str, quotes: Sequence[str], column: int | None, sheet: Sheet) -> Target | None:
    rows = sorted(begun.rows)
    if column is None or not rows or len(quotes) != 1:
        return None
    tops = {rows[at] for at in extremes([_cell(sheet, row, column) for row in rows], most=way == MOST)}
    asked = {spot.column for spot in sheet.spots if spot.row in tops and _same(spot.text, quotes[0])}
    return replace(begun, by=column, asked=frozenset(asked)) if asked else None


def _cell(sheet: Sheet, row: int, column: int) -> str:
    return sheet.table[row][column] if row < len(sheet.table) and column < len(sheet.table[row]) else ""


def _spans(quote: str, sheet: Sheet) -> tuple[tuple[int, int], ...]:
    """First and last tokens of each place of the text where a quote stands."""
    prose, found = sheet.prose(), []
    start = sheet.text.find(quote)
    while quote and start >= 0:
        inside = [at for at, span in enumerate(sheet.chars) if span and prose[at] and span[1] > start and span[0] < start + len(quote)]
        if inside and inside[-1] - inside[0] + 1 == len(inside):
            found.append((inside[0], inside[-1]))
        start = sheet.text.find(quote, start + 1)
    return tuple(found)


def _plain(text: str) -> str:
    """A text as cells are compared: without case, blanks, and currencies around a figure."""
    return " ".join(text.casefold().strip(" $€£¥").split())


def _same(text: str, quote: str) -> bool:
    return _plain(text) == _plain(quote)


def trained(
    base: Frozen, found: Sequence[Example], pace: Pace, checkpoint: Path, tell: Callable[[Step], None], begun: Begun | None = None
) -> Pointing:
    """A reader that has learnt the examples; `begun` is what it goes on from."""
    from orchestra.learn.member import Epochs
    from orchestra.learn.tuned import Pointing

    member = Pointing(base, pace, len(NAMES))
    lengths = [len(one.sheet.windows) * max(map(len, one.sheet.windows)) for one in found]

    def total(batch: Sequence[int]) -> Tensor:
        import torch

        some = [found[at] for at in batch]
        read = _read(member, [one.sheet for one in some])
        logits = [weighed(one, _frame(example.sheet), _together) for one, example in zip(read, some, strict=True)]
        return torch.stack([loss(one, example) for one, example in zip(logits, some, strict=True)]).mean()

    mark = hashlib.sha256(repr((FORMAT, pace, BATCH, [(one.sheet.windows, one.target) for one in found])).encode()).hexdigest()
    run = Epochs(total, lambda seed: batches(lengths, seed), mark + (begun.sha256 if begun else ""), checkpoint)
    run.through(member, pace, lambda: None if begun is None else begun.give(member), tell)
    return member


def _read(member: Pointing, sheets: Sequence[Sheet]) -> list[Tensor]:
    """The head's outputs of each sheet, (tokens, outputs)."""
    import torch

    windows = [window for sheet in sheets for window in sheet.windows]
    length = max(map(len, windows))
    tokens = torch.tensor([[*window, *[0] * (length - len(window))] for window in windows])
    mask = torch.arange(length) < torch.tensor([[len(window)] for window in windows])
    every = member.logits(member.base.begun(tokens), mask)
    made, at = [], 0
    for sheet in sheets:
        made.append(torch.cat([every[at + number, : len(window)] for number, window in enumerate(sheet.windows)]))
        at += len(sheet.windows)
    return made


def _frame(sheet: Sheet) -> Frame[Tensor]:
    import torch

    made = sheet.frame()
    return Frame(*(torch.from_numpy(getattr(made, name)) for name in Frame.__dataclass_fields__))


def _together(logits: Tensor) -> Tensor:
    return logits.logsumexp(0)


def loss(logits: Logits[Tensor], example: Example) -> Tensor:
    """How improbable what should be found is: the way, the scale, and the places that the way takes."""
    import torch
    from torch.nn import functional

    sheet, wanted = example.sheet, example.target
    units = {SCALES.index(unit) for unit in UNITS}  # which of them it is, words tell better than an encoder
    total = _one_of(logits.ways, {wanted.way}) + _one_of(logits.scales, units if wanted.scale in units else {wanted.scale})
    way = WAYS[wanted.way]
    if way in PAIRS:
        fit = [spot.figure is not None for spot in sheet.spots]
        return total + _one_of(_only(logits.first, fit), wanted.first) + _one_of(_only(logits.second, fit), wanted.second)
    if way == TEXT:
        prose = sheet.prose().tolist()
        begins, ends = ({span[side] for span in wanted.spans} for side in (0, 1))
        return total + _one_of(_only(logits.begin, prose), begins) + _one_of(_only(logits.end, prose), ends)
    if way in (CELLS, SUM, MEAN):
        fit = [not spot.asked and (spot.row >= 0 if way == CELLS else spot.figure is not None) for spot in sheet.spots]
        counted = torch.tensor([at for at, one in enumerate(fit) if one and at not in wanted.alike])
        right = torch.tensor([float(int(at) in wanted.cells) for at in counted])
        each = functional.binary_cross_entropy_with_logits(logits.cells[counted], right, reduction="sum") / len(wanted.cells)
        return total + each + _one_of(_only(logits.cells, fit), wanted.cells | wanted.alike)
    body = logits.rows[sheet.top :]
    counted = torch.tensor([float(sheet.top + at in wanted.rows) for at in range(len(body))])
    total = total + functional.binary_cross_entropy_with_logits(body, counted, reduction="sum") / 2
    if way == COUNT:
        return total
    assert wanted.by is not None  # of what is compared it is known
    return total + _one_of(logits.by, {wanted.by}) + _one_of(logits.asked, wanted.asked)


def _one_of(logits: Tensor, wanted: frozenset[int] | set[int]) -> Tensor:
    """How improbable it is that one of these is chosen."""
    return logits.logsumexp(0) - logits[sorted(wanted)].logsumexp(0)


def _only(logits: Tensor, allowed: Sequence[bool]) -> Tensor:
    import torch

    return logits.masked_fill(~torch.tensor(allowed, dtype=torch.bool), -1e4)


def _settled(reader: Tables, rows: Sequence[Row]) -> dict[str, float]:
    """How readily there are further cells and further rows, so that most rows are right, and the heat at which the probabilities that the
    reader says are likeliest. Nothing where there are few rows."""
    if len(rows) < LEAST_ROWS:
        return {}
    read = [(sheet, reader.logits(sheet), row.output) for row in rows for sheet in (reader.sheet(row.input),)]
    plain = reader.layout

    def asked(**settled: float) -> list[tuple[bool, float]]:
        reader.layout = plain.model_copy(update=settled)
        found = [(reader.choose(sheet, logits), sheet, wanted) for sheet, logits, wanted in read]
        return [(right(written(one, scale, sheet), wanted), one.sure) for (one, scale), sheet, wanted in found]

    def count(**settled: float) -> tuple[int, float]:
        return sum(one for one, _ in asked(**settled)), -sum(map(abs, settled.values()))

    cells = max(SHIFTS, key=lambda shift: count(cells=shift))
    more = max(SHIFTS, key=lambda shift: count(cells=cells, rows=shift))
    said = asked(cells=cells, rows=more)
    heats = [1 / heat for heat in HEATS]
    heat = min(heats, key=lambda heat: -sum(math.log(max(sure**heat if one else 1 - sure**heat, 1e-6)) for one, sure in said))
    return {"cells": cells, "rows": more, "heat": heat, "exact": sum(one for one, _ in said) / len(said)}


def right(said: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether an output answers as another one does, in whatever way: the same value or the same quotes, and the same scale."""
    if said["scale"] != wanted["scale"]:
        return False
    return bool(_answer(said) == _answer(wanted))


def _answer(output: Mapping[str, Any]) -> Any:
    if output["expression"] is None:
        return [_plain(quote) for quote in output["quotes"]]
    try:
        value = round(evaluate(output["expression"]), 2)
        return abs(value) if output["way"] == GAP else value
    except NotArithmetic:
        return None
