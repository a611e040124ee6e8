"""Amounts: counts in one column and unit prices in another, which are multiplied and not added.

The encoder was trained on sums of like figures, and selects both figures of a row when a question asks for the cost.
The format of the figures in a column shows that 3 and 68.00 must not be added to 71.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.agents.inference.tables.encoding import TableEncoding

PRICE_DECIMALS = 2
"""Decimals of a price. Two columns differ in kind if all figures of one have two decimals, and all of the other
none.
"""
_YEARS = range(1900, 2101)


def mixes_counts_and_prices(encoding: TableEncoding, locations: Sequence[int]) -> bool:
    """Whether locations are in columns of counts and of prices, so that they must not be added."""
    columns = {encoding.locations[at].column for at in locations} - {-1}
    return len(columns) > 1 and {PRICE_DECIMALS, 0} <= {_common_decimals(encoding, column) for column in columns}


def count_price_pairs(encoding: TableEncoding, locations: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the count and the price of each row, in the order of the columns; empty if the locations are not such
    pairs.
    """
    columns = sorted({encoding.locations[at].column for at in locations})
    if len(columns) != 2 or {_common_decimals(encoding, column) for column in columns} != {PRICE_DECIMALS, 0}:
        return []
    places = {(encoding.locations[at].row, encoding.locations[at].column): at for at in locations}
    rows = sorted({row for row, _ in places})
    is_complete = len(places) == len(rows) * 2 and not _has_years(encoding, columns)
    return [(places[row, columns[0]], places[row, columns[1]]) for row in rows] if is_complete else []


def _column_figures(encoding: TableEncoding, column: int) -> list[str]:
    return [
        location.figure
        for location in encoding.locations
        if location.column == column and location.row >= encoding.header_rows and location.figure is not None
    ]


def _common_decimals(encoding: TableEncoding, column: int) -> int | None:
    """Returns the number of decimals that all figures of a column have; None if they differ, and for no figures and
    times.
    """
    decimal_counts = (
        {len(figure.partition(".")[2]) if " " not in figure else None for figure in _column_figures(encoding, column)}
        if column >= 0
        else set()
    )
    return decimal_counts.pop() if len(decimal_counts) == 1 else None


def _has_years(encoding: TableEncoding, columns: Sequence[int]) -> bool:
    """Whether the figures of one of the columns are years."""
    return any(
        all(figure.isdecimal() and int(figure) in _YEARS for figure in _column_figures(encoding, column))
        for column in columns
    )
