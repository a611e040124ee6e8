"""Every node kind that runs, and the flow of outcomes between nodes."""

from __future__ import annotations

import time

import pytest

from orchestra.core.events import MapExpanded, TurnStarted
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, SkippedOutcome, ValueOutcome
from orchestra.core.protocols import CallError
from tests.engine.stage import play, program, sequence
from tests.simulation.lab.invariants import AuditCase, audit

CHAIN = """
input: {text: str}
output: ${b}
nodes:
  a: {tool: shout, with: {text: "${input.text}"}}
  b: {agent: writer, with: {text: "say ${a}"}}
"""


def test_chain_gives_last_value() -> None:
    played = play(CHAIN, {"text": "hi"})
    assert played.finished.status == "done"
    assert played.outcome == ValueOutcome("<say HI>")


EACH = """
input: {text: str}
output: ${n}
nodes:
  words: {tool: split, with: {text: "${input.text}"}}
  loud: {tool: shout, each: "${words}", as: word, with: {text: "${word}"}, %s}
  n: {tool: count, with: {items: "${loud.values}"}}
"""


def test_each_runs_every_element_once_in_order() -> None:
    for seed in range(20):
        played = play(EACH % "timeout: 9", {"text": "a b c d e"}, seed=seed, latency=(0.1, 2.0))
        assert played.outcomes["loud"] == ValueOutcome(["A", "B", "C", "D", "E"])
        assert played.outcome == ValueOutcome(5)


def test_each_of_empty_list_is_empty() -> None:
    played = play(EACH % "timeout: 9", {"text": ""})
    assert played.of(MapExpanded)[0].count == 0
    assert played.outcome == ValueOutcome(0)


def test_each_respects_concurrency() -> None:
    played = play(EACH % "concurrency: 2", {"text": "a b c d e f"}, latency=1.0)
    assert played.workers.max_in_flight == 2


def test_each_over_limit_refused() -> None:
    played = play(EACH % "limit: 2", {"text": "a b c"})
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == "E004"


def test_values_drops_non_values() -> None:
    played = play(EACH % "when: '${word != \"b\"}'", {"text": "a b c"})
    assert isinstance(played.outcomes["loud[1]"], SkippedOutcome)
    assert played.outcomes["loud"] == ValueOutcome(["A", "C"])
    assert played.outcome == ValueOutcome(2)


def test_each_fails_if_all_elements_failed() -> None:
    played = play(EACH % "timeout: 9", {"text": "a b"}, {"shout": lambda call: refuse()})
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == "T009"


def refuse() -> object:
    from orchestra.core.protocols import CallError

    return CallError(code="T009", reason="no")


BRANCH = """
input: {text: str, loud: bool}
output: ${answer}
nodes:
  a: {tool: shout, when: "${input.loud}", with: {text: "${input.text}"}}
  b: {agent: writer, with: {text: "${a}"}}
  answer: {first_of: ["${b}", "${input.text}"]}
"""


def test_when_false_skips_node_and_dependents() -> None:
    played = play(BRANCH, {"text": "x", "loud": False})
    assert played.outcomes["a"] == SkippedOutcome("its condition is false", "a")
    assert played.outcomes["b"] == SkippedOutcome("its condition is false", "a")
    assert played.outcome == ValueOutcome("x")


def test_first_of_takes_first_value_as_written() -> None:
    assert play(BRANCH, {"text": "x", "loud": True}).outcome == ValueOutcome("<X>")


def test_skipped_output_is_outcome_of_run() -> None:
    played = play(
        'input: {go: bool}\noutput: ${a}\nnodes:\n  a: {tool: shout, when: "${input.go}", with: {text: x}}',
        {"go": False},
    )
    assert played.finished.status == "abstained"
    assert isinstance(played.outcome, SkippedOutcome)


def test_output_record_has_null_for_skipped_part() -> None:
    text = """
input: {go: bool}
output: {x: "${a}", y: "${b}"}
nodes:
  a: {tool: shout, when: "${input.go}", with: {text: x}}
  b: {tool: shout, with: {text: y}}
"""
    assert play(text, {"go": False}).outcome == ValueOutcome({"x": None, "y": "Y"})
    listed = text.replace('{x: "${a}", y: "${b}"}', '["${a}", "${b}", {z: "${b}"}]')
    assert play(listed, {"go": False}).outcome == ValueOutcome([None, "Y", {"z": "Y"}])
    assert play(listed, {"go": True}).outcome == ValueOutcome(["X", "Y", {"z": "Y"}])
    assert isinstance(play(listed.replace(', "${b}", {z: "${b}"}', ""), {"go": False}).outcome, SkippedOutcome)


