"""Claims of outputs with many parts: each has all of its evidence, and shared sources are traced once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestra import Orchestra, Result
from orchestra.app.claims.claims import OutputClaim
from orchestra.app.claims.lineage import _Trace
from orchestra.app.claims.locations import TextSpan
from orchestra.core.protocols import CallRequest
from orchestra.journal.memory import MemoryJournal
from orchestra.testing import SimulatedWorkers
from tests.unreachable import settings, write

CARD = "name: reader\ninput: {question: str, context: str}\noutput: Reading\n"
WORKFLOW = """
schema: orchestra/v1
name: many
input: {texts: "list[str]"}
output: ${all}
nodes:
  one:
    each: ${input.texts}
    as: text
    limit: 10000
    agent: reader
    with: {question: which, context: "${text}"}
    checks: [quote]
    against: ${text}
  all: {tool: gather, with: {texts: "${one.values}"}}
"""
MODULE = '''
from typing import Any
from orchestra import tool
@tool(version="1", effect="pure")
def gather(texts: Any) -> list[Any]:
    """Puts texts together."""
    return []
'''


def gathered(call: CallRequest) -> list[Any]:
    """Returns all texts unchanged, followed by a text that no agent wrote."""
    return [*(one["answer"] for one in call.inputs["texts"]), *(f"on {one['answer']}" for one in call.inputs["texts"])]


async def ran(folder: Path, count: int) -> Result[Any]:
    write(
        folder,
        {
            "agents/reader/agent.yaml": CARD,
            "agents/reader/prompt.md": "{{ question }} {{ context }}\n",
            "workflows/many.yaml": WORKFLOW,
            "many_tools.py": MODULE,
            "orchestra.toml": 'fleet = "nowhere"\nmodules = ["many_tools"]\n',
        },
    )
    workers = SimulatedWorkers({"reader": lambda call: {"answer": call.inputs["context"]}, "gather": gathered})
    async with Orchestra.open(settings(folder), workers=workers, journal=MemoryJournal()) as orchestra:
        return await orchestra.run(orchestra.find("many"), texts=[f"word{number}" for number in range(count)])


def quotes(claim: OutputClaim) -> list[str]:
    return [one.quote for one in claim.evidence if isinstance(one, TextSpan)]


async def test_large_claims_equal_value_source_else_all_sources(tmp_path: Path) -> None:
    result = await ran(tmp_path, 3)
    said = [(claim.value, claim.nodes, quotes(claim), len(claim.verdicts)) for claim in result.claims]
    everyone, words = ("all", "one[0]", "one[1]", "one[2]"), ["word0", "word1", "word2"]
    assert said[:3] == [(f"word{at}", ("all", f"one[{at}]"), [f"word{at}"], 1) for at in range(3)]
    assert said[3:] == [(f"on word{at}", everyone, words, 3) for at in range(3)]
    assert [claim.path for claim in result.claims] == [f"[{at}]" for at in range(6)]


async def test_large_claims_evidence_limited_to_first(tmp_path: Path) -> None:
    result = await ran(tmp_path, 120)
    assert quotes(result.claims[-1]) == [f"word{at}" for at in range(100)]
    assert len(result.claims[-1].nodes) == 121


async def test_large_claims_shared_source_traced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    followed = 0
    follow = _Trace.follow

    def counted(trace: _Trace, *given: Any) -> None:
        nonlocal followed
        followed += 1
        follow(trace, *given)

    monkeypatch.setattr(_Trace, "follow", counted)
    steps = []
    for count in (50, 100):
        result = await ran(tmp_path / str(count), count)
        followed = 0
        assert len(result.claims) == 2 * count
        steps.append(followed)
    assert steps[1] <= 2.2 * steps[0], "twice as many parts take twice as long"
