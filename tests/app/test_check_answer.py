"""Checks of single answers with a combination: the score equals the score of a node, certificates apply, and checks
that need a run are reported.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestra import InputError, Orchestra
from orchestra.app.certificates import dependency_digests
from orchestra.app.project import Project
from orchestra.core.events import OutputJudged
from orchestra.core.protocols import CallResult
from orchestra.testing import SimulatedWorkers
from orchestra.verification.certificates.combination import (
    FILE_NAME,
    CheckWeight,
    Combination,
    CombinationData,
    log_odds,
    logistic,
)
from orchestra.verification.certificates.file import COMBINED_SCORE
from orchestra.verification.certificates.file import FILE_NAME as CERTIFICATE
from tests.unreachable import settings, write
from tests.verification.samples import certified

TELLER = "name: teller\ninput: {text: str}\noutput: {fact: str}\nevidence: text\n"
CHECKER = """
name: checker
input: {claim: str, evidence: str}
output: {p_supported: float | null, p_refute: float | null}
checks: [confidence]
accept: 0.99
"""
TELL = """
schema: orchestra/v1
name: tell
input: {text: str}
output: ${told}
nodes:
  told:
    agent: teller
    with: {text: "${input.text}"}
    checks: [confidence, "entailment(checker)"]
    score: combined
    accept: 0.7
    otherwise: [abstain]
"""
CHECKS = ("confidence", "entailment(checker)")
ANSWER, TEXT = {"fact": "It was built in 1889."}, "The tower was built in 1889."


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "agents/teller/agent.yaml": TELLER,
        "agents/teller/prompt.md": "Tell: {{ text }}\n",
        "agents/checker/agent.yaml": CHECKER,
        "agents/checker/prompt.md": "{{ claim }} {{ evidence }}\n",
        "workflows/tell.yaml": TELL,
    }
    write(tmp_path, files)
    return tmp_path


def put(
    project: Path, checks: tuple[str, ...] = CHECKS, file: str = f"agents/teller/{FILE_NAME}", bias: float = 0.5
) -> Combination:
    """Writes a valid combination in which each check has weight 1."""
    chosen = settings(project)
    registry = Project.load(chosen).registry
    made = Combination(
        agent="teller",
        method="regression",
        checks=tuple(sorted(checks)),
        bias=bias,
        weights=tuple(CheckWeight(check, weight=1.0) for check in checks),
        data=CombinationData("rows", "d" * 32, 300, 200, 0),
        dependencies=dependency_digests(chosen, registry, "teller"),
        judge_dependencies={"checker": dependency_digests(chosen, registry, "checker")}
        if any("checker" in check for check in checks)
        else {},
        created_at="2026-11-26",
    ).with_digest()
    (project / file).write_bytes(made.to_bytes())
    return made


def certify(project: Path, combination: Combination | None, threshold: float = 0.8) -> str:
    """Writes a certificate for a combined score or for the lowest check score; returns its guarantee."""
    chosen = settings(project)
    made = certified("teller", CHECKS, threshold)
    if combination is not None:
        made = msgspec.structs.replace(made, combination=combination.digest, score=COMBINED_SCORE)
    made = msgspec.structs.replace(
        made, dependencies=dependency_digests(chosen, Project.load(chosen).registry, "teller")
    ).with_digest()
    (project / "agents" / "teller" / CERTIFICATE).write_bytes(made.to_bytes())
    return made.guarantee


@asynccontextmanager
async def opened(
    project: Path, supported: float = 0.7, sure: float = 0.9
) -> AsyncIterator[tuple[Orchestra, SimulatedWorkers]]:
    workers = SimulatedWorkers(
        {
            "teller": lambda call: CallResult(value=ANSWER, confidence=sure),
            "checker": lambda call: CallResult(value={"p_supported": supported, "p_refute": 0.0}, confidence=0.2),
        }
    )
    async with Orchestra.open(settings(project), workers=workers) as orchestra:
        yield orchestra, workers


async def test_check_answer_score_is_combination_of_verdicts(project: Path) -> None:
    put(project)
    async with opened(project) as (orchestra, _):
        ruling = await orchestra.check(ANSWER, against=TEXT, combined="teller", confidence=0.9)
    assert [(one.check, one.score) for one in ruling.verdicts] == [("confidence", 0.9), ("entailment(checker)", 0.7)]
    assert ruling.score == pytest.approx(logistic(0.5 + log_odds(0.9) + log_odds(0.7)))
    assert (ruling.accepted, ruling.guarantee) == (True, "")


@pytest.mark.parametrize(("sure", "supported"), [(0.9, 0.7), (0.9, 0.3), (0.2, 0.95), (0.55, 0.45), (0.1, 0.1)])
async def test_check_answer_agrees_with_node(project: Path, sure: float, supported: float) -> None:
    put(project)
    async with opened(project, supported, sure) as (orchestra, _):
        alone = await orchestra.check(ANSWER, against=TEXT, combined="teller", confidence=sure, accept=0.7)
        run = await (await orchestra.start(orchestra.find("tell"), text=TEXT)).wait()
        (judged,) = [event for event in run.events if isinstance(event, OutputJudged)]
    assert (alone.verdicts, alone.accepted) == (judged.verdicts, judged.accepted)
    assert alone.score == run.confidence or not alone.accepted


async def test_check_answer_judge_called_without_own_checks(project: Path) -> None:
    """None of the answers here would pass the judge's own checks."""
    put(project)
    async with opened(project) as (orchestra, workers):
        assert (await orchestra.check(ANSWER, against=TEXT, combined="teller", confidence=0.9)).accepted
        assert workers.counts["checker"] == 1
        asked = await (await orchestra.start(orchestra.find("checker"), claim="x", evidence="y")).wait()
        assert asked.status == "abstained"
        alone = await orchestra.check("It was built.", against=TEXT, checks="entailment(checker)")
    assert alone.verdicts[0].outcome == "pass"


