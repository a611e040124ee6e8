"""Training targets of a table reader: the cells or words of the answer in an encoded table, and the operation on them.

A row has the answer, and not always its position. If several positions have the same text, all are targets, and the
reader has to find one of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeAlias

from orchestra.agents.inference.tables.encoding import TableEncoding, TableLocation
from orchestra.agents.inference.tables.filters import condition_choices, condition_locations, matching_rows
from orchestra.agents.inference.tables.operations import (
    CELLS,
    COUNT,
    DIFFERENCE,
    GAP,
    LEAST,
    MEAN,
    MOST,
    OPERATIONS,
    PAIR_OPERATIONS,
    PERCENT_OPERATIONS,
    RANGE,
    SCALES,
    SUM,
    TEXT,
    build_expression,
    parse_expression,
    parse_figure,
)
from orchestra.agents.inference.tables.question import find_figure
from orchestra.text.arithmetic import ArithmeticParseError, evaluate
from orchestra.text.keywords import content_words
from orchestra.text.numbers.sort_keys import BOUNDS, find_extremes

CellPositions: TypeAlias = AbstractSet[tuple[int, int]]
"""Rows and columns of cells."""


@dataclass(frozen=True, slots=True)
class TableTarget:
    """The target in an encoded table, by indices. A set of alternatives contains all of them."""

    operation: int
    scale: int
    cells: frozenset[int] = frozenset()
    """Cells that are read or summed."""
    equivalent_cells: frozenset[int] = frozenset()
    """Alternatives with the same value as one of the cells."""
    first: frozenset[int] = frozenset()
    second: frozenset[int] = frozenset()
    rows: frozenset[int] = frozenset()
    answer_columns: frozenset[int] = frozenset()
    ranking_column: int | None = None
    spans: tuple[tuple[int, int], ...] = ()
    """First and last tokens of quoted words."""
    condition: ConditionTarget | None = None
    second_condition: ConditionTarget | None = None
    """The second condition."""
    may_have_condition: bool = False
    """Whether there may be a condition that the row does not name."""

    def satisfies_conditions(self, row: int) -> bool:
        """Returns whether a table row satisfies the conditions."""
        return all(
            condition_target is None or condition_target.row_matches[row]
            for condition_target in (self.condition, self.second_condition)
        )


@dataclass(frozen=True, slots=True)
class ConditionTarget:
    """A condition to find."""

    column: int
    choices: frozenset[int]
    """Its indices in `orchestra.agents.inference.tables.filters.condition_choices`: a figure may occur twice."""
    location: int
    """The first location of the figure."""
    row_matches: tuple[bool, ...]
    """Whether each table row matches."""


def operation_of(expression: str | None, quotes: Sequence[str], table: Sequence[Sequence[str]]) -> str | None:
    """Returns the operation for an answer of figures or quotes without conditions on rows; None if there is none."""
    if expression is not None:
        parsed_expression = parse_expression(expression)
        return None if parsed_expression is None else parsed_expression[0]
    texts = {_normalize_cell(cell) for row in table for cell in row}
    return CELLS if all(_normalize_cell(quote) in texts for quote in quotes) else TEXT


def build_target(output: Mapping[str, Any], encoding: TableEncoding) -> TableTarget | None:
    """Returns the target for an output; None if the answer does not occur in the table, or no operation gives it."""
    way, quotes = str(output["way"]), [str(quote) for quote in output["quotes"]]
    answer_cells = {(int(row), int(column)) for row, column in output["cells"]}
    partial_target = TableTarget(OPERATIONS.index(way), SCALES.index(output["scale"]), rows=frozenset(output["rows"]))
    if output["condition"] is not None:
        if (condition_target := _condition_target(output["condition"], encoding)) is None:
            return None
        partial_target = replace(partial_target, condition=condition_target)
        if output["also"] is not None:
            if (
                second := _condition_target(output["also"], encoding)
            ) is None or second.location <= condition_target.location:
                return None
            before = frozenset(
                choice
                for choice in condition_target.choices
                if condition_choices(encoding)[choice][0] < second.location
            )
            partial_target = replace(
                partial_target, condition=replace(condition_target, choices=before), second_condition=second
            )
    elif way in (COUNT, MOST, LEAST) and any(
        spot.question_figure is not None and spot.question_figure.bound is not None for spot in encoding.locations
    ):
        partial_target = replace(partial_target, may_have_condition=True)
    table_target: TableTarget | None
    if way == COUNT:
        table_target = partial_target if partial_target.rows or partial_target.condition else None
    elif way == RANGE:
        table_target = (
            replace(partial_target, ranking_column=output["column"])
            if partial_target.rows and output["column"] is not None
            else None
        )
    elif partial_target.condition is not None and way in (CELLS, SUM, MEAN):
        table_target = _column_target(partial_target, way, output, encoding)
    elif way in (MOST, LEAST):
        table_target = _extreme_target(partial_target, way, quotes, output["column"], encoding)
    elif way == TEXT:
        spans = _quote_spans(quotes[0], encoding) if len(quotes) == 1 else ()
        table_target = replace(partial_target, spans=spans) if spans else None
    elif way == CELLS:
        table_target = _assign_cells(
            partial_target, [_matching_cells(quote, encoding, answer_cells) for quote in quotes], encoding
        )
    else:
        table_target = _computed_target(partial_target, way, str(output["expression"]), encoding, answer_cells)
    return table_target


def _condition_target(condition: Mapping[str, Any], encoding: TableEncoding) -> ConditionTarget | None:
    """Returns a condition of a table; None if its figure is not in the question or not comparable with its column."""
    at = find_figure(str(condition["limit"]), encoding.question)
    if at is None:
        return None
    spots = condition_locations(encoding)
    holds = matching_rows(encoding, condition["column"], condition["bound"], spots[at])
    if holds is None:
        return None
    alike = {spot for spot in spots if _limit_measure(encoding, spot) == _limit_measure(encoding, spots[at])}
    number = BOUNDS.index(condition["bound"])
    numbers = (
        index
        for index, condition_choice in enumerate(condition_choices(encoding))
        if condition_choice[0] in alike and condition_choice[1] == number
    )
    return ConditionTarget(condition["column"], frozenset(numbers), min(alike), holds)


def _limit_measure(encoding: TableEncoding, index: int) -> str | None:
    figure = encoding.locations[index].question_figure
    return None if figure is None else figure.measure


def _column_target(
    partial: TableTarget, operation: str, output: Mapping[str, Any], encoding: TableEncoding
) -> TableTarget | None:
    """Returns the columns whose cells in the matching rows give the answer."""
    rows = sorted(partial.rows)
    fit = []
    for column in range(max(map(len, encoding.table), default=0)):
        cells = [encoding.cell(row, column) for row in rows]
        figures = [
            figure
            for cell in cells
            if (figure := parse_figure(" ".join(cell.split()), points=encoding.spelling_of(column).decimal_comma))
            is not None
        ]
        if operation == CELLS:
            is_same_column = sorted(_normalize_cell(cell) for cell in cells if cell.strip()) == sorted(
                map(_normalize_cell, output["quotes"])
            )
        else:
            is_same_column = bool(figures) and _evaluate(build_expression(operation, figures)) == _evaluate(
                output["expression"]
            )
        fit += [column] if is_same_column else []
    return replace(partial, answer_columns=frozenset(fit)) if fit and rows else None


def _evaluate(expression: str) -> Fraction | None:
    try:
        return evaluate(expression)
    except ArithmeticParseError:
        return None


def _matching_cells(quote: str, encoding: TableEncoding, answer_cells: CellPositions) -> list[int]:
    return [
        at
        for at, spot in enumerate(encoding.locations)
        if spot.row >= 0 and _is_same_text(spot.text, quote) and _may_be_answer(spot, answer_cells)
    ]


def _may_be_answer(location: TableLocation, answer_cells: CellPositions) -> bool:
    """Returns whether a location may be part of an answer, by the cells that the row names; without named cells all
    may.
    """
    return not answer_cells or location.row < 0 or (location.row, location.column) in answer_cells


def _computed_target(
    partial: TableTarget, operation: str, expression: str, encoding: TableEncoding, answer_cells: CellPositions
) -> TableTarget | None:
    parsed_expression = parse_expression(expression)
    if parsed_expression is None or parsed_expression[0] != (DIFFERENCE if operation == GAP else operation):
        return None
    lists = [
        _figure_positions(figure, encoding, answer_cells, include_question=operation in PAIR_OPERATIONS)
        for figure in parsed_expression[1]
    ]
    if not all(lists):
        return None
    if operation in PAIR_OPERATIONS:
        if operation in PERCENT_OPERATIONS:  # the 10 of “10 percent off” is the question's, even if a cell is 10
            of_question = [
                at
                for at in condition_locations(encoding)
                if _figure_value(str(encoding.locations[at].figure)) == _figure_value(parsed_expression[1][1])
            ]
            lists[1] = of_question or lists[1]
        return replace(partial, first=frozenset(lists[0]), second=frozenset(lists[1]))
    return _assign_cells(partial, lists, encoding)


def _figure_positions(
    figure: str, encoding: TableEncoding, answer_cells: CellPositions, *, include_question: bool
) -> list[int]:
    """Returns the locations of a figure in the table and the text, else, with `include_question`, in the question."""
    value = _figure_value(figure)
    indexed_figures = [
        (at, spot.figure) for at, spot in enumerate(encoding.locations) if _may_be_answer(spot, answer_cells)
    ]
    positions = [
        at for at, figure_text in indexed_figures if figure_text is not None and _figure_value(figure_text) == value
    ]
    outside_question = [at for at in positions if encoding.locations[at].question_figure is None]
    return outside_question or (positions if include_question else [])


def _figure_value(figure: str) -> Fraction | None:
    return _evaluate(figure.replace(",", ""))


def _assign_cells(partial: TableTarget, lists: Sequence[Sequence[int]], encoding: TableEncoding) -> TableTarget | None:
    """Returns a location for each list: of several the one whose row or column has most of the others, and most words
    of the question.
    """
    if not lists or not all(lists):
        return None
    table_locations = [encoding.locations[candidates[0]] for candidates in lists if len(candidates) == 1]
    rows, columns = Counter(spot.row for spot in table_locations), Counter(spot.column for spot in table_locations)
    question_words = content_words(encoding.question)

    def fit(at: int) -> tuple[int, int, int]:
        spot = encoding.locations[at]
        if spot.row < 0:
            return 0, 0, -at
        around = [*encoding.table[spot.row], encoding.cell(0, spot.column)]
        return max(rows[spot.row], columns[spot.column]), len(question_words & content_words(" ".join(around))), -at

    taken_positions: list[int] = []
    for candidates in sorted(lists, key=len):
        free = [at for at in candidates if at not in taken_positions]
        if not free:
            return None
        taken_positions.append(max(free, key=fit))
        rows[encoding.locations[taken_positions[-1]].row] += 1
        columns[encoding.locations[taken_positions[-1]].column] += 1
    all_positions = {at for candidates in lists for at in candidates}
    return replace(
        partial, cells=frozenset(taken_positions), equivalent_cells=frozenset(all_positions - set(taken_positions))
    )


def _extreme_target(
    partial: TableTarget, operation: str, quotes: Sequence[str], column: int | None, encoding: TableEncoding
) -> TableTarget | None:
    rows = sorted(partial.rows)
    if column is None or not rows or len(quotes) != 1:
        return None
    tops = {
        rows[at]
        for at in find_extremes(
            [encoding.cell(row, column) for row in rows],
            largest=operation == MOST,
            number_format=encoding.spelling_of(column),
        )
    }
    answer_columns = {
        spot.column for spot in encoding.locations if spot.row in tops and _is_same_text(spot.text, quotes[0])
    }
    return replace(partial, ranking_column=column, answer_columns=frozenset(answer_columns)) if answer_columns else None


def _quote_spans(quote: str, encoding: TableEncoding) -> tuple[tuple[int, int], ...]:
    """Returns the first and last token of each occurrence of a quote in the text."""
    prose, quote_spans = encoding.prose_mask(), []
    start = encoding.text.find(quote)
    while quote and start >= 0:
        inside = [
            at
            for at, span in enumerate(encoding.chars)
            if span and prose[at] and span[1] > start and span[0] < start + len(quote)
        ]
        if inside and inside[-1] - inside[0] + 1 == len(inside):
            quote_spans.append((inside[0], inside[-1]))
        start = encoding.text.find(quote, start + 1)
    return tuple(quote_spans)


def _normalize_cell(text: str) -> str:
    """Returns a text as cells are compared: without case, blanks, and currencies around a figure."""
    return " ".join(text.casefold().strip(" $€£¥").split())


def _is_same_text(text: str, quote: str) -> bool:
    return _normalize_cell(text) == _normalize_cell(quote)


def answers_match(said: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Returns whether two outputs are the same answer by any operation: value or quotes, and scale."""
    if said["scale"] != wanted["scale"]:
        return False
    return bool(_comparable_answer(said) == _comparable_answer(wanted))


def _comparable_answer(output: Mapping[str, Any]) -> Any:
    if output["expression"] is None:
        return [_normalize_cell(quote) for quote in output["quotes"]]
    try:
        value = round(evaluate(output["expression"]), 2)
        return abs(value) if output["way"] == GAP else value
    except ArithmeticParseError:
        return None
