"""Plan metrics on hand-computed cases."""

from __future__ import annotations

from typing import Any

import pytest

from bench.metrics import argument_f1, plan_scores, short_answer_match, step_plan_scores

CHAIN = {"nodes": [{"tool": "a"}, {"tool": "b"}, {"tool": "c"}], "edges": [[0, 1], [1, 2]]}
OTHER = {"nodes": [{"tool": "a"}, {"tool": "b"}, {"tool": "x"}], "edges": [[0, 1], [1, 2]]}
SINGLE = {"nodes": [{"tool": "a"}], "edges": []}
EMPTY: dict[str, Any] = {}


def test_plan_score_one_wrong_tool() -> None:
    found = plan_scores([CHAIN, CHAIN], [CHAIN, OTHER], "abc")
    assert found["node_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["link_f1"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["exact"] == 0.5
    assert found["hallucination"] == pytest.approx((0 + 1 / 3) / 2)


def test_plan_score_without_links_and_empty_plan() -> None:
    assert plan_scores([SINGLE], [SINGLE])["link_f1"] == 1.0
    assert plan_scores([SINGLE], [EMPTY]) | {"link_f1_multi": 0.0} == dict.fromkeys(plan_scores([SINGLE], [EMPTY]), 0.0)
    assert plan_scores([SINGLE, CHAIN], [SINGLE, SINGLE])["link_f1_multi"] == 0.0


def test_plan_score_counts_repeated_tools() -> None:
    twice = {"nodes": [{"tool": "a"}, {"tool": "a"}], "edges": [[0, 1]]}
    assert plan_scores([twice], [twice])["node_f1"] == 1.0
    assert plan_scores([twice], [SINGLE])["node_f1"] == pytest.approx(2 / 3)


def test_plan_score_ignores_dangling_edges() -> None:
    assert plan_scores([CHAIN], [{**CHAIN, "edges": [[0, 1], [1, 7]]}])["link_f1"] == pytest.approx(2 / 3)


def test_argument_f1_by_value_without_references() -> None:
    gold = {"nodes": [{"tool": "t", "arguments": {"x": 5, "y": "Foo", "z": "API_call_1"}}]}
    given = {"nodes": [{"tool": "t", "arguments": {"x": "5", "y": "bar", "z": "$0"}}]}
    assert argument_f1([gold], [given]) == 0.5
    assert argument_f1([gold], [{"nodes": [{"tool": "t", "arguments": {"x": 5.0, "y": " foo"}}]}]) == 1.0
    assert argument_f1([gold], [EMPTY]) == 0.0


def test_step_plan_scores_match_by_token_f1() -> None:
    gold = {
        "nodes": [{"step": "find the hotel"}, {"step": "book the hotel"}, {"step": "send an email"}],
        "edges": [[0, 1], [1, 2]],
    }
    given = {"nodes": [{"step": "find hotel"}, {"step": "book hotel"}], "edges": [[0, 1]]}
    found = step_plan_scores(gold, given)
    assert found["node_f1"] == pytest.approx(4 / 5)
    assert found["edge_f1"] == pytest.approx(
        2 * 2 / 7
    )  # start to the first and the first to the second; 3 given, 4 wanted
    assert step_plan_scores(gold, gold) == {"node_f1": 1.0, "edge_f1": 1.0}
    assert step_plan_scores(gold, EMPTY) == {"node_f1": 0.0, "edge_f1": 0.0}


def test_step_plan_scores_parallel_steps_have_edges() -> None:
    gold = {"nodes": [{"step": "find the hotel"}, {"step": "send an email"}], "edges": []}
    one_after_another = {**gold, "edges": [[0, 1]]}
    assert step_plan_scores(gold, one_after_another)["edge_f1"] == pytest.approx(2 * 2 / (3 + 4))


def test_short_answer_match_within_one_percent() -> None:
    assert short_answer_match("134.9", "135")
    assert short_answer_match("Yangtze River", "the yangtze river")
    assert not short_answer_match("134.9", "137")
    assert not short_answer_match("134.9", None)
    assert not short_answer_match("134.9", "many")