@pytest.mark.parametrize("accept", [0.5, "certified"])
async def test_check_answer_judge_ignores_accept_threshold(project: Path, accept: Any) -> None:
    """The score of the checker is 0.2, and no certificate exists for it."""
    async with opened(project) as (orchestra, _):
        ruling = await orchestra.options(accept=accept).check(
            "It was built.", against=TEXT, checks="entailment(checker)"
        )
    assert (ruling.accepted, ruling.verdicts[0].outcome) == (True, "pass")


async def test_check_answer_certificate_sets_threshold(project: Path) -> None:
    guarantee = certify(project, put(project))
    async with opened(project) as (orchestra, _):
        good = await orchestra.check(ANSWER, against=TEXT, combined="teller", confidence=0.9)
        poor = await orchestra.check(ANSWER, against=TEXT, combined="teller", confidence=0.4)
        stated = await orchestra.check(ANSWER, against=TEXT, combined="teller", confidence=0.4, accept=0.6)
    assert (good.accepted, good.guarantee) == (True, guarantee)
    assert (poor.accepted, poor.guarantee) == (False, "")
    assert 0.6 < (poor.score or 0) < 0.8
    assert (
        poor.reason
        == f"a score of {poor.score:.3f}, of confidence 0.4, entailment(checker) 0.7 together, does not reach 0.8"
    )
    assert (stated.accepted, stated.guarantee) == (True, ""), "a score of the caller has no guarantee"


async def test_check_answer_certificate_of_other_score_ignored(project: Path) -> None:
    put(project)
    certify(project, None, 0.999)
    async with opened(project) as (orchestra, _):
        ruling = await orchestra.check(ANSWER, against=TEXT, combined="teller", confidence=0.9)
    assert (ruling.accepted, ruling.guarantee) == (True, "")


async def test_check_answer_certificate_of_replaced_combination_reported(project: Path) -> None:
    certify(project, put(project, bias=0.1))
    put(project)
    async with opened(project) as (orchestra, _):
        with pytest.raises(InputError, match="not the one of today") as caught:
            await orchestra.check(ANSWER, against=TEXT, combined="teller", confidence=0.9)
        stated = await orchestra.check(ANSWER, against=TEXT, combined="teller", confidence=0.9, accept=0.5)
    assert (caught.value.code, stated.accepted) == ("V005", True)


async def test_check_answer_void_certificate_refused(project: Path) -> None:
    combination = put(project)
    certify(project, combination)
    path = project / "agents" / "teller" / CERTIFICATE
    void = msgspec.structs.replace(certified("teller"), combination=combination.digest).mark_void(
        "an audit found too many wrong"
    )
    path.write_bytes(void.to_bytes())
    async with opened(project) as (orchestra, _):
        with pytest.raises(InputError, match="void") as caught:
            await orchestra.check(ANSWER, against=TEXT, combined="teller", confidence=0.9)
    assert caught.value.code == "V002"


async def test_check_answer_combination_file_replaces_agents(project: Path) -> None:
    certify(project, put(project))
    other = put(project, file="other.json", bias=-4.0)
    async with opened(project) as (orchestra, _):
        ruling = await orchestra.check(ANSWER, against=TEXT, combined=project / "other.json", confidence=0.9)
        named = await orchestra.check(ANSWER, against=TEXT, combined=str(project / "other.json"), confidence=0.9)
    assert other.checks == CHECKS
    assert ruling == named
    assert ruling.score == pytest.approx(logistic(-4.0 + log_odds(0.9) + log_odds(0.7)))
    assert not ruling.accepted, "below 0.5, and the certificate is about another combination"
    assert ruling.reason.endswith("does not reach 0.5")


