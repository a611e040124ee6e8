"""Tables: a fine-tuned encoder that reads a question beside a table and its text, and says in which way which places
answer it.

It writes nothing. A head gives each token some logits; averaged over the tokens of a place, of a row and of a column
they say which cells the answer stands in, which figures are computed with and how, which rows count, and by which
column rows are put in order. Code does the rest: it reads off, counts, compares and writes the expression. Rows may be
bounded by figures of the question (`orchestra.agents.inference.tables.filters`). The idea of tagging cells and choosing
an operator is TagOp's (Zhu et al. 2021, https://arxiv.org/abs/2105.07624) and TAPAS' (Herzig et al. 2020,
https://arxiv.org/abs/2004.02349); that a comparison names a column and is then computed, as a query would, is ours.

`model.json` says what is read and given, on what base the encoder stands, and the SHA-256 of the arrays beside it
(`.npz`): the adapters `down.NAME` and `up.NAME`, each of one member, and the head: `weight` (outputs, width) and `bias`
(outputs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import AliasChoices, Field

from orchestra.agents.card import Card
from orchestra.agents.computed_fields import TABLE_ANSWER_FIELDS
from orchestra.agents.inference.array_files import array_errors
from orchestra.agents.inference.encoder import Encoder, lora_weights
from orchestra.agents.inference.model_file import EncoderModelConfig
from orchestra.agents.inference.tables.encoding import TableEncoding
from orchestra.agents.inference.tables.filters import Condition, choice_logits, choose_condition
from orchestra.agents.inference.tables.head import OUTPUT_NAMES, TableLogits, table_logits
from orchestra.agents.inference.tables.operations import (
    CELLS,
    COUNT,
    GAP,
    LEAST,
    MEAN,
    MOST,
    OPERATIONS,
    PAIR_OPERATIONS,
    PRODUCT,
    RANGE,
    SCALES,
    SUM,
    TEXT,
    build_expression,
    can_evaluate,
    harmonize_figures,
    range_ends,
    sum_expression,
)
from orchestra.agents.inference.tables.percentages import add_percentage_logits
from orchestra.agents.inference.tables.row_choice import (
    column_groups,
    most_probable_pair,
    most_probable_set,
    row_groups,
    softmax,
)
from orchestra.agents.inference.tables.scales import UNITS, UnitWeights, unit_signs
from orchestra.agents.inference.tables.unit_prices import count_price_pairs, mixes_counts_and_prices
from orchestra.core.errors import InputError
from orchestra.text.keywords import expand_to_words
from orchestra.text.numbers.sort_keys import find_extremes

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT: Literal["orchestra/table/v3"] = "orchestra/table/v3"
"""The first had no `gap`, the second no conditions and no `range`: what was trained in them is trained again."""
MAX_WINDOWS = 16
"""Windows of a table and its text at most: about eight thousand tokens."""
MAX_STARTS = 20
"""The likeliest tokens for words of the text to begin at that are looked at."""
A = TypeVar("A")


class TableReaderConfig(EncoderModelConfig):
    """What `model.json` says."""

    format: Literal["orchestra/table/v3"]
    question: str
    """The input that asks."""
    table: str
    """The input that is the table."""
    paragraphs: str
    """The input that is the text beside it."""
    tokens: Annotated[int, Field(ge=64, le=512)] = 512
    """Tokens of a window at most."""
    outputs: tuple[str, ...] = OUTPUT_NAMES
    """What the rows of the head are."""
    longest: Annotated[int, Field(ge=1, le=256)] = 40
    """Tokens of words of the text at most."""
    cells: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """What is added to the logits of places: how readily there is a further one beside the likeliest."""
    rows: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """What is added to the logits of rows."""
    held: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """And instead of it to those of rows that hold a condition, which but for totals all count."""
    groups: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How much likelier whole columns are, and rows that a word of the question picks: the logarithm of the factor."""
    apart: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How much less likely two figures are that stand neither in one row nor in one column."""
    regard: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """The power of the probability of its places that a way is chosen by, besides its own: a way whose places cannot be
    told is none.
    """
    sharpen: Annotated[float, Field(gt=0, allow_inf_nan=False, validation_alias=AliasChoices("sharpen", "heat"))] = 1.0
    """The power of which the probability of an answer is taken, so that it says how often answers are right; called
    `heat`
    before.
    """
    units: UnitWeights | None = None
    """Which words tell whether figures are in thousands, millions or billions. Without them the encoder guesses."""


def reads_tables(card: Card) -> bool:
    """Whether an agent of kind `encoder` answers questions to tables."""
    return set(TABLE_ANSWER_FIELDS) <= set(card.output_schema.get("properties", {}))


class TableAnswer(NamedTuple):
    """An answer before it is written: which places, rows and column in which way, and how probable that is."""

    operation: str
    probability: float
    locations: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    column: int | None = None
    compared_cell: tuple[int, int] | None = None
    """The row and the column of the cell that is the most or the least."""
    text: str = ""
    conditions: tuple[Condition, ...] = ()
    multiplied: bool = False
    """Whether the places are pairs, whose products are added up."""


class TableReader:
    """A reader of tables, ready."""

    def __init__(
        self, config: TableReaderConfig, arrays: Mapping[str, NDArray[Any]], encoder: Encoder, card: Card
    ) -> None:
        """Raises `ValueError` or `KeyError` for arrays that do not fit the encoder."""
        import numpy as np

        self.config, self.encoder, self._card = config, encoder, card
        wide = {name: array.astype(np.float32) for name, array in arrays.items()}
        self._adapters = lora_weights(wide, encoder.shape)
        self._weight, self._bias = wide["weight"], wide["bias"]
        if config.outputs != OUTPUT_NAMES:
            raise ValueError("the head has other outputs than are known: train it again, with --start")
        if self._weight.shape != (len(OUTPUT_NAMES), encoder.shape.hidden_size) or self._bias.shape != (
            len(OUTPUT_NAMES),
        ):
            raise ValueError("the head has another shape than the encoder")

    @classmethod
    def load(cls, card: Card, encoder: Encoder) -> TableReader:
        """The reader of a card's folder, on its base. Raises `InputError` A011 where its files are missing, damaged or
        do
        not fit.
        """
        with array_errors(card):
            return cls(*TableReaderConfig.read(card), encoder, card)

    def predict(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """The answer and its probability. Raises `InputError` A023 for a table and a text that are too long."""
        encoding = self.encode_inputs(inputs)
        if len(encoding.windows) > MAX_WINDOWS:
            reason = (
                f"{self.config.table} and {self.config.paragraphs} have about {len(encoding.chars):,} tokens, which is"
                " too long to read"
            )
            raise InputError("A023", reason, hint="give the rows and the paragraphs that matter")
        found, scale = self.decode(encoding, self.logits(encoding))
        return (
            self._card.output_form.fill(answer_fields(found, scale, encoding), None),
            found.probability**self.config.sharpen,
        )

    def encode_inputs(self, inputs: Mapping[str, Any]) -> TableEncoding:
        """What is read of a call's inputs."""
        config = self.config
        return TableEncoding(
            self.encoder, str(inputs[config.question]), inputs[config.table], inputs[config.paragraphs], config.tokens
        )

    def logits(self, encoding: TableEncoding) -> TableLogits[NDArray[Any]]:
        """What the head says of a sheet."""
        import numpy as np

        read = np.concatenate(
            [self.encoder.encode(window, self._adapters)[0] @ self._weight.T for window in encoding.windows]
        )
        found = add_percentage_logits(encoding, table_logits(read + self._bias, encoding.pooling(), _log_sum_exp))
        if self.config.units is None:
            return found
        unit_logits = self.config.units.logits(
            unit_signs(
                encoding.question,
                encoding.table[: encoding.header_rows],
                encoding.table[encoding.header_rows :],
                encoding.paragraphs,
            )
        )
        rest = len(SCALES) - len(UNITS)
        return found._replace(
            scales=np.concatenate([found.scales[:rest], _log_sum_exp(found.scales[rest:]) + np.array(unit_logits)])
        )

    def decode(self, encoding: TableEncoding, logits: TableLogits[NDArray[Any]]) -> tuple[TableAnswer, str]:
        """The likeliest way in which there is an answer that can be computed at all, with its places, and the scale."""
        logits = logits._replace(cells=logits.cells + self.config.cells)
        probabilities, scales = softmax(logits.operations), softmax(logits.scales)
        scale = int(scales.argmax())
        best, value = TableAnswer(CELLS, 0.0), -math.inf
        for number in probabilities.argsort()[::-1]:
            chance = float(probabilities[number])
            if _safe_log(chance) <= value:
                break
            found = self._answer_by(OPERATIONS[int(number)], encoding, logits)
            if (
                found is None
                or _answer_figures(found, encoding) is None
                or not can_evaluate(_answer_expression(found, encoding))
            ):
                continue
            if (worth := _safe_log(chance) + self.config.regard * _safe_log(found.probability)) > value:
                best, value = found._replace(probability=found.probability * chance * float(scales[scale])), worth
        return best, SCALES[scale] if value > -math.inf else ""

    def _answer_by(
        self, operation: str, encoding: TableEncoding, logits: TableLogits[NDArray[Any]]
    ) -> TableAnswer | None:
        if operation == TEXT:
            return self._text_answer(encoding, logits)
        if operation in PAIR_OPERATIONS:
            return _best_pair(operation, encoding, logits, self.config.apart)
        conditions, probability = _choose_conditions(encoding, logits)
        rows = _select_rows(
            encoding,
            logits.rows + (self.config.held if conditions else self.config.rows),
            conditions,
            self.config.groups,
        )
        if operation in (MOST, LEAST):
            found = _extreme_cell(operation, encoding, logits, rows)
        elif operation == RANGE:
            found = _column_range(encoding, logits, rows)
        elif operation == COUNT:
            found = (
                TableAnswer(operation, rows.probability, rows=rows.selected)
                if len(encoding.table) > encoding.header_rows
                else None
            )
        elif not conditions:
            found = _location_set(operation, encoding, logits, self.config.groups)
        else:
            found = _column_cells(operation, encoding, logits, rows)
        return (
            None
            if found is None
            else found._replace(probability=found.probability * probability, conditions=conditions)
        )

    def _text_answer(self, encoding: TableEncoding, logits: TableLogits[NDArray[Any]]) -> TableAnswer | None:
        """The likeliest words of one paragraph."""
        import numpy as np

        place = encoding.paragraph_ids()
        prose = place >= 0
        if not prose.any():
            return None
        begin, end = (np.where(prose, one, -np.inf) for one in (logits.begin, logits.end))
        best, span = -math.inf, (0, 0)
        for start in np.flatnonzero(prose)[np.argsort(-begin[prose])[:MAX_STARTS]]:
            stop = start + self.config.longest
            together = (place[start:stop] == place[start]).cumprod().astype(bool)
            sums = np.where(together, end[start:stop], -np.inf)
            last = int(sums.argmax())
            if begin[start] + sums[last] > best:
                best, span = begin[start] + sums[last], (int(start), int(start) + last)
        if best == -math.inf:
            return None
        probability = float(softmax(begin)[span[0]] * softmax(end)[span[1]])
        return TableAnswer(TEXT, probability, text=_text_between(encoding, *span))


