"""The n-gram cache: proposals from earlier text. Tokens are letters here."""

from __future__ import annotations

from orchestra.fleet.vllm_cpu.ngram_cache import NgramCache

OWNER = 1, ""


def ids(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def habits(*texts: str, most: int = 1000) -> NgramCache:
    """Returns a cache that has learnt these texts of their owners, token by token."""
    known = NgramCache(most)
    for text in texts:
        for end in range(1, len(text) + 1):
            known.learn(OWNER, ids(text[:end]), 1)
    return known


def guessed(known: NgramCache, text: str, most: int = 8, owner: tuple[int, str] = OWNER) -> str:
    return "".join(map(chr, known.propose(owner, ids(text), most)))


def test_ngram_repeated_text_is_proposed() -> None:
    known = habits('{"answer": "Paris"}', '{"answer": "12 km"}', '{"answer": "no"}')
    assert guessed(known, "{", 20) == '"answer": "'
    assert guessed(known, "{", 4) == '"ans'


def test_ngram_once_or_other_owner_is_not_proposed() -> None:
    known = habits("abcdef")
    assert guessed(known, "abc") == ""
    known = habits("abcdef", "abcdef")
    assert guessed(known, "abc") == "def"
    assert guessed(known, "abc", owner=(2, "")) == guessed(known, "abc", owner=(1, "other")) == ""


def test_ngram_longest_context_is_used() -> None:
    known = habits("abcX", "abcX", "ybcZ", "zcZ", "zcZ", "zcZ")
    assert guessed(known, "abc", 1) == "X"
    assert guessed(known, "qqc", 1) == "Z"


def test_ngram_outdated_continuation_is_replaced() -> None:
    known = habits(*["ab"] * 100)
    assert guessed(known, "a", 1) == "b"
    for _ in range(12):
        known.learn(OWNER, ids("ac"), 1)
    assert guessed(known, "a", 1) == "c"


def test_ngram_tokens_of_one_or_many_steps_are_equal() -> None:
    known = NgramCache()
    for _ in range(2):
        known.learn(OWNER, ids("-abcd"), 4)
    assert guessed(known, "a") == "bcd"


def test_ngram_too_many_contexts_evict_oldest() -> None:
    known = habits("abab", *(f"{letter}1{letter}1" for letter in "mnopqrst"), most=20)
    assert guessed(known, "a", 1) == ""
    assert guessed(known, "t", 1) == "1"


def test_ngram_single_exception_keeps_continuation() -> None:
    known = habits(*["ab"] * 5, "ac")
    assert guessed(known, "a", 1) == "b"


def test_ngram_recent_contexts_survive_eviction() -> None:
    known = NgramCache(80)
    for _ in range(2):
        known.learn(OWNER, ids("ab"), 1)
    for number in range(85):
        known.learn(OWNER, [1000 + number, 2000 + number], 1)
        if number == 70:
            known.learn(OWNER, ids("ab"), 1)
    assert guessed(known, "a", 1) == "b"
    known = NgramCache(80)
    for number in range(81):
        known.learn(OWNER, [1000 + number, 2000 + number], 1)
    assert len(known._continuations) == 70, "an eighth fewer than there may be"
