"""Readers of tables, trained: rows with a question, a table, its text and what answers it in, the files of a card of kind `encoder` out.

The base is frozen but for adapters on the linear layers of its blocks, and a head
(`orchestra.agents.inference.tables.reader`). A row says what answers, and
not always where that stands: where several places have the same text, the loss asks that one of them be found (marginal likelihood), and
says nothing against the others. The rows to tune on settle what `TRIED` has, and how sure it says that it is; nothing else is chosen by
them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestra.agents.card import Card
from orchestra.agents.inference.tables.encoding import Frame, Sheet, heads
from orchestra.agents.inference.tables.filters import CONDITIONED, offered, scores
from orchestra.agents.inference.tables.head import NAMES, Logits, weighed
from orchestra.agents.inference.tables.operations import CELLS, MEAN, PAIRS, SCALES, SUM, TEXT, WAYS
from orchestra.agents.inference.tables.reader import FORMAT, Layout, Tables, of_tables, written
from orchestra.agents.inference.tables.scales import UNITS, Units, signs
from orchestra.core.errors import InputError
from orchestra.learn.compatibility import check_contract
from orchestra.learn.data.dataset import Row
from orchestra.learn.encoders.table_targets import Target, right, target
from orchestra.learn.encoders.training import BATCH, POWERS, HeadTraining, Lesson, Made, arrays_of, likeliest
from orchestra.learn.encoders.training import LEAST as LEAST_ROWS
from orchestra.learn.encoders.units import fitted

if TYPE_CHECKING:
    from torch import Tensor

    from orchestra.agents.inference.encoder import Encoder
    from orchestra.learn.encoders.member import Step
    from orchestra.learn.encoders.tuned import Frozen, Pointing
    from orchestra.learn.encoders.warm_start import Begun

ARRAYS = "tables.npz"
EPOCHS = 3
"""Passes over the rows, where nothing is said."""
TOKENS = 512
"""Tokens of a window."""
MAX_TRAINED = 4
"""Windows of a row that is learnt from at most: longer ones take as long as ten others."""
SHIFTS: Final = tuple(step / 2 for step in range(-6, 7))
"""What is tried as the logit that is added to those of places, and of rows."""
TRIED: Final[Mapping[str, Sequence[float]]] = {
    **dict.fromkeys(("cells", "rows", "held"), SHIFTS),
    "groups": range(7),
    "apart": range(5),
    "regard": (0, 0.1, 0.2, 0.3, 0.5),
}
"""What is settled by the rows to tune on, one after the other, and what is tried (`orchestra.agents.inference.tables.reader.Layout`)."""


@dataclass(frozen=True, slots=True)
class Example:
    """A sheet, and what should be found on it."""

    sheet: Sheet
    target: Target


def run(training: HeadTraining, tell: Callable[[Step], None], *, fresh: bool = False) -> Made:
    """Trains, or goes on after the last checkpoint of a training that was killed.

    Raises `InputError` N103 for a data set of other types, N104 for one without rows that can be learnt from, N147 for a card of another
    form, N140 for a checkpoint of another training.
    """
    card, rows = training.card, training.data.rows
    check_contract(card, training.data.manifest)
    reader, frozen = training.opened(fresh=fresh)
    begun = None if training.begun is None else training.begun.with_outputs(NAMES)
    units = _units(rows["train"], inputs_of(card)).model_dump()
    layout = training.layout(FORMAT, ARRAYS, {"outputs": NAMES, **inputs_of(card), "units": units})
    draft = Layout.model_validate({**layout, "sha256": "0" * 64})
    found = training.examples(lambda row: _example(row, reader, draft))
    arrays = arrays_of(_trained(training, frozen, found, begun, tell))
    settled, figures = _settled(Tables(draft, arrays, reader, card), rows["tune"])
    return training.made(layout | settled, arrays, figures)


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


def _example(row: Row, encoder: Encoder, layout: Layout) -> Example | None:
    given = row.input
    sheet = Sheet(encoder, str(given[layout.question]), given[layout.table], given[layout.paragraphs], layout.tokens)
    found = target(row.output, sheet) if len(sheet.windows) <= MAX_TRAINED else None
    return None if found is None else Example(sheet, found)


def _trained(training: HeadTraining, base: Frozen, found: Sequence[Example], begun: Begun | None, tell: Callable[[Step], None]) -> Pointing:
    """A reader that has learnt the examples; `begun` is what it goes on from."""
    from orchestra.learn.encoders.tuned import Pointing

    member = Pointing(base, training.pace(base), len(NAMES))

    def total(batch: Sequence[int]) -> Tensor:
        import torch

        some = [found[at] for at in batch]
        read = _read(member, [one.sheet for one in some])
        logits = [weighed(one, _frame(example.sheet), _together) for one, example in zip(read, some, strict=True)]
        return torch.stack([loss(one, example) for one, example in zip(logits, some, strict=True)]).mean()

    lengths = [len(one.sheet.windows) * max(map(len, one.sheet.windows)) for one in found]
    facts = (FORMAT, member.pace, BATCH, [(one.sheet.windows, one.target) for one in found])
    return training.taught(member, Lesson(total, lengths, facts), begun, tell)


def _read(member: Pointing, sheets: Sequence[Sheet]) -> list[Tensor]:
    """The head's outputs of each sheet, (tokens, outputs)."""
    import torch

    from orchestra.learn.encoders.tuned import padded_tokens

    windows = [window for sheet in sheets for window in sheet.windows]
    tokens, mask = padded_tokens(windows)
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
    if way in CONDITIONED and not wanted.untold:
        total = total + _conditions(logits, example)
    if way in PAIRS:
        fit = [spot.figure is not None for spot in sheet.spots]
        return total + _one_of(_only(logits.first, fit), wanted.first) + _one_of(_only(logits.second, fit), wanted.second)
    if way == TEXT:
        prose = sheet.prose().tolist()
        begins, ends = ({span[side] for span in wanted.spans} for side in (0, 1))
        return total + _one_of(_only(logits.begin, prose), begins) + _one_of(_only(logits.end, prose), ends)
    if way in (CELLS, SUM, MEAN) and wanted.condition is None:
        fit = [spot.given is None and (spot.row >= 0 if way == CELLS else spot.figure is not None) for spot in sheet.spots]
        counted = torch.tensor([at for at, one in enumerate(fit) if one and at not in wanted.alike])
        right = torch.tensor([float(int(at) in wanted.cells) for at in counted])
        each = functional.binary_cross_entropy_with_logits(logits.cells[counted], right, reduction="sum") / len(wanted.cells)
        return total + each + _one_of(_only(logits.cells, fit), wanted.cells | wanted.alike)
    every = [at for at in range(sheet.top, len(sheet.table)) if wanted.holds(at)]
    if every:  # of rows that hold no condition nothing is wanted
        counted = torch.tensor([float(at in wanted.rows) for at in every])
        total = total + functional.binary_cross_entropy_with_logits(logits.rows[every], counted, reduction="sum") / 2
    if wanted.by is not None:
        total = total + _one_of(logits.by, {wanted.by})
    return total + _one_of(logits.asked, wanted.asked) if wanted.asked else total


