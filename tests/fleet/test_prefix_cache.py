"""Shared prefixes of prompts, and the estimate of a cache with eviction."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestra.fleet.prefix_cache import BLOCK_CHARACTERS, PrefixCache, prefix_hashes


def said(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text} for text in texts]


def test_prefixes_share_blocks_before_difference() -> None:
    document = "".join(chr(97 + number % 26) * 100 for number in range(40))
    one, two = prefix_hashes(said(document + "Why?"), ""), prefix_hashes(said(document + "Where?"), "")
    assert len(one) == 4000 // BLOCK_CHARACTERS
    assert one == two
    later = prefix_hashes(said(document[:3000] + "!" + document[3001:]), "")
    assert [a == b for a, b in zip(one, later, strict=True)] == [
        start + BLOCK_CHARACTERS <= 3000 for start in range(0, len(one) * BLOCK_CHARACTERS, BLOCK_CHARACTERS)
    ]


def test_prefix_block_includes_preceding_text() -> None:
    block = BLOCK_CHARACTERS * "x"
    chats = [
        (said(block), ""),
        (said(block), "acme"),
        (said("hello", block), ""),
        (said(2 * block), ""),
        ([{"role": "system", "content": block}], ""),
    ]
    found = [prefix_hashes(messages, salt)[-1] for messages, salt in chats]
    assert len(set(found)) == len(found)


def test_prefix_short_prompt_has_no_block() -> None:
    assert prefix_hashes(said("Tell me a story.", (BLOCK_CHARACTERS - 1) * "x"), "") == ()


def test_prefix_cache_evicts_oldest_and_ends_first() -> None:
    cache = PrefixCache(capacity=6)
    for begins in ((1, 2, 3), (1, 2, 4), (7, 8)):
        cache.acquire(begins)
        cache.release(begins)
    assert [cache.cached_blocks(begins) for begins in ((1, 2, 3), (1, 2, 4), (7, 8), (7, 9), ())] == [3, 3, 2, 1, 0]
    cache.acquire((5, 6))
    assert [cache.cached_blocks(begins) for begins in ((1, 2, 3), (1, 2, 4), (7, 8))] == [2, 2, 2], (
        "3 and 4 were the ends"
    )
    assert (
        cache.used_blocks,
        cache.missing_blocks((5, 6)),
        cache.missing_blocks((5, 9)),
        cache.missing_blocks((1, 2)),
    ) == (2, 0, 1, 2)


Begins = st.builds(
    lambda document, blocks: tuple(100 * document + block for block in range(blocks)),
    st.integers(0, 4),
    st.integers(0, 8),
)


@given(st.lists(st.tuples(st.booleans(), Begins), max_size=80), st.integers(1, 12))
def test_prefix_cache_keeps_used_blocks_and_prefixes(steps: list[tuple[bool, tuple[int, ...]]], room: int) -> None:
    cache, inside = PrefixCache(room), list[tuple[int, ...]]()
    for goes, begins in steps:
        if goes or not inside:
            cache.acquire(begins)
            inside.append(begins)
        else:
            cache.release(inside.pop(0))
        used = {mark for one in inside for mark in one}
        there = used | set(cache._idle)
        assert cache.used_blocks == len(used)
        assert not used & set(cache._idle)
        assert len(there) <= max(room, len(used))
        for document in range(5):
            longest = tuple(100 * document + block for block in range(8))
            holes = [mark in there for mark in longest]
            assert holes == sorted(holes, reverse=True), "a block without those before it is of no use"
            assert cache.cached_blocks(longest) == sum(holes)
