"""docs/evaluation/performance.md gets its figures only from the latest results."""

from __future__ import annotations

from bench.page import BLOCK, PAGE, renewed

BEFORE = "<!-- measured:engine -->\nold\n<!-- end:engine -->\n<!-- measured:peers -->\nolder\n<!-- end:peers -->\n"


def test_page_replaces_measured_blocks_only() -> None:
    after = renewed(BEFORE, {"engine": "new\n", "peers": ""})
    assert after == BEFORE.replace("\nold\n", "\n\nnew\n\n")


def test_page_rewrite_is_idempotent() -> None:
    measured = {"engine": "new\n", "peers": "tables\n"}
    once = renewed(BEFORE, measured)
    assert renewed(once, measured) == once


def test_performance_page_has_all_blocks() -> None:
    assert [found["name"] for found in BLOCK.finditer(PAGE.read_text("utf-8"))] == [
        "engine",
        "peers",
        "ordering",
        "throttling",
        "server",
    ]
