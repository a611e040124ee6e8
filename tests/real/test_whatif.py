"""What-if on the real fleet: a recorded run is evaluated with another prompt of the packaged reader; only changed calls
are made.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.cli.runs.whatif import parse_variant
from orchestra.core.outcomes import ValueOutcome
from orchestra.fleet.config import FleetConfig
from tests.real.test_workflows import opened

pytestmark = pytest.mark.real
READ = """
schema: orchestra/v1
name: read_and_judge
input: {question: str, text: str, statement: str}
output: {reading: "${reading}", stated: "${stated}", told: "${told}"}
nodes:
  reading: {agent: generative_reader, with: {question: "${input.question}", context: "${input.text}"}, checks: [schema]}
  stated: {agent: entailment, with: {claim: "${input.statement}", evidence: "${input.text}"}, checks: [schema]}
  told:
    agent: entailment
    with: {claim: "${reading.answer == null ? 'nothing is said of it' : reading.answer}", evidence: "${input.text}"}
    checks: [schema]
"""
GIVEN = {
    "question": "When was the tower completed?",
    "text": "The iron tower beside the river was completed in 1889, "
    "and it was the tallest building of the world until 1930.",
    "statement": "The tower was completed in 1889.",
}
PROMPT = "Passage: {{ context }}\nWhich year, if the passage says one: {{ question }}\n"


async def test_whatif_reruns_changed_calls_only(laptop: FleetConfig, tmp_path: Path) -> None:
    (tmp_path / "orchestra.toml").touch()
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "read_and_judge.yaml").write_text(READ)
    (tmp_path / "other.md").write_text(PROMPT)
    async with opened(laptop, tmp_path) as orchestra:
        run = (await orchestra.run(orchestra.find("read_and_judge"), **GIVEN)).run
        recorded = await orchestra.journal.read(run)
        registry = orchestra.registry

        nothing = await orchestra.whatif(run)
        assert (nothing.verdict, nothing.new_calls, nothing.recalled_calls, nothing.new_usage.calls) == (
            "same",
            0,
            3,
            0,
        )

        again = await orchestra.whatif(
            run, {"generative_reader": parse_variant(registry, "generative_reader").replacement}
        )
        # greedy, so the same agent gives the same answer
        assert (again.verdict, again.new_calls, again.recalled_calls) == (
            "same",
            1,
            2,
        )

        other = parse_variant(registry, f"generative_reader@{tmp_path / 'other.md'}").replacement
        found = await orchestra.whatif(run, {"generative_reader": other})
        assert not found.stops
        assert not found.replay_gap
        assert isinstance(found.before.outcome, ValueOutcome)
        assert isinstance(found.after.outcome, ValueOutcome)
        before, after = found.before.outcome.value, found.after.outcome.value
        # One call of the reader with the other prompt, and calls that depend on its answer only if that answer has
        # changed.
        rests = 0 if after["reading"] is None else 1
        kept = before["reading"] == after["reading"]
        assert (found.new_calls, found.recalled_calls) == (1 + rests * (not kept), 1 + rests * kept)
        assert found.new_usage.calls == found.new_calls
        assert min(found.new_usage.prompt_tokens, again.new_usage.prompt_tokens) > 0
        assert {change.node for change in found.differences} <= {"reading", "told"}
        assert before["stated"] == after["stated"]

        assert [summary.run for summary in await orchestra.journal.list_runs(10)] == [run]
        assert await orchestra.journal.read(run) == recorded