def answer_fields(found: TableAnswer, scale: str, encoding: TableEncoding) -> dict[str, Any]:
    """The fields of the output, but the answer, which is computed."""
    said = _answer_expression(found, encoding)
    quotes = (
        []
        if said is not None
        else [found.text]
        if found.operation == TEXT
        else [encoding.locations[at].text for at in found.locations]
    )
    output: dict[str, Any] = {"way": found.operation, "quotes": quotes, "expression": said, "scale": scale}
    output |= {
        "cells": list(map(list, _supporting_cells(found, encoding))),
        "rows": list(found.rows),
        "column": found.column,
    }
    named = [
        {"column": one.column, "bound": one.bound, "limit": encoding.locations[one.location].text}
        for one in found.conditions
    ]
    return output | dict(zip(("condition", "also"), [*named, None, None], strict=False))


def _answer_expression(found: TableAnswer, encoding: TableEncoding) -> str | None:
    """What computes the answer; None where it is read off. What is counted is summed up, one by one."""
    if found.operation == COUNT:
        return sum_expression(["1"] * len(found.rows)) or "0"
    if found.multiplied:
        figures = _answer_figures(found, encoding) or []
        return sum_expression(
            [f"{first} * {second}" for first, second in zip(figures[::2], figures[1::2], strict=True)]
        )
    if found.operation in (SUM, MEAN, RANGE, *PAIR_OPERATIONS):
        return build_expression(found.operation, _answer_figures(found, encoding) or [])
    return None


