"""`bench.absent`: when an unserved request counts as reported."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from bench.absent import (
    AFTERWARDS,
    HEADS,
    OTHERWISE,
    REFUSED,
    SAID,
    SERVED,
    SKILLS,
    UNSAID,
    WHOLE,
    Told,
    Wanted,
    requests,
    table,
)
from orchestra.app.planning import PlanResult
from orchestra.cli.run.plan import EmptyStep
from orchestra.router.plan import build_plan
from orchestra.router.plan_syntax import parse_plan
from orchestra.router.planner import DECLINED_CODE
from orchestra.router.validation import Rejection
from tests.router.test_multi_part import BOTH, FLIGHT, PENS
from tests.router.test_multi_part import offer as offered

NAMED = f'nothing serves "{FLIGHT}"'
ON_BOTH = f's1 = calculator(question="{PENS}")\ns2 = support_desk(message="{FLIGHT}")\nreturn s1, s2'


def draft(plan: str, *reasons: str, code: str = DECLINED_CODE) -> PlanResult:
    made = build_plan(parse_plan(plan)) if plan else None
    return PlanResult(BOTH, offered(), made, tuple(Rejection(code, "/answer", reason) for reason in reasons))


@pytest.mark.parametrize(
    ("absent", "made", "idle", "verdict"),
    [
        ("all", draft("", "no capability serves the request"), (), SAID),
        ("all", draft("", "this step is called s1", code="R001"), (), UNSAID),
        (
            "all",
            draft("s1 = support_desk(message=input.request)\nreturn s1"),
            (),
            UNSAID,
        ),  # optional parts are not reported
        (
            "all",
            draft("s1 = support_desk(message=input.request)\nreturn s1"),
            (EmptyStep("", "support_desk", BOTH),),
            AFTERWARDS,
        ),
        ([FLIGHT], draft("", NAMED), (), SAID),
        ([FLIGHT], draft("", "no capability serves the request"), (), WHOLE),
        ([FLIGHT], draft(f's1 = calculator(question="{PENS}")\nreturn s1'), (), AFTERWARDS),  # with --anyway
        ([FLIGHT], draft("s1 = support_desk(message=input.request)\nreturn s1"), (), UNSAID),
        ([FLIGHT], draft(ON_BOTH), (), UNSAID),
        ([FLIGHT], draft(ON_BOTH), (EmptyStep("", "calculator", PENS),), UNSAID),
        (
            [FLIGHT],
            draft("s1 = support_desk(message=input.request)\nreturn s1"),
            (EmptyStep("", "support_desk", BOTH),),
            WHOLE,
        ),
        ([FLIGHT], draft(ON_BOTH), (EmptyStep("", "support_desk", FLIGHT),), AFTERWARDS),
        ("none", draft("", "no capability serves the request"), (), REFUSED),
        ("none", draft(ON_BOTH), (), SERVED),
        # a handover to a person includes sorting
        ("none", draft(ON_BOTH), (EmptyStep("", "support_desk", FLIGHT),), SERVED),
        ("none", draft(ON_BOTH), (EmptyStep("", "calculator", PENS),), OTHERWISE),
        ("none", draft(f's1 = calculator(question="{PENS}")\nreturn s1'), (), OTHERWISE),
    ],
)
def test_verdict_reported_or_not(absent: Any, made: PlanResult, idle: tuple[EmptyStep, ...], verdict: str) -> None:
    told = Told(Wanted(BOTH, {}, absent, ("sum", "desk")), made, idle)
    assert told.verdict == verdict
    assert verdict in HEADS[told.wanted.head]


def test_requests_have_known_kinds_and_literal_parts() -> None:
    wanted = requests()
    assert Counter(one.head for one in wanted) == dict(zip(HEADS, (40, 24, 36), strict=True))
    for one in wanted:
        assert {*one.served} <= {*SKILLS}
        assert isinstance(one.absent, str) or all(part in one.request for part in one.absent)


def test_table_counts_all_and_lists_errors() -> None:
    wanted = Wanted(BOTH, {}, [FLIGHT], ("sum",))
    text = table([Told(wanted, draft("", NAMED), ()), Told(wanted, draft(ON_BOTH), ())], "today")
    assert (
        "| a part of it is served, 2 requests | reported 1, reported of all of it 0, reported afterwards 0, not"
        " reported 1 |" in text
    )
    assert text.count("\n- not reported: `Book me a flight") == 1
