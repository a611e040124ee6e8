"""`agent: {by, of, otherwise}`: a label selects one of several agents; the choice and its reason are journaled and
survive a resume.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestra.agents.contract import Catalog
from orchestra.core.errors import InputError
from orchestra.core.events import OutputJudged, TurnStarted
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, SkippedOutcome, ValueOutcome
from orchestra.core.protocols import CallError, CallRequest, CallResult
from orchestra.engine.engine import Engine
from orchestra.engine.replay import replay
from orchestra.testing import SimulatedWorkers, VirtualClock, run_simulated
from orchestra.workflows.cost_bounds import compute_bounds, total
from tests.engine.durable import Theatre
from tests.engine.stage import CATALOG, READING, TEXT, Played, agent, listed, play, program, record
from tests.simulation.lab.invariants import AuditCase, audit
from tests.verification.samples import certified

LABELS: Any = {"enum": ["lost", "late", "other"]}
KNOWN = replace(
    CATALOG,
    agents={
        **CATALOG.agents,
        "intent": agent("intent", record(text=TEXT), LABELS),
        "unsure": agent("unsure", record(text=TEXT), {"anyOf": [LABELS, {"type": "null"}]}),
        "card": agent("card", record(text=TEXT), TEXT),
        "post": agent("post", record(text=TEXT), TEXT),
        "finder": agent("finder", record(question=TEXT, context=TEXT), READING),
        "lister": agent("lister", record(text=TEXT), listed(TEXT)),
    },
)
FLOW = """
input: {text: str}
output: ${reply}
nodes:
  intent: {agent: intent, with: {text: "${input.text}"}}
  reply:
    agent: {by: "${intent}", of: {lost: card, late: post}, otherwise: writer}
    with: {text: "${input.text}"}
"""
ANSWERS: dict[str, Any] = {
    "intent": lambda call: call.inputs["text"].split()[0],
    "card": lambda call: f"card: {call.inputs['text']}",
    "post": lambda call: f"post: {call.inputs['text']}",
    "writer": lambda call: f"writer: {call.inputs['text']}",
}


def answered(
    flow: str, text: str, answers: dict[str, Any] | None = None, catalog: Catalog = KNOWN, **inputs: Any
) -> Played:
    """Runs a workflow, then audits and replays its journal."""
    played = play(flow, {"text": text, **inputs}, {**ANSWERS, **(answers or {})}, catalog=catalog)
    compiled = program(flow, catalog)
    assert audit(AuditCase(compiled, played.events)) == []
    found = replay(compiled, played.events)
    assert (found.first_difference, found.reason) == (None, "")
    return played


def asked(played: Played) -> list[str]:
    return [call.name for call in played.workers.calls if call.node.startswith("reply")]


@pytest.mark.parametrize(("label", "name"), [("lost", "card"), ("late", "post"), ("other", "writer")])
def test_alternatives_label_selects_one_agent(label: str, name: str) -> None:
    played = answered(FLOW, f"{label} it")
    assert played.outcome == ValueOutcome(f"{name}: {label} it")
    assert asked(played) == [name]


@pytest.mark.parametrize(("label", "name"), [("lost", "card"), ("other", "writer")])
def test_alternatives_choice_and_reason_journaled(label: str, name: str) -> None:
    (begun,) = answered(FLOW, label).of(TurnStarted, "reply")
    assert begun.choice_reason == f'{name}, for intent is "{label}"'


def test_alternatives_long_label_cut_in_reason() -> None:
    flow = FLOW.replace('by: "${intent}"', 'by: "${input.text}"').replace("output:", "label: public\noutput:")
    (begun,) = answered(flow, "other " * 5000, {"intent": lambda call: "other"}).of(TurnStarted, "reply")
    assert len(begun.choice_reason) < 300


@pytest.mark.parametrize(("given", "name"), [(True, "card"), (False, "post")])
def test_alternatives_bool_label(given: bool, name: str) -> None:
    flow = FLOW.replace(
        'by: "${intent}", of: {lost: card, late: post}, otherwise: writer',
        'by: "${input.go}", of: {"true": card, "false": post}',
    )
    assert asked(answered(flow.replace("text: str}", "text: str, go: bool}"), "lost", go=given)) == [name]


@pytest.mark.parametrize(("given", "name"), [(None, "writer"), ("late", "post")])
def test_alternatives_null_selects_otherwise(given: str | None, name: str) -> None:
    played = answered(FLOW.replace("{agent: intent,", "{agent: unsure,"), "x", {"unsure": lambda call: given})
    assert asked(played) == [name]


def test_alternatives_shared_label_selects_matching_agent() -> None:
    flow = FLOW.replace(
        "of: {lost: card, late: post}, otherwise: writer", "of: {lost: card, late: post}, otherwise: card"
    )
    assert [asked(answered(flow, label)) for label in ("lost", "late", "other")] == [["card"], ["post"], ["card"]]


def test_each_element_has_own_model_choice() -> None:
    flow = """
input: {text: str}
output: ${reply.values}
nodes:
  words: {tool: split, with: {text: "${input.text}"}}
  reply: {each: "${words}", as: word, agent: {by: "${word}", of: {lost: card}, otherwise: writer}, with: {text: "${word}"}}