def _answer_figures(found: TableAnswer, encoding: TableEncoding) -> list[str] | None:
    """The figures that are computed with; None where those of cells are in different units. A share may be of different
    columns' kinds.
    """
    locations = [encoding.locations[at] for at in found.locations]
    figures, columns = [str(location.figure) for location in locations], {location.column for location in locations}
    spelt = {encoding.spelling_of(column) for column in columns if column >= 0}
    if -1 in columns or len(spelt) != 1 or (len(columns) > 1 and found.operation in ("share", "ratio")):
        return figures
    return harmonize_figures(found.operation, [location.text for location in locations], figures, *spelt)


def _safe_log(chance: float) -> float:
    return math.log(max(chance, 1e-30))


def _supporting_cells(found: TableAnswer, encoding: TableEncoding) -> list[tuple[int, int]]:
    """Rows and columns of the cells that an answer rests on: those that were pointed at, the one that was compared,
    those
    of conditions, and of each row that was counted without one the first filled one.
    """
    cells = [
        (location.row, location.column)
        for location in (encoding.locations[at] for at in found.locations)
        if location.row >= 0
    ]
    if found.conditions:
        counted = found.rows if found.operation == COUNT else dict.fromkeys(row for row, _ in cells)
        cells += [(row, one.column) for one in found.conditions for row in counted]
    elif found.operation == COUNT:
        first = {location.row: location.column for location in reversed(encoding.locations) if location.row >= 0}
        cells = [(row, first[row]) for row in found.rows if row in first]
    return list(dict.fromkeys([*cells, *([found.compared_cell] if found.compared_cell else [])]))