def test_fallback_replaces_failure() -> None:
    text = "output: ${a}\nnodes:\n  a: {tool: shout, with: {text: x}, fallback: quiet}"
    assert play(text, answers={"shout": lambda call: refuse()}).outcome == ValueOutcome("quiet")


def test_after_orders_without_value() -> None:
    text = """
input: {go: bool}
output: ${b}
nodes:
  a: {tool: shout, when: "${input.go}", with: {text: x}}
  b: {tool: shout, after: [a], with: {text: y}}
"""
    played = play(text, {"go": False})
    assert list(played.outcomes) == ["a", "b"]
    assert played.outcome == ValueOutcome("Y")


LOOP = """
output: ${grown}
nodes:
  grown:
    loop:
      at_most: %d
      until: "${size(next) >= 3}"
      nodes:
        next: {tool: grow, with: {text: "${previous}"}}
      output: "${next}"
"""


def test_loop_ends_when_condition_holds() -> None:
    played = play(LOOP % 9)
    assert [event.turn for event in played.of(TurnStarted)] == [1, 2, 3]
    assert played.outcome == ValueOutcome("xxx")
    assert "grown#3/next" in played.outcomes


def test_loop_ends_after_last_iteration() -> None:
    assert play(LOOP % 2).outcome == ValueOutcome("xx")


BLOCK = """
input: {text: str}
output: ${n}
nodes:
  words: {tool: split, with: {text: "${input.text}"}}
  both:
    call:
      nodes:
        loud: {tool: shout, with: {text: "${word}"}}
        said: {agent: writer, with: {text: "${loud} of ${input.text}"}}
      output: "${said}"
    each: "${words}"
    as: word
  n: {tool: count, with: {items: "${both.values}"}}
"""


def test_block_reads_outer_values() -> None:
    played = play(BLOCK, {"text": "a b"})
    assert played.outcomes["both"] == ValueOutcome(["<A of a b>", "<B of a b>"])
    assert played.outcomes["both[1]/loud"] == ValueOutcome("B")


def test_block_fails_with_inner_failure() -> None:
    played = play(BLOCK, {"text": "a"}, {"shout": lambda call: refuse()})
    assert isinstance(played.outcomes["both[0]"], FailedOutcome)
    assert played.finished.status == "failed"


def test_called_workflow_reads_inputs_only() -> None:
    import dataclasses

    from orchestra.workflows.yaml.reader import read
    from tests.engine.stage import CATALOG

    inner = read(
        "schema: orchestra/v1\n"
        "name: inner\n"
        "input: {text: str}\n"
        "output: ${a}\n"
        "nodes:\n"
        "  a: {tool: shout, with: {text: '${input.text}'}}",
        "inner.yaml",
    ).graph
    catalog = dataclasses.replace(CATALOG, workflows={"inner": inner})
    played = play("output: ${b}\nnodes:\n  b: {call: inner, with: {text: deep}}", catalog=catalog)
    assert played.outcome == ValueOutcome("DEEP")
    assert played.outcomes["b/a"] == ValueOutcome("DEEP")


def test_unread_failure_fails_run() -> None:
    text = "output: ${a}\nnodes:\n  a: {tool: shout, with: {text: x}}\n  s: {tool: send, with: {text: x}}"
    played = play(text, answers={"send": lambda call: refuse()})
    assert played.finished.status == "failed"
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.origin == "s"


ACCEPT = """
input: {text: str}
output: ${r}
nodes:
  r:
    agent: reader
    with: {question: "when?", context: "${input.text}"}
    checks: [quote]
    against: "${input.text}"
    otherwise: %s
"""
GOOD = {"answer": "1889", "quote": "completed in 1889"}
BAD = {"answer": "1890", "quote": "completed in 1890"}
TEXT = {"text": "The tower was completed in 1889."}


def test_accepted_value_has_evidence_spans() -> None:
    outcome = play(ACCEPT % "[abstain]", TEXT, {"reader": GOOD}).outcome
    assert isinstance(outcome, ValueOutcome)
    (span,) = outcome.evidence
    assert TEXT["text"][span.start : span.end] == GOOD["quote"]


