"""The plan cache: equal intents, replaced constants, and misses."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.events import Usage
from orchestra.router.capabilities import Capabilities, Capability
from orchestra.router.intents import Intent
from orchestra.router.plan import Plan, build_plan
from orchestra.router.plan_cache import CachedPlanError, build_entry, cache_keys, context_digest, fit_cached_plan
from orchestra.router.plan_syntax import parse_plan
from orchestra.router.prompt import MAX_REQUEST_LENGTH
from tests.router.sample_capabilities import ALL, COMPARE, DOCUMENTS, READER, SEARCH, STR, SUM, contract, offer, record

VALUES = {"request": STR, "documents": DOCUMENTS}
OFFER = offer(*ALL, values=VALUES)
SHAPE = context_digest(OFFER, "router")
COST = Usage(calls=3, prompt_tokens=700, output_tokens=60)


def plan(text: str) -> Plan:
    found = build_plan(parse_plan(text))
    assert found is not None
    return found


def fitted(lines: str, old: str, new: str, given: Capabilities = OFFER) -> str:
    """The stored plan of an old request, adapted to a new one. Raises `CachedPlanError`."""
    of = context_digest(given, "router")
    met = set(cache_keys(old, of)) & set(cache_keys(new, of))
    if not met:
        raise CachedPlanError("their keys do not meet")
    return str(fit_cached_plan(build_entry(plan(lines), old, of, COST), new, given, of)[0])


READ = "s1 = search(query=input.request, documents=input.documents)\nreturn s1"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("When was the tower opened?", "when was  the tower opened"),
        ("When was the tower opened?", "WHEN WAS THE TOWER OPENED?!"),
        ("Quand était-ce, le café ?", unicodedata.normalize("NFD", "quand était-ce le café?")),
        ("the “iron” tower", 'The "Iron" tower.'),
        ("more than 1,000 people", "more than 1000 people"),
        ("ｔｏｗｅｒ", "tower"),
    ],
)
def test_intent_ignores_case_space_punctuation_unicode(old: str, new: str) -> None:
    assert fitted(READ, old, new) == READ


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("When was the tower opened?", "When was the bridge opened?"),
        ("When was the tower opened?", "When was the tower not opened?"),
        ("Is it open?", "It is open?"),
        ("add 2 + 3", "add 2 - 3"),
        ("a cost of 5 %", "a cost of 5"),
        ("learn C++", "learn C"),
        ("learn C#", "learn C"),
    ],
)
def test_intent_other_words_or_signs_differ(old: str, new: str) -> None:
    with pytest.raises(CachedPlanError):
        fitted(READ, old, new)


@pytest.mark.parametrize(
    ("lines", "old", "new", "expected"),
    [
        ('s1 = search(query="iron", documents=input.documents, top=3)\nreturn s1', 'Find 3 passages on "iron"',
         'Find 12 passages on "steel"',
         's1 = search(query="steel", documents=input.documents, top=12)\nreturn s1'),
        ('s1 = search(query="Eiffel Tower", documents=input.documents)\nreturn s1', "Search for the Eiffel Tower",
         "search for the Bank of England.",
         's1 = search(query="Bank of England", documents=input.documents)\nreturn s1'),
        ('s1 = search(query="on 3 May 1889", documents=input.documents)\nreturn s1', "What happened on 3 May 1889?",
         "What happened on 14 July 1789?",
         's1 = search(query="on 14 July 1789", documents=input.documents)\nreturn s1'),
        ('s1 = compare(first=5.5, second=3, how="more")\nreturn s1', "Is 5.5 more than 3?", "Is 2.25 more than 7?",
         's1 = compare(first=2.25, second=7, how="more")\nreturn s1'),
        ('s1 = [search(query=x, documents=input.documents) for x in ["iron", "tin"]]\nreturn s1',
        'find "iron" and "tin"',
         'find "steel" and "gold"',
         's1 = [search(query=x, documents=input.documents) for x in ["steel", "gold"]]\nreturn s1'),
        ('s1 = [compare(first=x, second=3, how="more") for x in [5.5, 7]]\nreturn s1', "Is 5.5 more than 3, or 7?",
         "Is 2.25 more than 6, or 9?",
         's1 = [compare(first=x, second=6, how="more") for x in [2.25, 9]]\nreturn s1'),
        ('s1 = [compare(first=5, second=3, how=x) for x in ["more", "less"]]\nreturn s1', "Is 5 more or less than 3?",
         "IS 5 MORE OR LESS THAN 3?",
         's1 = [compare(first=5, second=3, how=x) for x in ["more", "less"]]\nreturn s1'),
        ("s1 = calculator(question=input.request)\nreturn s1", "What are 3 apples at 12 dollars?",
        "What are 8 apples at 15 dollars?",
         "s1 = calculator(question=input.request)\nreturn s1"),
        ('s1 = search(query="Iron", documents=input.documents)\nreturn s1', "about Iron please", "About IRON, please",
         's1 = search(query="IRON", documents=input.documents)\nreturn s1'),
        ('s1 = search(query="a \\"b\\" c", documents=input.documents)\nreturn s1', 'find a "b" c', 'Find a "x\\y" c',
         's1 = search(query="a \\"x\\\\y\\" c", documents=input.documents)\nreturn s1'),
    ],
)  # fmt: skip
def test_plan_cache_constants_are_taken_from_same_positions(lines: str, old: str, new: str, expected: str) -> None:
    assert fitted(lines, old, new) == expected


TOP = 's1 = search(query="iron", documents=input.documents, top=%d)\nreturn s1'


@pytest.mark.parametrize(
    ("lines", "old", "new", "why"),
    [
        (TOP % 2, "2 passages on iron of 2 pages", "3 passages on iron of 4 pages", "more than once"),
        (TOP % 14, "2 weeks of iron", "3 weeks of iron", "may depend on one that changed"),
        (TOP % 5, "passages on iron from 1889", "passages on iron from 1890", "may depend on one that changed"),
        ('s1 = search(query="iron", documents=input.documents)\nreturn s1', "iron in 1889", "iron in 1890",
        "does not contain '1889'"),
        (READ, "Who founded Apple?", "Who founded Siemens?", "does not contain 'Apple'"),
        (READ.replace("return s1", "return s1[1]"), "passage 2 of these", "passage 3 of these",
        "the structure of the plan"),
        ('s1 = [reader(question=x, context=input.request) for x in ["iron", "tin"]]\nreturn s1',
        "the 2 of them, iron and tin",
         "the 3 of them, iron and tin", "the structure of the plan"),
        ('s1 = [search(query=x, documents=input.documents) for x in ["iron", "tin"]]\nreturn s1',
        'find "iron" and "tin" in 1889',
         'find "iron" and "tin" in 1890', "does not contain '1889'"),
        ('s1 = search(query="ron wor", documents=input.documents)\nreturn s1', 'find "iron works" and "iron works"',
         'find "steel" and "tin"',
         "part of a changed text"),
        ('s1 = search(query="Hund", documents=input.documents)\nreturn s1', 'translate "dog"', 'translate "cat"',
         "may depend on a change"),
        ('s1 = search(query="a", documents=input.documents)\nreturn s1', 'of "a" and of "a"', 'of "b" and of "c"',
        "more than once"),
    ],
)  # fmt: skip
def test_plan_cache_uncertain_constant_is_miss(lines: str, old: str, new: str, why: str) -> None:
    with pytest.raises(CachedPlanError, match=why) as caught:
        fitted(lines, old, new)
    assert not caught.value.is_corrupt


def test_plan_cache_texts_are_substrings_of_new_request() -> None:
    lines, old, new = 's1 = search(query="%s", documents=input.documents)\nreturn s1', 'find "iron"', "find 'steel'"
    given = [offer(*ALL, values=VALUES, words=words) for words in (old, new)]
    assert len({context_digest(one, "router") for one in given}) == 1
    assert fitted(lines % "iron", old, new, given[1]) == lines % "steel"
    with pytest.raises(CachedPlanError, match="is not part of the request") as caught:
        fitted(lines % "tin", old, old, given[0])
    assert caught.value.is_corrupt


def test_plan_cache_two_equal_changes_are_certain() -> None:
    assert fitted(TOP % 2, "2 iron and 2 iron", "3 iron and 3 iron") == TOP % 3


def test_plan_cache_invented_number_stays_when_text_changed() -> None:
    old, new = 'find "iron"', 'find "steel"'
    assert fitted(TOP % 5, old, new) == (TOP % 5).replace("iron", "steel")


def test_plan_cache_result_is_validated_again() -> None:
    with pytest.raises(CachedPlanError, match="expected int"):
        fitted(TOP % 3, "3 of iron", "3.5 of iron")
    choice = 's1 = compare(first=1, second=2, how="more")\nreturn s1'
    with pytest.raises(CachedPlanError, match="/steps/1/with/how"):
        fitted(choice, 'is 1 "more" than 2', 'is 1 "larger" than 2')


@pytest.mark.parametrize(
    "other",
    [
        offer(*ALL, values={**VALUES, "more": STR}),
        offer(*ALL, values={**VALUES, "documents": STR}),
        offer(SEARCH, READER, values=VALUES),
        offer(*ALL, values=VALUES, returns={"type": "boolean"}),
        offer(*ALL, values=VALUES, steps=5),
        offer(*ALL, values=VALUES, words="a"),
        offer(SEARCH, READER, contract("cite", "tool", {}, STR), SUM, COMPARE, values=VALUES),
    ],
)
def test_plan_cache_other_context_has_other_keys(other: Capabilities) -> None:
    assert not set(cache_keys("a", SHAPE)) & set(cache_keys("a", context_digest(other, "router")))


def test_context_digest_covers_router_label_digest_not_order() -> None:
    assert context_digest(OFFER, "another") != SHAPE
    assert context_digest(OFFER, "router", "restricted") != SHAPE
    assert context_digest(offer(*reversed(ALL), values=VALUES), "router") == SHAPE
    changed = [Capability.from_contract(one) for one in ALL[:-1]] + [
        Capability("compare", "tool", {}, frozenset(), STR, digest="1")
    ]
    assert context_digest(offer(*changed, values=VALUES), "router") != SHAPE


STORED = build_entry(plan(READ), "find it", SHAPE, COST)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "orchestra/plan/v0"},
        {"context_digest": "0" * 32},
        {"lines": ["s1 = search(query=input.request, documents=input.documents)"]},
        {"lines": ["import os", "return s1"]},
        {"lines": ["s1 = __import__(name=input.request)", "return s1"]},
        {"lines": ["s1 = search(query=input.secret, documents=input.documents)", "return s1"]},
        {"lines": []},
        {"lines": ["return s1"] * 1000},
        {"lines": "return s1"},
        {"request": 1},
        {"request": "x" * (MAX_REQUEST_LENGTH + 1)},
        {"cost": {"calls": -1}},
        {"cost": {"module": "os"}},
        {"more": 1},
        {"votes": 2, "samples": 1},
        {"votes": 0, "samples": 1},
        {"votes": -1, "samples": 0},
    ],
)
def test_plan_cache_corrupt_or_foreign_entry_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CachedPlanError) as caught:
        fit_cached_plan({**STORED, **change}, "find it", OFFER, SHAPE)
    assert caught.value.is_corrupt


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_plan_cache_any_stored_value_is_hit_or_miss(stored: Any) -> None:
    with pytest.raises(CachedPlanError):
        fit_cached_plan(stored, "find it", OFFER, SHAPE)


@given(st.text(max_size=200))
def test_intent_tokens_of_any_request_are_ordered_spans(request: str) -> None:
    intent = Intent.of(request)
    for pieces in (intent.word_tokens, intent.named_tokens):
        at = 0
        for piece in pieces:
            assert at <= piece.start < piece.end <= len(intent.text)
            at = piece.end


@given(st.text(max_size=120))
def test_plan_cache_same_request_returns_its_plan(request: str) -> None:
    assert fitted(READ, request, request) == READ


def test_plan_cache_truncated_request_is_not_stored() -> None:
    assert cache_keys("a" * (MAX_REQUEST_LENGTH + 1), SHAPE) == ()


def test_plan_cache_stored_record_is_refused() -> None:
    free = offer(contract("take", "tool", {"it": record({"a": STR})}, STR), values=VALUES)
    with pytest.raises(CachedPlanError, match="cannot state"):
        fitted('s1 = take(it={"a": "b"})\nreturn s1', "b", "b", free)