def _location_set(
    operation: str, encoding: TableEncoding, logits: TableLogits[NDArray[Any]], groups: float
) -> TableAnswer | None:
    """Those of the places that are likeliest together in the answer; two at least where they are summed up."""
    sums = operation in (SUM, MEAN)
    given = ((at, location) for at, location in enumerate(encoding.locations) if location.question_figure is None)
    fit = [at for at, location in given if (location.figure is not None if sums else location.row >= 0)]
    at_least = 2 if sums else 1
    if len(fit) < at_least:
        return None
    cells = {
        (encoding.locations[at].row, encoding.locations[at].column): number
        for number, at in enumerate(fit)
        if encoding.locations[at].row >= 0
    }
    taken, probability = most_probable_set(logits.cells[fit], [*column_groups(encoding, cells)], groups, at_least)
    locations = tuple(fit[at] for at in taken)
    if not sums or not mixes_counts_and_prices(encoding, locations):
        return TableAnswer(operation, probability, locations=locations)
    both = count_price_pairs(encoding, locations) if operation == SUM else []
    return (
        TableAnswer(operation if len(both) > 1 else PRODUCT, probability, tuple(chain(*both)), multiplied=True)
        if both
        else None
    )


def _best_pair(
    operation: str, encoding: TableEncoding, logits: TableLogits[NDArray[Any]], apart: float
) -> TableAnswer | None:
    """The likeliest two figures."""
    import numpy as np

    fit = [at for at, location in enumerate(encoding.locations) if location.figure is not None]
    if len(fit) < 2:
        return None
    rows, wide = (np.array([getattr(encoding.locations[at], name) for at in fit]) for name in ("row", "column"))
    cells = (rows >= 0)[:, None] & (rows >= 0)[None, :]
    away = cells & (rows[:, None] != rows[None, :]) & (wide[:, None] != wide[None, :])
    first, second, probability = most_probable_pair(
        logits.first[fit], logits.second[fit], away, apart, unordered=operation == GAP
    )
    return TableAnswer(operation, probability, locations=(fit[first], fit[second]))


class _SelectedRows(NamedTuple):
    """Rows that count."""

    selected: tuple[int, ...]
    probability: float
    candidates: tuple[int, ...]
    """Those that may count: all below the head, or those that hold the conditions."""

    @property
    def comparable(self) -> tuple[int, ...]:
        """Those among which there is a most and a least, for one there must be."""
        return self.selected or self.candidates


def _choose_conditions(
    encoding: TableEncoding, logits: TableLogits[NDArray[Any]]
) -> tuple[tuple[Condition, ...], float]:
    """The likeliest conditions, none to two, and how probable that is."""
    import numpy as np

    found, probability, after = list[Condition](), 1.0, -1
    first, second = (
        (logits.condition_columns, logits.limits, logits.bounds),
        (logits.extra_columns, logits.extra_limits, logits.extra_bounds),
    )
    for which, limits, bounds in (first, second):
        if not len(which):
            break
        choice = softmax(np.array([bounds[0], *choice_logits(encoding, limits, bounds, after)]))
        one, chance = choose_condition(encoding, choice, softmax(which), found[-1] if found else None)
        probability *= chance
        if one is None:
            break
        found.append(one)
        after = one.location
    return tuple(found), probability