def test_value_refused_by_checks_withheld() -> None:
    played = play(ACCEPT % "[abstain]", TEXT, {"reader": BAD})
    assert played.finished.status == "abstained"
    assert isinstance(played.outcome, AbstainedOutcome)


def test_retry_prompt_has_reason_of_refusal() -> None:
    seen: list[tuple[str, ...]] = []

    def reader(call: object) -> object:
        seen.append(call.feedback)  # type: ignore[attr-defined]
        return sequence(BAD, GOOD)(call)

    played = play(ACCEPT % "[retry, abstain]", TEXT, {"reader": reader})
    assert isinstance(played.outcome, ValueOutcome)
    assert len(seen) == 2
    assert seen[0] == ()
    assert "quote" in seen[1][0]


def test_escalation_calls_larger_model_once() -> None:
    played = play(ACCEPT % "[escalate, abstain]", TEXT, {"reader": lambda call: GOOD if call.is_escalated else BAD})
    assert isinstance(played.outcome, ValueOutcome)
    assert isinstance(play(ACCEPT % "[escalate, abstain]", TEXT, {"reader": BAD}).outcome, AbstainedOutcome)


def test_verify_judges_finished_value() -> None:
    text = """
input: {text: str}
output: ${v}
nodes:
  r: {agent: reader, with: {question: q, context: "${input.text}"}}
  v: {verify: "${r}", checks: [quote], against: "${input.text}"}
"""
    assert isinstance(play(text, TEXT, {"reader": GOOD}).outcome, ValueOutcome)
    assert isinstance(play(text, TEXT, {"reader": BAD}).outcome, AbstainedOutcome)


def test_each_bodies_end_in_linear_time() -> None:
    """Four times as many elements take about four times as long; the bound is twice that."""
    text = """
input: {words: "list[str]"}
output: ${all.values}
nodes:
  all:
    each: ${input.words}
    as: word
    call: {nodes: {loud: {tool: shout, with: {text: "${word}"}}}, output: "${loud}"}
"""

    def seconds(count: int) -> float:
        began = time.process_time()
        assert len(play(text, {"words": ["w"] * count}).outcome.value) == count  # type: ignore[union-attr]  # a value
        return time.process_time() - began

    seconds(100)
    assert min(seconds(2000) for _ in range(2)) < 8 * min(seconds(500) for _ in range(3))


@pytest.mark.parametrize(("order", "sent"), [("", 1), (", after: [draft]", 1), (", when: \"${draft != ''}\"", 0)])
def test_effect_waits_for_its_own_inputs_only(order: str, sent: int) -> None:
    text = "output: {draft: '${draft}', paid: '${paid}'}\nnodes:\n  draft: {agent: writer, with: {text: a}}\n"
    text += f"  paid: {{tool: send, with: {{text: a}}{order}}}"
    played = play(text, {}, {"writer": lambda call: CallError(code="F212", reason="no such model")})
    assert (played.finished.status, played.workers.counts["send"]) == ("failed", sent)
    assert audit(AuditCase(program(text), played.events)) == []


APART = """
input: {text: str}
output: ${answer}
nodes:
  first:
    call:
      nodes:
        reading: {agent: reader, with: {question: q, context: "${input.text}"}, checks: [quote], against: "${input.text}"}
        judged: {first_of: [true]}
      output: {answer: "${reading.answer}", judged: "${judged}"}
  second: {tool: send, when: "${first.answer == null}", with: {text: x}}
  answer: {first_of: ["${second}", "${first.answer}"]}
"""  # noqa: E501


def test_block_distinguishes_withheld_from_failed() -> None:
    """As in docs/reference/language.md: an effect replaces the first, but not the second."""
    accepted = play(APART, {"text": "completed in 1889"})
    assert (accepted.outcome, accepted.workers.counts["send"]) == (ValueOutcome("1889"), 0)
    withheld = play(APART, {"text": "completed in 1890"})
    assert (withheld.outcome, withheld.workers.counts["send"]) == (ValueOutcome("sent"), 1)
    failed = play(APART, {"text": "x"}, {"reader": CallError(code="T003", reason="no")})
    assert isinstance(failed.outcome, FailedOutcome)
    assert (failed.outcome.origin, failed.workers.counts["send"]) == ("first/reading", 0)
