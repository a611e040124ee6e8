"""Guesses of what a request writes next; with vLLM's own drafter, and without a server. Tokens are letters here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings(r"ignore:\s*Encountered the use of a type that is scheduled for deprecation")]

LONGEST = 64
"""Tokens of a request, at most."""


def ids(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def habits(*texts: str, most: int = 1000) -> Any:
    """What was written with adapter 1, each text token by token."""
    from orchestra.fleet.cpu_drafts import Habits

    known = Habits(most)
    for text in texts:
        for end in range(1, len(text) + 1):
            known.learn(1, ids(text[:end]), 1)
    return known


def guessed(known: Any, text: str, most: int = 8, adapter: int = 1) -> str:
    return "".join(map(chr, known.guess(adapter, ids(text), most)))


def test_what_was_written_twice_is_guessed_as_far_as_it_was_the_same() -> None:
    known = habits('{"answer": "Paris"}', '{"answer": "12 km"}', '{"answer": "no"}')
    assert guessed(known, "{", 20) == '"answer": "'
    assert guessed(known, "{", 4) == '"ans'


def test_nothing_is_guessed_of_what_was_written_once_or_with_another_adapter() -> None:
    known = habits("abcdef")
    assert guessed(known, "abc") == ""
    known = habits("abcdef", "abcdef")
    assert guessed(known, "abc") == "def"
    assert guessed(known, "abc", adapter=2) == ""


def test_the_longest_context_that_is_known_tells() -> None:
    known = habits("abcX", "abcX", "ybcZ", "zcZ", "zcZ", "zcZ")
    assert guessed(known, "abc", 1) == "X"
    assert guessed(known, "qqc", 1) == "Z"


def test_a_habit_that_ends_is_forgotten() -> None:
    known = habits(*["ab"] * 100)
    assert guessed(known, "a", 1) == "b"
    for _ in range(12):
        known.learn(1, ids("ac"), 1)
    assert guessed(known, "a", 1) == "c"


def test_several_tokens_of_one_step_are_learnt_like_those_of_several() -> None:
    from orchestra.fleet.cpu_drafts import Habits

    known = Habits()
    for _ in range(2):
        known.learn(1, ids("-abcd"), 4)
    assert guessed(known, "a") == "bcd"


def test_of_too_many_contexts_the_oldest_are_forgotten() -> None:
    known = habits("abab", *(f"{letter}1{letter}1" for letter in "mnopqrst"), most=20)
    assert guessed(known, "a", 1) == ""
    assert guessed(known, "t", 1) == "1"


def drafter(texts: Sequence[str], adapters: Sequence[int], by_chance: Sequence[int] = ()) -> tuple[Any, Any, Any]:
    """A drafter whose batch has these requests, the number of their tokens, and the tokens."""
    import numpy as np

    from orchestra.fleet.cpu_drafts import Drafter

    batch = SimpleNamespace(
        req_ids=[str(row) for row in range(len(texts))],
        random_reqs={str(row) for row in by_chance},
        request_lora_mapping=np.array(adapters, np.int64),
    )
    config = SimpleNamespace(
        speculative_config=SimpleNamespace(prompt_lookup_min=1, prompt_lookup_max=4, num_speculative_tokens=4),
        model_config=SimpleNamespace(max_model_len=LONGEST),
        scheduler_config=SimpleNamespace(max_num_seqs=8),
        parallel_config=SimpleNamespace(tensor_parallel_size=1),
    )
    tokens = np.zeros((len(texts), LONGEST), np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = ids(text)
    return Drafter(config, SimpleNamespace(input_batch=batch)), np.array([len(text) for text in texts], np.int32), tokens


def proposed(drafter: Any, counts: Any, tokens: Any, written: Sequence[int], most: int = 4) -> list[str]:
    """The guesses, where so many tokens of each request are of this step."""
    lists = [tokens[row, counts[row] - new : counts[row]].tolist() for row, new in enumerate(written)]
    return ["".join(map(chr, one)) for one in drafter.propose(most, lists, counts, tokens)]


def test_guesses_come_from_the_request_and_from_habits_and_none_for_those_that_draw_or_wait() -> None:
    one, counts, tokens = drafter(["the Seine is the S", "the Seine is the S", "the Seine is the S", "new"], [1, 1, 1, 1], by_chance=[1])
    assert proposed(one, counts, tokens, [1, 1, 0, 1]) == ["eine", "", "", ""]
    assert proposed(one, counts, tokens, [1, 1, 0, 1], most=2) == ["ei", "", "", ""]
    for _ in range(2):
        one._habits.learn(1, ids("newest"), 3)
    assert proposed(one, counts, tokens, [1, 1, 0, 1]) == ["eine", "", "", "est"]


def test_guesses_end_where_a_request_may_not_be_longer() -> None:
    text = ("abcdefgh" * 8)[:62]
    one, counts, tokens = drafter([text, text + "gh"], [0, 0])
    assert proposed(one, counts, tokens, [1, 1]) == ["gh", ""]


def test_the_first_request_does_not_wait_for_a_compiler() -> None:
    one, counts, tokens = drafter(["the Seine is the S"], [1])
    begun = time.perf_counter()
    proposed(one, counts, tokens, [1])
    assert time.perf_counter() - begun < 0.2, "vLLM's own compiles for seconds here"
