"""The table reader: a fine-tuned encoder that answers questions about a table and its text by selecting locations and
an operation.

It generates no text. A head gives each token some logits. Averaged over the tokens of a location, a row or a column,
they predict the cells with the answer, the figures and the operation of a computation, the selected rows, and the
column that rows are ordered by. Code does the rest: it reads, counts, compares and writes the expression. Figures of
the question may limit the rows (`orchestra.agents.inference.tables.filters`). Tagging cells and choosing an operator is
from TagOp (Zhu et al. 2021, https://arxiv.org/abs/2105.07624) and TAPAS (Herzig et al. 2020,
https://arxiv.org/abs/2004.02349). Comparisons that name a column and are then computed, as in a query, are our own
addition.

`model.json` has the input and output fields, the base encoder, and the SHA-256 of the arrays beside it (`.npz`): the
adapters `down.NAME` and `up.NAME`, each of one member, and the head: `weight` (outputs, width) and `bias` (outputs).
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
"""Version 1 had no `gap`, version 2 no conditions and no `range`. Their agents must be trained again."""
MAX_WINDOWS = 16
"""Maximum windows of a table and its text: about eight thousand tokens."""
MAX_STARTS = 20
"""Number of most probable start tokens that are considered for words of the text."""
A = TypeVar("A")


class TableReaderConfig(EncoderModelConfig):
    """The configuration in `model.json`."""

    format: Literal["orchestra/table/v3"]
    question: str
    """The input with the question."""
    table: str
    """The input with the table."""
    paragraphs: str
    """The input with the text around the table."""
    tokens: Annotated[int, Field(ge=64, le=512)] = 512
    """Maximum tokens of a window."""
    outputs: tuple[str, ...] = OUTPUT_NAMES
    """The outputs of the head, in the order of its rows."""
    longest: Annotated[int, Field(ge=1, le=256)] = 40
    """Maximum tokens of words of the text."""
    cells: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Added to the logits of locations. It sets how readily more locations than the most probable one are selected."""
    rows: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Added to the logits of rows."""
    held: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Added instead to the logits of rows that meet a condition: all of them count, except totals."""
    groups: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Logarithm of the factor for whole columns, and for rows selected by a word of the question."""
    apart: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Penalty for two figures that share neither a row nor a column."""
    regard: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Exponent of the probability of an operation's locations in the choice of the operation. An operation without
    possible locations is excluded.
    """
    sharpen: Annotated[float, Field(gt=0, allow_inf_nan=False, validation_alias=AliasChoices("sharpen", "heat"))] = 1.0
    """Exponent of the probability of an answer, so that it is calibrated; formerly `heat`."""
    units: UnitWeights | None = None
    """Weights of the words that tell whether figures are in thousands, millions or billions. Without them the encoder
    decides.
    """


def reads_tables(card: Card) -> bool:
    """Whether an agent of kind `encoder` answers questions about tables."""
    return set(TABLE_ANSWER_FIELDS) <= set(card.output_schema.get("properties", {}))


class TableAnswer(NamedTuple):
    """An answer before it is written: locations, rows, column and operation, and its probability."""

    operation: str
    probability: float
    locations: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    column: int | None = None
    compared_cell: tuple[int, int] | None = None
    """The row and the column of the cell that is the maximum or minimum."""
    text: str = ""
    conditions: tuple[Condition, ...] = ()
    multiplied: bool = False
    """Whether the locations are pairs, whose products are added."""


class TableReader:
    """A loaded table reader."""

    def __init__(
        self, config: TableReaderConfig, arrays: Mapping[str, NDArray[Any]], encoder: Encoder, card: Card
    ) -> None:
        """Raises `ValueError` or `KeyError` if the arrays do not fit the encoder."""
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
        """Loads the reader of a card's folder, with its base encoder.

        Raises:
            InputError: A011 if its files are missing, damaged or inconsistent.
        """
        with array_errors(card):
            return cls(*TableReaderConfig.read(card), encoder, card)

    def predict(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """Returns the answer and its probability.

        Raises:
            InputError: A023 if the table and the text are too long.
        """
        encoding = self.encode_inputs(inputs)
        if len(encoding.windows) > MAX_WINDOWS:
            reason = (
                f"{self.config.table} and {self.config.paragraphs} have about {len(encoding.chars):,} tokens, which is"
                " too long to read"
            )
            raise InputError("A023", reason, hint="give the rows and the paragraphs that matter")
        table_answer, scale = self.decode(encoding, self.logits(encoding))
        return (
            self._card.output_form.fill(answer_fields(table_answer, scale, encoding), None),
            table_answer.probability**self.config.sharpen,
        )

    def encode_inputs(self, inputs: Mapping[str, Any]) -> TableEncoding:
        """Encodes the inputs of a call."""
        config = self.config
        return TableEncoding(
            self.encoder, str(inputs[config.question]), inputs[config.table], inputs[config.paragraphs], config.tokens
        )

    def logits(self, encoding: TableEncoding) -> TableLogits[NDArray[Any]]:
        """Returns the logits of an encoded table."""
        import numpy as np

        window_outputs = np.concatenate(
            [self.encoder.encode(window, self._adapters)[0] @ self._weight.T for window in encoding.windows]
        )
        combined_logits = add_percentage_logits(
            encoding, table_logits(window_outputs + self._bias, encoding.pooling(), _log_sum_exp)
        )
        if self.config.units is None:
            return combined_logits
        unit_logits = self.config.units.logits(
            unit_signs(
                encoding.question,
                encoding.table[: encoding.header_rows],
                encoding.table[encoding.header_rows :],
                encoding.paragraphs,
            )
        )
        rest = len(SCALES) - len(UNITS)
        return combined_logits._replace(
            scales=np.concatenate(
                [combined_logits.scales[:rest], _log_sum_exp(combined_logits.scales[rest:]) + np.array(unit_logits)]
            )
        )

    def decode(self, encoding: TableEncoding, logits: TableLogits[NDArray[Any]]) -> tuple[TableAnswer, str]:
        """Returns the most probable operation with an answer that can be computed, its locations, and the scale."""
        logits = logits._replace(cells=logits.cells + self.config.cells)
        probabilities, scales = softmax(logits.operations), softmax(logits.scales)
        scale = int(scales.argmax())
        best, value = TableAnswer(CELLS, 0.0), -math.inf
        for number in probabilities.argsort()[::-1]:
            chance = float(probabilities[number])
            if _safe_log(chance) <= value:
                break
            table_answer = self._answer_by(OPERATIONS[int(number)], encoding, logits)
            if (
                table_answer is None
                or _answer_figures(table_answer, encoding) is None
                or not can_evaluate(_answer_expression(table_answer, encoding))
            ):
                continue
            if (worth := _safe_log(chance) + self.config.regard * _safe_log(table_answer.probability)) > value:
                best, value = (
                    table_answer._replace(probability=table_answer.probability * chance * float(scales[scale])),
                    worth,
                )
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
            table_answer = _extreme_cell(operation, encoding, logits, rows)
        elif operation == RANGE:
            table_answer = _column_range(encoding, logits, rows)
        elif operation == COUNT:
            table_answer = (
                TableAnswer(operation, rows.probability, rows=rows.selected)
                if len(encoding.table) > encoding.header_rows
                else None
            )
        elif not conditions:
            table_answer = _location_set(operation, encoding, logits, self.config.groups)
        else:
            table_answer = _column_cells(operation, encoding, logits, rows)
        return (
            None
            if table_answer is None
            else table_answer._replace(probability=table_answer.probability * probability, conditions=conditions)
        )

    def _text_answer(self, encoding: TableEncoding, logits: TableLogits[NDArray[Any]]) -> TableAnswer | None:
        """Returns the most probable words of one paragraph."""
        import numpy as np

        place = encoding.paragraph_ids()
        prose = place >= 0
        if not prose.any():
            return None
        begin, end = (np.where(prose, side_logits, -np.inf) for side_logits in (logits.begin, logits.end))
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
    """Returns the fields of the output without the answer, which is computed."""
    expression = _answer_expression(found, encoding)
    quotes = (
        []
        if expression is not None
        else [found.text]
        if found.operation == TEXT
        else [encoding.locations[at].text for at in found.locations]
    )
    output: dict[str, Any] = {"way": found.operation, "quotes": quotes, "expression": expression, "scale": scale}
    output |= {
        "cells": list(map(list, _supporting_cells(found, encoding))),
        "rows": list(found.rows),
        "column": found.column,
    }
    condition_fields = [
        {"column": condition.column, "bound": condition.bound, "limit": encoding.locations[condition.location].text}
        for condition in found.conditions
    ]
    return output | dict(zip(("condition", "also"), [*condition_fields, None, None], strict=False))


def _answer_expression(table_answer: TableAnswer, encoding: TableEncoding) -> str | None:
    """Returns the expression of the answer; None if it is read. A count is a sum of ones."""
    if table_answer.operation == COUNT:
        return sum_expression(["1"] * len(table_answer.rows)) or "0"
    if table_answer.multiplied:
        figures = _answer_figures(table_answer, encoding) or []
        return sum_expression(
            [f"{first} * {second}" for first, second in zip(figures[::2], figures[1::2], strict=True)]
        )
    if table_answer.operation in (SUM, MEAN, RANGE, *PAIR_OPERATIONS):
        return build_expression(table_answer.operation, _answer_figures(table_answer, encoding) or [])
    return None


def _answer_figures(table_answer: TableAnswer, encoding: TableEncoding) -> list[str] | None:
    """Returns the figures of the computation; None if those of cells have different units. The figures of a share may
    have different units.
    """
    locations = [encoding.locations[at] for at in table_answer.locations]
    figures, columns = [str(location.figure) for location in locations], {location.column for location in locations}
    spelt = {encoding.spelling_of(column) for column in columns if column >= 0}
    if -1 in columns or len(spelt) != 1 or (len(columns) > 1 and table_answer.operation in ("share", "ratio")):
        return figures
    return harmonize_figures(table_answer.operation, [location.text for location in locations], figures, *spelt)


def _safe_log(chance: float) -> float:
    return math.log(max(chance, 1e-30))


def _supporting_cells(table_answer: TableAnswer, encoding: TableEncoding) -> list[tuple[int, int]]:
    """Returns the rows and columns of the cells that support an answer: the selected ones, the compared one, those of
    conditions, and the first filled cell of each row that is counted without a condition.
    """
    cells = [
        (location.row, location.column)
        for location in (encoding.locations[at] for at in table_answer.locations)
        if location.row >= 0
    ]
    if table_answer.conditions:
        rows = table_answer.rows if table_answer.operation == COUNT else dict.fromkeys(row for row, _ in cells)
        cells += [(row, condition.column) for condition in table_answer.conditions for row in rows]
    elif table_answer.operation == COUNT:
        first = {location.row: location.column for location in reversed(encoding.locations) if location.row >= 0}
        cells = [(row, first[row]) for row in table_answer.rows if row in first]
    return list(dict.fromkeys([*cells, *([table_answer.compared_cell] if table_answer.compared_cell else [])]))


def _location_set(
    operation: str, encoding: TableEncoding, logits: TableLogits[NDArray[Any]], groups: float
) -> TableAnswer | None:
    """Returns the most probable set of locations; at least two for a sum."""
    sums = operation in (SUM, MEAN)
    figure_locations = (
        (at, location) for at, location in enumerate(encoding.locations) if location.question_figure is None
    )
    fit = [at for at, location in figure_locations if (location.figure is not None if sums else location.row >= 0)]
    at_least = 2 if sums else 1
    if len(fit) < at_least:
        return None
    cells = {
        (encoding.locations[at].row, encoding.locations[at].column): number
        for number, at in enumerate(fit)
        if encoding.locations[at].row >= 0
    }
    cell_indexes, probability = most_probable_set(
        logits.cells[fit], [*column_groups(encoding, cells)], groups, at_least
    )
    locations = tuple(fit[at] for at in cell_indexes)
    if not sums or not mixes_counts_and_prices(encoding, locations):
        return TableAnswer(operation, probability, locations=locations)
    price_pairs = count_price_pairs(encoding, locations) if operation == SUM else []
    return (
        TableAnswer(
            operation if len(price_pairs) > 1 else PRODUCT, probability, tuple(chain(*price_pairs)), multiplied=True
        )
        if price_pairs
        else None
    )


def _best_pair(
    operation: str, encoding: TableEncoding, logits: TableLogits[NDArray[Any]], apart: float
) -> TableAnswer | None:
    """Returns the most probable pair of figures."""
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
    """The rows that count."""

    selected: tuple[int, ...]
    probability: float
    candidates: tuple[int, ...]
    """The rows that may count: all below the header, or those that meet the conditions."""

    @property
    def comparable(self) -> tuple[int, ...]:
        """The rows that are compared for a maximum or minimum; never empty."""
        return self.selected or self.candidates


def _choose_conditions(
    encoding: TableEncoding, logits: TableLogits[NDArray[Any]]
) -> tuple[tuple[Condition, ...], float]:
    """Returns the most probable conditions, at most two, and their probability."""
    import numpy as np

    conditions, probability, after = list[Condition](), 1.0, -1
    first, second = (
        (logits.condition_columns, logits.limits, logits.bounds),
        (logits.extra_columns, logits.extra_limits, logits.extra_bounds),
    )
    for choice_row, limits, bounds in (first, second):
        if not len(choice_row):
            break
        choice = softmax(np.array([bounds[0], *choice_logits(encoding, limits, bounds, after)]))
        condition, chance = choose_condition(
            encoding, choice, softmax(choice_row), conditions[-1] if conditions else None
        )
        probability *= chance
        if condition is None:
            break
        conditions.append(condition)
        after = condition.location
    return tuple(conditions), probability


def _select_rows(
    encoding: TableEncoding, logits: NDArray[Any], conditions: Sequence[Condition], groups: float
) -> _SelectedRows:
    """Returns the most probable set of rows among those that meet the conditions."""
    row_candidates = tuple(
        row
        for row in range(encoding.header_rows, len(encoding.table))
        if all(condition.row_mask[row] for condition in conditions)
    )
    place = {row: at for at, row in enumerate(row_candidates)}
    row_places = [inside for rows in row_groups(encoding) if (inside := [place[row] for row in rows if row in place])]
    row_indexes, probability = most_probable_set(logits[list(row_candidates)], row_places, groups)
    return _SelectedRows(tuple(row_candidates[at] for at in row_indexes), probability, row_candidates)


def _column_cells(
    operation: str, encoding: TableEncoding, logits: TableLogits[NDArray[Any]], rows: _SelectedRows
) -> TableAnswer | None:
    """Returns the cells of the answer column in the selected rows."""
    import numpy as np

    cells = {(location.row, location.column): at for at, location in enumerate(encoding.locations) if location.row >= 0}
    for column in np.argsort(-logits.answer_columns):
        column_cells = [cells[row, int(column)] for row in rows.selected if (row, int(column)) in cells]
        locations = tuple(at for at in column_cells if operation == CELLS or encoding.locations[at].figure is not None)
        if locations:
            return TableAnswer(
                operation, float(softmax(logits.answer_columns)[column]) * rows.probability, locations, rows.selected
            )
    return None


def _extreme_cell(
    operation: str, encoding: TableEncoding, logits: TableLogits[NDArray[Any]], selected_rows: _SelectedRows
) -> TableAnswer | None:
    """Returns the cell of the answer column in the row where the order column has its extreme among the selected
    rows.
    """
    import numpy as np

    rows = selected_rows.comparable
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
        for column_order in np.argsort(-logits.answer_columns):
            if (top, int(column_order)) in cells:
                probability = (
                    float(softmax(logits.order_columns)[column] * softmax(logits.answer_columns)[column_order])
                    * selected_rows.probability
                )
                return TableAnswer(
                    operation, probability, (cells[top, int(column_order)],), rows, int(column), (top, int(column))
                )
    return None


def _column_range(
    encoding: TableEncoding, logits: TableLogits[NDArray[Any]], selected_rows: _SelectedRows
) -> TableAnswer | None:
    """Returns the cells with the maximum and minimum of the order column among the selected rows, if their figures
    match their sort keys.
    """
    import numpy as np

    rows = selected_rows.comparable
    cells = {(location.row, location.column): at for at, location in enumerate(encoding.locations) if location.row >= 0}
    for column in np.argsort(-logits.order_columns):
        ends = range_ends(_column_texts(encoding, cells, rows, int(column)), encoding.spelling_of(int(column)))
        if ends is not None:
            locations = tuple(cells[rows[at], int(column)] for at in ends)
            return TableAnswer(
                RANGE,
                float(softmax(logits.order_columns)[column]) * selected_rows.probability,
                locations,
                rows,
                int(column),
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

    peak = logits.max(axis=0)
    log_sums: NDArray[Any] = peak + np.log(np.exp(logits - peak).sum(axis=0))
    return log_sums
