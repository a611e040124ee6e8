"""Amounts: how many of something stand in one column, and what one of them costs in another. These are multiplied, and
never added up.

The encoder was taught sums of figures that are alike, and points at both figures of a row where somebody asks what it
comes to. That 3 and 68.00 are not 71 is known without it: by how the figures of a column are written.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.agents.inference.tables.encoding import TableEncoding

PRICE_DECIMALS = 2
"""Decimals of a price. Where all figures of a column have two, and all of another one none, they are of two kinds."""
_YEARS = range(1900, 2101)


def mixes_counts_and_prices(encoding: TableEncoding, locations: Sequence[int]) -> bool:
    """Whether places stand in columns of counts and of prices, so that no sum is of both."""
    columns = {encoding.locations[at].column for at in locations} - {-1}
    return len(columns) > 1 and {PRICE_DECIMALS, 0} <= {_common_decimals(encoding, column) for column in columns}


def count_price_pairs(encoding: TableEncoding, locations: Sequence[int]) -> list[tuple[int, int]]:
    """The count and the price of each row, in the order of the columns; nothing where places are not such pairs."""
    columns = sorted({encoding.locations[at].column for at in locations})
    if len(columns) != 2 or {_common_decimals(encoding, column) for column in columns} != {PRICE_DECIMALS, 0}:
        return []
    places = {(encoding.locations[at].row, encoding.locations[at].column): at for at in locations}
    rows = sorted({row for row, _ in places})
    whole = len(places) == len(rows) * 2 and not _has_years(encoding, columns)
    return [(places[row, columns[0]], places[row, columns[1]]) for row in rows] if whole else []


def _column_figures(encoding: TableEncoding, column: int) -> list[str]:
    return [
        location.figure
        for location in encoding.locations
        if location.column == column and location.row >= encoding.header_rows and location.figure is not None
    ]


def _common_decimals(encoding: TableEncoding, column: int) -> int | None:
    """The decimals that all figures of a column have; None where they differ, where there are none, and of times."""
    found = (
        {len(figure.partition(".")[2]) if " " not in figure else None for figure in _column_figures(encoding, column)}
        if column >= 0
        else set()
    )
    return found.pop() if len(found) == 1 else None


def _has_years(encoding: TableEncoding, columns: Sequence[int]) -> bool:
    """Whether the figures of one of the columns are years."""
    return any(
        all(figure.isdecimal() and int(figure) in _YEARS for figure in _column_figures(encoding, column))
        for column in columns
    )
