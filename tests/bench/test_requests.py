"""The requests of `bench/requests`: each expected fact is in a document or computed from the tables, and the scorer
accepts it and refuses each forbidden fact.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from bench.requests.baselines import open_tables
from bench.requests.facts import NO, YES, normalise, occurs, read
from bench.requests.scoring import score
from bench.requests.worlds import SPLITS, Request, World, read_worlds, text_of

WORLDS = {world.name: world for split in SPLITS for world in read_worlds(split)}
REQUESTS = {request.id: (world, request) for world in WORLDS.values() for request in world.requests}
assert len(REQUESTS) == sum(len(world.requests) for world in WORLDS.values())
SIZES = {"dev": 150, "validation": 66, "test": 150, "control": 80, "holdout": 100, "second": 40}
ANSWERABLE = [name for name, (_, request) in REQUESTS.items() if request.answerable]
COMPUTED = [name for name in ANSWERABLE if REQUESTS[name][1].sql]


def find_file(world: World, name: str) -> Path:
    return next(file for file in world.files if file.name == name)


def sources_text(world: World, request: Request) -> str:
    return "\n\n".join(text_of(find_file(world, name)) for name in request.sources)


def computed_values(world: World, request: Request) -> list[str]:
    values = [value for row in open_tables(world).execute(request.sql) for value in row]
    return [
        format(Decimal(str(round(one, 9))).normalize(), "f") if isinstance(one, float) else str(one) for one in values
    ]


@pytest.mark.parametrize("name", COMPUTED)
def test_request_values_are_computed_from_the_tables(name: str) -> None:
    world, request = REQUESTS[name]
    values = computed_values(world, request)
    assert values
    for value in values:
        content = read(value)
        assert any(occurs(one, content) for fact in request.expected for one in fact), (value, request.expected)
        assert not any(occurs(one, content, forbidden=True) for one in request.forbidden), (value, request.forbidden)


@pytest.mark.parametrize("name", ANSWERABLE)
def test_request_facts_are_computed_or_in_a_source(name: str) -> None:
    world, request = REQUESTS[name]
    text = sources_text(world, request)
    computed = "\n".join(computed_values(world, request)) if request.sql else ""
    if request.because:
        assert " ".join(normalise(request.because).split()) in " ".join(normalise(text).split())
    for fact in request.expected:
        if YES in fact or NO in fact or request.kind == "classify" or request.because:
            assert request.because
            continue
        found = [one for one in fact if occurs(one, read(text, request.language), request.language)]
        assert found or any(occurs(one, read(computed)) for one in fact), fact


@pytest.mark.parametrize("name", list(REQUESTS))
def test_request_sources_are_named_and_exist(name: str) -> None:
    world, request = REQUESTS[name]
    assert bool(request.sources) is request.answerable
    for source in request.sources:
        assert find_file(world, source).is_file()


def example_answer(request: Request) -> str:
    words = {YES: "yes", NO: "no"}
    return ", ".join(words.get(fact[0], fact[0]) for fact in request.expected)


@pytest.mark.parametrize("name", ANSWERABLE)
def test_request_expected_facts_are_right(name: str) -> None:
    request = REQUESTS[name][1]
    assert score(request, "done", example_answer(request)).verdict == "right"


@pytest.mark.parametrize("name", list(REQUESTS))
def test_request_forbidden_fact_is_wrong(name: str) -> None:
    request = REQUESTS[name][1]
    answer = f"{example_answer(request)}; " if request.answerable else ""
    for one in request.forbidden:
        if one not in (YES, NO):
            assert score(request, "done", f"{answer}{one}").verdict == "wrong", one


@pytest.mark.parametrize("name", ANSWERABLE)
def test_request_incomplete_answer_is_wrong(name: str) -> None:
    request = REQUESTS[name][1]
    if request.at_least == len(request.expected) > 1:
        facts = [fact[0] for fact in request.expected]
        for number in range(len(facts)):
            part = ", ".join(facts[:number] + facts[number + 1 :])
            if facts[number].casefold() not in part.casefold():
                assert score(request, "done", part).verdict != "right", (part, facts[number])


@pytest.mark.parametrize("split", SPLITS)
def test_requests_of_split_have_the_quotas(split: str) -> None:
    part = [request for world in read_worlds(split) for request in world.requests]
    total = len(part)
    kinds = Counter(one.kind for one in part)
    assert total == SIZES[split]
    assert 0.45 <= sum(one.words == "other" for one in part) / total <= 0.55
    assert 0.18 <= sum(not one.answerable for one in part) / total <= 0.22
    assert 0.24 <= sum(len(one.needs) > 1 for one in part) / total <= 0.32
    assert 0.35 <= kinds["document"] / total <= 0.45
    assert 0.2 <= kinds["table"] / total <= 0.3
    assert sum(one.language != "en" for one in part) / total >= 0.065


@pytest.mark.parametrize("world", WORLDS.values(), ids=list(WORLDS))
def test_world_requests_are_numbered_and_differ(world: World) -> None:
    texts = [" ".join(one.request.casefold().split()) for one in world.requests]
    assert len(set(texts)) == len(texts)
    assert [one.id for one in world.requests] == [f"{world.name}-{number:02d}" for number in range(1, len(texts) + 1)]
    assert 5 <= len(world.files) <= 10


def test_request_with_a_verdict_forbids_the_other() -> None:
    claims = [request for _, request in REQUESTS.values() if any(NO in fact for fact in request.expected)]
    assert claims
    assert all(score(request, "done", "Yes, that is correct.").verdict == "wrong" for request in claims)
    assert all(YES in request.forbidden for request in claims)
