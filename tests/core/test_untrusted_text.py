"""Display texts: shortening and counting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.untrusted_text import pluralize, shorten


@given(st.text(), st.integers(1, 20))
def test_shorten_never_exceeds_limit(text: str, most: int) -> None:
    short = shorten(text, most)
    assert len(short) <= most
    assert short == text or (short[-1] == "…" and text.startswith(short[:-1]))


@pytest.mark.parametrize(("number", "said"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1000, "1,000 rows")])
def test_pluralize_singular_and_plural(number: int, said: str) -> None:
    assert pluralize(number, "row") == said