async def test_check_answer_unusable_check_reported_before_calls(project: Path) -> None:
    put(project, ("agree(3)", "confidence", "entailment(checker)", "rederive(checker)"))
    async with opened(project) as (orchestra, workers):
        with pytest.raises(InputError) as caught:
            await orchestra.check(ANSWER, against=TEXT, combined="teller")
        assert not workers.counts
    assert (caught.value.code, caught.value.message) == (
        "V012",
        "the combination of 'teller' needs what is not given for this answer: confidence, rederive(checker), agree(3)",
    )
    assert "confidence=0.9" in caught.value.hint
    assert "--input KEY=VALUE" in caught.value.hint


async def test_check_answer_inputs_allow_samples(project: Path) -> None:
    put(project, ("agree(3)", "entailment(checker)"))
    async with opened(project) as (orchestra, workers):
        ruling = await orchestra.check(ANSWER, against=TEXT, combined="teller", inputs={"text": TEXT})
    assert [(one.check, one.outcome) for one in ruling.verdicts] == [
        ("entailment(checker)", "pass"),
        ("agree(3)", "pass"),
    ]
    assert sorted(call.sample for call in workers.calls if call.name == "teller") == [1, 2, 3]
    assert ruling.score is not None


async def test_check_answer_inputs_of_other_check_not_sampled(project: Path) -> None:
    put(project, ("agree(3)", "entailment(checker)"))
    async with opened(project) as (orchestra, workers):
        ruling = await orchestra.check(ANSWER, against=TEXT, combined="teller", inputs={"text": TEXT, "page": 3})
    assert [one.outcome for one in ruling.verdicts] == ["pass", "pass"]
    assert [call.inputs for call in workers.calls if call.name == "teller"] == [{"text": TEXT}] * 3


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"combined": "teler"}, "A001"),
        ({"combined": "checker"}, "L076"),
        ({"combined": "teller", "back_off": True}, "L076"),
        ({"combined": "teller", "checks": "quote"}, "V005"),
        ({"combined": "nowhere/other.json"}, "V003"),
    ],
)
async def test_check_answer_uncombinable_checks_reported(project: Path, more: dict[str, Any], code: str) -> None:
    put(project)
    async with opened(project) as (orchestra, _):
        with pytest.raises(InputError) as caught:
            await orchestra.check(ANSWER, against=TEXT, confidence=0.9, **more)
    assert (caught.value.code, bool(caught.value.hint)) == (code, True)


@pytest.mark.parametrize("answer", ["It was built in 1889.", {"fact": 1889}, {}])
async def test_answer_of_other_type_refused(project: Path, answer: Any) -> None:
    """A text instead of a record has no claims, and an answer without claims does not pass."""
    put(project)
    async with opened(project) as (orchestra, workers):
        with pytest.raises(InputError, match="this is no answer of 'teller'") as caught:
            await orchestra.check(answer, against=TEXT, combined="teller", confidence=0.9)
        assert not workers.counts
    assert caught.value.code == "V013"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 10**50])
async def test_check_answer_non_json_number_refused(project: Path, bad: float) -> None:
    put(project)
    async with opened(project) as (orchestra, _):
        for combined, confidence in (("", None), ("teller", 0.9)):
            with pytest.raises(InputError, match="the answer: ") as caught:
                await orchestra.check({"fact": "5", "n": bad}, against="5", combined=combined, confidence=confidence)
            assert (caught.value.code, bool(caught.value.hint)) == ("E013", True)


@pytest.mark.parametrize("number", [{"confidence": 93}, {"confidence": float("nan")}, {"accept": -0.1}])
async def test_check_answer_invalid_score_refused(project: Path, number: dict[str, Any]) -> None:
    async with opened(project) as (orchestra, _):
        with pytest.raises(InputError, match=rf"{next(iter(number))}=.* is not in \[0, 1\]") as caught:
            await orchestra.check("1889", against=TEXT, **number)
    assert (caught.value.code, bool(caught.value.hint)) == ("V014", True)


async def test_check_answer_combination_of_changed_agent_void(project: Path) -> None:
    put(project)
    (project / "agents" / "checker" / "prompt.md").write_text("Another: {{ claim }} {{ evidence }}\n")
    async with opened(project) as (orchestra, _):
        with pytest.raises(InputError, match="card or prompt of checker changed") as caught:
            await orchestra.check(ANSWER, against=TEXT, combined="teller", confidence=0.9)
    assert caught.value.code == "V002"


async def test_check_answer_confidence_compared_without_combination(project: Path) -> None:
    async with opened(project) as (orchestra, _):
        sure = await orchestra.check("1889", against=TEXT, checks="confidence", confidence=0.8, accept=0.7)
        unsure = await orchestra.check("1889", against=TEXT, checks="confidence", confidence=0.6, accept=0.7)
    assert (sure.accepted, unsure.accepted) == (True, False)


async def test_check_answer_without_check_not_accepted(project: Path) -> None:
    async with opened(project) as (orchestra, _):
        with pytest.raises(InputError, match="V036") as caught:
            await orchestra.check("1889", against="x", checks=[])
    assert caught.value.hint
