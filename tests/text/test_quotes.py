"""Positions of quotes in evidence."""

from __future__ import annotations

import random
import unicodedata
from typing import Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestra.agents.evidence_grammar import chunks
from orchestra.core.protocols import EvidenceSource
from orchestra.text.keywords import is_inside_word
from orchestra.text.quotes import NEAR_THRESHOLD, QuoteSpan, find_quote, fold, match_ratio
from orchestra.verification.standalone import verify_answer
from tests.unsafe_reference import assert_cost

WORDS = st.lists(
    st.text(st.characters(categories=["L", "Mn", "Nd", "P", "S"]), min_size=1, max_size=8), min_size=1, max_size=20
)
LATIN = st.lists(
    st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyzäöüéèñßﬁ½Å"), min_size=2, max_size=8), min_size=3, max_size=25
)


@given(WORDS, st.data())
def test_find_quote_exact_position(words: list[str], data: st.DataObject) -> None:
    text = " ".join(words)
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    quote = text[start:end]
    after = text[end : end + 1]
    whole = not after or unicodedata.normalize("NFKC", quote[-1] + after) == "".join(
        unicodedata.normalize("NFKC", c) for c in (quote[-1], after)
    )
    assume(quote.strip() and whole and not (after and unicodedata.combining(unicodedata.normalize("NFKD", after)[0])))
    span = find_quote(quote, (EvidenceSource(text),))
    assert span is not None
    assert text[span.start : span.end] == quote.strip()


@given(LATIN, st.data())
def test_find_quote_ignores_case_spacing_and_form(words: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(start + 1, len(words)))
    text, before = " ".join(words), len(" ".join(words[:start])) + (start > 0)
    wanted = " ".join(words[start:end])
    form: Literal["NFC", "NFD", "NFKC", "NFKD"] = data.draw(st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
    gap = data.draw(st.sampled_from([" ", "  ", "\n", "\u00a0", "\t \n"]))
    case = data.draw(st.sampled_from([str.upper, str.lower, str.title, str.casefold]))
    quote = unicodedata.normalize(form, gap.join(case(word) for word in words[start:end]))
    span = find_quote(quote, (EvidenceSource(text),))
    assert span is not None
    assert fold(text[span.start : span.end]).text == fold(wanted).text
    assert span.start <= before  # the first position
    if all(
        whole.find(part) == whole.rfind(part)
        for whole, part in ((text.casefold(), wanted.casefold()), (fold(text).text, fold(wanted).text))
    ):
        assert (span.start, span.end) == (before, before + len(wanted))


@given(st.lists(st.text(st.sampled_from("abcdefgh"), min_size=2, max_size=6), min_size=1, max_size=20), st.data())
def test_find_quote_changed_word_is_not_found(words: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(words) - 1))
    changed = [*words[:at], words[at] + "z", *words[at + 1 :]]
    assert find_quote(" ".join(changed), (EvidenceSource(" ".join(words)),)) is None


@given(st.text(max_size=40))
def test_fold_maps_to_original(text: str) -> None:
    folded = fold(text)
    assert len(folded.text) == len(folded.starts) == len(folded.ends)
    assert list(folded.starts) == sorted(folded.starts)
    assert all(0 <= start < end <= len(text) for start, end in zip(folded.starts, folded.ends, strict=True))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_fold_in_pieces_equals_whole(text: str) -> None:
    whole = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    assert "".join(fold(text).text.split()) == "".join(whole.split())


@pytest.mark.parametrize(
    ("quote", "text"),
    [("e", "caf\u00e9"), ("cafe", "cafe\u0301"), ("", "text"), ("   ", "text"), ("x", ""), ("s", "ß"), ("f", "ﬁ")],
)
def test_find_quote_partial_letter_is_not_found(quote: str, text: str) -> None:
    assert find_quote(quote, (EvidenceSource(text),)) is None


def test_find_quote_names_first_source() -> None:
    assert find_quote(
        "Dewar", (EvidenceSource("no"), EvidenceSource("James  dewar"), EvidenceSource("Dewar"))
    ) == QuoteSpan(2, 0, 5)
    assert find_quote("james dewar", (EvidenceSource("no"), EvidenceSource("James  dewar"))) == QuoteSpan(1, 0, 12)


@pytest.mark.parametrize(
    ("quote", "text", "stands"),
    [
        ("8 million people", "There are 138 million people.", False), ("5 %", "It rose by 15 %.", False),
        ("5 %", "It is 1.5 %.", False), ("1", "It is 1,500.", False), ("1", "It is 1'500.", False),
        ("1", "1½ cups", False), ("legal", "It is illegal.", False), ("Scottish chemist", "Scottish chemists", False),
        ("LEGAL", "It is illegal.", False), ("caf", "café", False), ("हिन", "हिन्दी", False), ("a_b", "a_b_c", False),
        ("legal", "It is illegal, or legal.", True), ("LEGAL", "It is illegal, or legal.", True),
        ("5", "15 and 1.5 and 5.", True), ("Eiffel", "Eiffel's tower", True), ("10", "10:30", True),
        ("5 %", "It rose by 5 %.", True), ("known", "well-known", True), ("東京", "私は東京に住む", True),
        ("佐", "佐々木", True),
        ("ไทย", "ประเทศไทยนี้", True), ("10,000", "10,000円", True), ("5", "-5", True),
    ],
)  # fmt: skip
def test_find_quote_whole_is_word_aligned(quote: str, text: str, stands: bool) -> None:
    assert (find_quote(quote, (EvidenceSource(text),), whole=True) is not None) is stands
    assert verify_answer(quote, (EvidenceSource(text),), ["quote"]).accepted is stands


@given(st.text(max_size=20) | st.text(st.sampled_from("aé\u0301½1.,'’5 -_々佐한кa"), max_size=12))
def test_find_quote_decoded_words_are_aligned(text: str) -> None:
    at = 0
    for chunk in chunks(text):
        assert not is_inside_word(text, at)
        at += len(chunk)


@pytest.mark.parametrize(("quote", "text"), [("7" * 1000, "7"), ("aa " * 30_000 + "a", "aa "), ("a", "a")])
def test_find_quote_many_cut_matches_is_bounded(quote: str, text: str) -> None:
    evidence = (EvidenceSource(text * ((1 << 20) // len(text))),)
    assert find_quote(quote, evidence, whole=True) is None
    assert_cost(lambda: find_quote(quote, evidence, whole=True), at_most=2_000)


def test_match_ratio_threshold() -> None:
    words = [f"word{index}" for index in range(30)]
    source = (EvidenceSource(" ".join(["before", *words, "after"])),)
    assert match_ratio(" ".join([*words[:10], "other", *words[11:]]), source) >= NEAR_THRESHOLD
    assert match_ratio(" ".join([*words[:2], "other", *words[3:5]]), source) < NEAR_THRESHOLD


def test_match_ratio_scattered_words() -> None:
    wanted = [f"w{index}" for index in range(20)]
    scattered = " ".join(f"{word} {' '.join(['and'] * 30)}" for word in wanted)
    assert match_ratio(" ".join(wanted), (EvidenceSource(scattered),)) < NEAR_THRESHOLD


def test_match_ratio_large_comparison_is_skipped() -> None:
    words = " ".join(random.Random(1).choices("abcdefgh", k=20_000))
    assert match_ratio(words, (EvidenceSource(words + " x"),)) == 0.0
