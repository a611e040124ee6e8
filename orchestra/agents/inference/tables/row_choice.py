"""Sets of locations and rows: the most probable set, from the logits of single items.

An encoder scores each cell or row by itself, and easily omits one of many. Questions are often about whole columns, or
about rows selected by a word (“everything from Papyra”, and three rows contain `Papyra`). So such a group is more
probable than the product of its items: the probability of a set is the product of the probabilities of its items and of
the complements of the others, times a factor if it is a group, normalized over all sets. Two figures that are compared
mostly share a row or a column.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from orchestra.agents.inference.tables.encoding import TOTAL_ROW, TableEncoding
from orchestra.text.keywords import content_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NON_SELECTIVE_WORDS: Final = frozenset(
    ["all", "any", "every", "less", "many", "more", "most", "much", "no", "none", "not", "or", "than", "yes"]
)
"""Words of questions that select no rows, even if a cell contains one."""
_EXCLUSION = re.compile(
    r"\b(?:not|but|besides|except\w*|without|exclud\w+|neither|leaving out|other than|apart from)\b|n['’]t\b",
    re.IGNORECASE,
)
"""Words that exclude rows."""


def row_groups(encoding: TableEncoding) -> Iterator[tuple[int, ...]]:
    """Returns groups of rows below the header: at least two rows with the same words in a column, if the question has
    one of these words.

    Figures are left to conditions. In a table with sections, two rows of one name belong to different sections.
    """
    if _EXCLUSION.search(encoding.question):
        return
    query_words = {word for word in content_words(encoding.question) - _NON_SELECTIVE_WORDS if not word.isdigit()}
    below = range(encoding.header_rows, len(encoding.table))
    for column in range(int(_has_sections(encoding)), max(map(len, encoding.table), default=0)):
        alike: dict[str, list[int]] = defaultdict(list)
        for row in below:
            alike[" ".join(encoding.cell(row, column).casefold().split())].append(row)
        yield from (
            tuple(rows) for words, rows in alike.items() if len(rows) > 1 and content_words(words) & query_words
        )


def _has_sections(encoding: TableEncoding) -> bool:
    """Whether the table has sections, each below a row with only a name."""
    bare = [
        row
        for row in encoding.table[encoding.header_rows :]
        if "".join(row[:1]).strip() and not "".join(row[1:]).strip()
    ]
    return len(bare) > 1


def column_groups(encoding: TableEncoding, cells: Mapping[tuple[int, int], int]) -> Iterator[tuple[int, ...]]:
    """Returns the item indices of each column: in all rows below the header except totals, and in those of a row group.
    A group is left out if a row has no item in the column.

    Args:
        cells: The item index by row and column.
    """
    body_rows = tuple(
        row for row in range(encoding.header_rows, len(encoding.table)) if not TOTAL_ROW.match(encoding.cell(row, 0))
    )
    for rows in (body_rows, *row_groups(encoding)):
        for column in range(max(map(len, encoding.table), default=0)):
            column_cells = tuple(cells[row, column] for row in rows if (row, column) in cells)
            if len(column_cells) == len(rows) > 1:
                yield column_cells


def most_probable_set(
    logits: NDArray[Any], groups: Sequence[Sequence[int]], factor: float, at_least: int = 0
) -> tuple[tuple[int, ...], float]:
    """The most probable set of items, and its probability.

    Each item is in the set independently, with the given logit; a set listed in `groups` gets `factor` (a log-weight)
    on top. The probability is normalised over the sets that `at_least` allows: with 0 every set, with 1 all but the
    empty one, with 2 all but the empty one and single items. Every group must have at least `at_least` members.
    """
    import numpy as np

    order = np.argsort(-logits)
    chosen_indexes = tuple(sorted(int(at) for rank, at in enumerate(order) if rank < at_least or logits[at] > 0))
    values = logits.astype(float)
    none = -float(np.logaddexp(0, values).sum())  # log probability of the empty set
    scores = {tuple(sorted(group)): none + float(values[list(group)].sum()) for group in groups}
    best = max(scores, key=lambda group: scores[group], default=())
    alone = none + float(values[list(chosen_indexes)].sum())
    score = alone + (factor if chosen_indexes in scores else 0.0)
    if best and scores[best] + factor > score:
        chosen_indexes, score = best, scores[best] + factor
    normalizer = 1 + sum(map(math.exp, scores.values())) * math.expm1(factor)
    if at_least > 0:
        normalizer -= math.exp(none)
    if at_least > 1:
        normalizer -= float(np.exp(none + values).sum())
    if normalizer < 1e-9:  # the rest is rounding noise: almost all probability is on smaller sets
        powers = np.exp(values)
        normalizer = math.exp(none) * float(
            powers.sum() if at_least < 2 else (powers.sum() ** 2 - (powers**2).sum()) / 2
        )
    return chosen_indexes, min(math.exp(score) / max(normalizer, 1e-300), 1.0)


def most_probable_pair(
    first: NDArray[Any], second: NDArray[Any], apart: NDArray[Any], factor: float, *, unordered: bool
) -> tuple[int, int, float]:
    """Returns the most probable pair and its probability.

    The logit of a pair is that of its first plus that of its second member, less `factor` if they are `apart`.
    `unordered` counts both orders of a pair as one.
    """
    import numpy as np

    pair_scores = first[:, None] + second[None, :] - factor * apart
    if unordered:
        pair_scores = np.where(np.tri(len(first), dtype=bool), -np.inf, np.logaddexp(pair_scores, pair_scores.T))
    np.fill_diagonal(pair_scores, -np.inf)
    probabilities = softmax(pair_scores)
    first_index, second_index = divmod(int(probabilities.argmax()), len(first))
    return first_index, second_index, float(probabilities[first_index, second_index])


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Returns softmax probabilities."""
    import numpy as np

    powers = np.exp(logits - logits.max())
    probabilities: NDArray[Any] = powers / powers.sum()
    return probabilities