def _conditions(logits: Logits[Tensor], example: Example) -> Tensor:
    """How improbable the conditions are that should be found: of each the figure and the bound, and the column; or that there is none."""
    import torch

    sheet, wanted, after = example.sheet, example.target, -1
    total = logits.bounds.new_zeros(())
    for one, columns, limits, bounds in (
        (wanted.condition, logits.bounded, logits.limits, logits.bounds),
        (wanted.also, logits.also, logits.also_limits, logits.also_bounds),
    ):
        if one is None and after >= 0 and any(at > after and _bounding(sheet, at) for at in offered(sheet)):
            break  # there may be a second one that nobody told
        choice = torch.stack([bounds[0], *scores(sheet, limits, bounds, after)])
        total = total + _one_of(choice, {0} if one is None else {1 + at for at in one.choices})
        if one is None:
            break
        total = total + _one_of(columns, {one.column})
        after = one.spot
    return total


def _bounding(sheet: Sheet, spot: int) -> bool:
    """Whether words around a figure of the question set a bound."""
    given = sheet.spots[spot].given
    return given is not None and given.bound is not None


def _one_of(logits: Tensor, wanted: frozenset[int] | set[int]) -> Tensor:
    """How improbable it is that one of these is chosen."""
    return logits.logsumexp(0) - logits[sorted(wanted)].logsumexp(0)


def _only(logits: Tensor, allowed: Sequence[bool]) -> Tensor:
    import torch

    return logits.masked_fill(~torch.tensor(allowed, dtype=torch.bool), -1e4)


def _settled(reader: Tables, rows: Sequence[Row]) -> tuple[dict[str, float], dict[str, float]]:
    """What of `TRIED` most rows are right with, and the power of which the probabilities that the reader says are likeliest; and the share
    of rows that are right. Nothing where there are few rows."""
    if len(rows) < LEAST_ROWS:
        return {}, {}
    read = [(sheet, reader.logits(sheet), row.output) for row in rows for sheet in (reader.sheet(row.input),)]
    plain = reader.layout

    def asked(**settled: float) -> list[tuple[bool, float]]:
        reader.layout = plain.model_copy(update=settled)
        found = [(reader.choose(sheet, logits), sheet, wanted) for sheet, logits, wanted in read]
        return [(right(written(one, scale, sheet), wanted), one.sure) for (one, scale), sheet, wanted in found]

    def count(**settled: float) -> tuple[int, float]:
        return sum(one for one, _ in asked(**settled)), -sum(map(abs, settled.values()))

    settled: dict[str, float] = {}
    for name, tried in TRIED.items():
        settled[name] = float(max(tried, key=lambda one: count(**settled, **{name: one})))
    said = asked(**settled)
    settled["sharpen"] = likeliest(POWERS, lambda power: [(one, sure**power) for one, sure in said])
    return settled, {"exact": sum(one for one, _ in said) / len(said)}