"""  # noqa: E501
    played = answered(flow, "lost iron lost")
    assert played.outcome == ValueOutcome(["card: lost", "writer: iron", "card: lost"])
    assert [event.choice_reason.partition(",")[0] for event in played.of(TurnStarted)] == ["card", "writer", "card"]


def test_alternatives_more_labels_than_expression_limit() -> None:
    of = ", ".join(f"label_number_{number}_of_a_long_list: {('card', 'post')[number % 2]}" for number in range(200))
    flow = FLOW.replace("lost: card, late: post", of).replace('"${intent}"', '"${input.text}"')
    found = [
        asked(answered(flow, text, {"intent": lambda call: "other"}))
        for text in ("label_number_199_of_a_long_list", "label")
    ]
    assert found == [["post"], ["writer"]]


def test_alternatives_agent_named_like_node() -> None:
    flow = FLOW.replace("  reply:", '  card: {tool: shout, with: {text: "${input.text}"}}\n  reply:')
    flow = flow.replace(
        'otherwise: writer}\n    with: {text: "${input.text}"}', 'otherwise: writer}\n    with: {text: "${card}"}'
    )
    assert answered(flow, "lost it").outcome == ValueOutcome("card: LOST IT")


def test_alternatives_node_has_score_of_chosen_agent() -> None:
    flow = """
input: {text: str}
output: ${reply}
nodes:
  reply:
    agent: {by: "${input.text}", of: {lost: reader}, otherwise: finder}
    with: {question: when, context: "it was completed in 1889"}
    checks: [quote]
    against: "it was completed in 1889"
"""
    outcome = answered(flow, "lost", {"finder": {"answer": "no", "quote": "not there"}}).outcome
    assert isinstance(outcome, ValueOutcome)
    assert (outcome.score, [one.quote for one in outcome.evidence]) == (1.0, ["completed in 1889"])
    withheld = answered(flow, "other", {"finder": {"answer": "no", "quote": "not there"}})
    assert isinstance(withheld.outcome, AbstainedOutcome)
    assert withheld.outcome.origin == "reply/finder"


def test_alternatives_certificate_per_agent() -> None:
    known = replace(
        KNOWN,
        certificates={"card": certified("card", ("confidence",), 0.8), "post": certified("post", ("confidence",), 0.3)},
    )
    flow = FLOW.replace("lost: card, late: post", "lost: card, late: post, other: card").replace(
        ", otherwise: writer", ""
    )
    flow = f"{flow}    checks: [confidence]\n    accept: certified\n"
    said = {name: CallResult(value="said", confidence=0.5) for name in ("card", "post")}
    assert isinstance(answered(flow, "lost", said, known).outcome, AbstainedOutcome)
    kept = answered(flow, "late", said, known)
    assert isinstance(kept.outcome, ValueOutcome)
    assert [event.guarantee for event in kept.of(OutputJudged)] == [known.certificates["post"].guarantee]
    with pytest.raises(InputError, match="no certificate for 'post'"):
        program(flow, replace(known, certificates={"card": known.certificates["card"]}))


def test_alternatives_retries_and_timeout_of_chosen_agent() -> None:
    calls: list[int] = []

    def card(call: CallRequest) -> Any:
        calls.append(call.attempt)
        return CallError(code="F300", reason="busy", retryable=True) if call.attempt < 3 else "at last"

    played = answered(f"{FLOW}    retry: {{attempts: 3, wait: [1, 1]}}\n    timeout: 2\n", "lost", {"card": card})
    assert (played.outcome, calls) == (ValueOutcome("at last"), [1, 2, 3])


def test_alternatives_failure_of_agent_fallback_of_node() -> None:
    broken = {"card": lambda call: CallError(code="F300", reason="it broke")}
    failed = answered(FLOW, "lost", broken).outcome
    assert isinstance(failed, FailedOutcome)
    assert (failed.code, failed.origin) == ("F300", "reply/card")
    assert answered(f"{FLOW}    fallback: none\n", "lost", broken).outcome == ValueOutcome("none")


def test_alternatives_skipped_node_selects_no_agent() -> None:
    played = answered(f"{FLOW}    when: \"${{intent != 'lost'}}\"\n", "lost")
    assert isinstance(played.outcome, SkippedOutcome)
    assert asked(played) == []


def test_alternatives_larger_model_for_any_chosen_agent() -> None:
    played = answered(
        f'{FLOW}    escalate: "${{size(input.text) > 6}}"\n',
        "lost at sea",
        {"card": lambda call: str(call.is_escalated)},
    )
    assert played.outcome == ValueOutcome("True")


def test_alternatives_bound_counts_one_agent() -> None:
    assert total(compute_bounds(program(FLOW, KNOWN), {}, {}), None)[0] == 2 * 3


@pytest.mark.parametrize("at", [0.5, 1.5])
def test_alternatives_resume_keeps_choice(at: float) -> None:
    compiled = program(FLOW, KNOWN)

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock)
        theatre.workers = workers = SimulatedWorkers({**ANSWERS}, clock=clock, latency=1.0)
        theatre.engine = Engine(clock, theatre.journal, workers)
        run = theatre.start(compiled, {"text": "late it"})
        await clock.sleep(at)
        await theatre.crash()
        finished = await (await theatre.engine.resume(compiled, run.id)).wait()
        assert finished.outcome == ValueOutcome("post: late it")
        assert {call.name for call in workers.calls} == {"intent", "post"}
        await theatre.engine.close()

    run_simulated(scene)