def _select_rows(
    encoding: TableEncoding, logits: NDArray[Any], conditions: Sequence[Condition], groups: float
) -> _SelectedRows:
    """The rows that are likeliest to count together, of those that hold the conditions."""
    every = tuple(
        row for row in range(encoding.header_rows, len(encoding.table)) if all(one.row_mask[row] for one in conditions)
    )
    place = {row: at for at, row in enumerate(every)}
    some = [inside for rows in row_groups(encoding) if (inside := [place[row] for row in rows if row in place])]
    taken, probability = most_probable_set(logits[list(every)], some, groups)
    return _SelectedRows(tuple(every[at] for at in taken), probability, every)


def _column_cells(
    operation: str, encoding: TableEncoding, logits: TableLogits[NDArray[Any]], rows: _SelectedRows
) -> TableAnswer | None:
    """The cells of the column that is asked for in rows that count."""
    import numpy as np

    cells = {(location.row, location.column): at for at, location in enumerate(encoding.locations) if location.row >= 0}
    for column in np.argsort(-logits.answer_columns):
        here = [cells[row, int(column)] for row in rows.selected if (row, int(column)) in cells]
        locations = tuple(at for at in here if operation == CELLS or encoding.locations[at].figure is not None)
        if locations:
            return TableAnswer(
                operation, float(softmax(logits.answer_columns)[column]) * rows.probability, locations, rows.selected
            )
    return None


def _extreme_cell(
    operation: str, encoding: TableEncoding, logits: TableLogits[NDArray[Any]], counted: _SelectedRows
) -> TableAnswer | None:
    """The cell of the column that is asked for, in the row where the column that is compared by has its extreme among
    rows
    that count.
    """
    import numpy as np

    rows = counted.comparable
    cells = {(location.row, location.column): at for at, location in enumerate(encoding.locations) if location.row >= 0}
    for column in np.argsort(-logits.order_columns):
        tops = find_extremes(
            _column_texts(encoding, cells, rows, int(column)),
            largest=operation == MOST,
            number_format=encoding.spelling_of(int(column)),
        )
        if not tops:
            continue
        top = rows[tops[0]]
        for asked in np.argsort(-logits.answer_columns):
            if (top, int(asked)) in cells:
                probability = (
                    float(softmax(logits.order_columns)[column] * softmax(logits.answer_columns)[asked])
                    * counted.probability
                )
                return TableAnswer(
                    operation, probability, (cells[top, int(asked)],), rows, int(column), (top, int(column))
                )
    return None


def _column_range(
    encoding: TableEncoding, logits: TableLogits[NDArray[Any]], counted: _SelectedRows
) -> TableAnswer | None:
    """The most and the least of the column that is compared by, among rows that count, where their figures are what
    they
    are ordered by.
    """
    import numpy as np

    rows = counted.comparable
    cells = {(location.row, location.column): at for at, location in enumerate(encoding.locations) if location.row >= 0}
    for column in np.argsort(-logits.order_columns):
        ends = range_ends(_column_texts(encoding, cells, rows, int(column)), encoding.spelling_of(int(column)))
        if ends is not None:
            locations = tuple(cells[rows[at], int(column)] for at in ends)
            return TableAnswer(
                RANGE, float(softmax(logits.order_columns)[column]) * counted.probability, locations, rows, int(column)
            )
    return None


def _column_texts(
    encoding: TableEncoding, cells: Mapping[tuple[int, int], int], rows: Sequence[int], column: int
) -> list[str]:
    return [encoding.locations[cells[row, column]].text if (row, column) in cells else "" for row in rows]


def _text_between(encoding: TableEncoding, first: int, last: int) -> str:
    start, end = encoding.chars[first], encoding.chars[last]
    return (
        "" if start is None or end is None else encoding.text[slice(*expand_to_words(encoding.text, start[0], end[1]))]
    )


def _log_sum_exp(logits: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    most = logits.max(axis=0)
    given: NDArray[Any] = most + np.log(np.exp(logits - most).sum(axis=0))
    return given
