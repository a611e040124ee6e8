"""V2 and V3: asking the question again. `rederive` asks another agent, which has not seen the answer; `agree` asks the
producer again, with sampling.

Agreement is not correctness: an answer that other samples dispute may still be true. So `agree` never fails a value,
and is not asked if the evidence denies one (VERIFICATION, first paragraph and V3; semantic entropy over clusters of
answers after Kuhn, Gal, Farquhar 2023, https://arxiv.org/abs/2302.09664, with V0 equivalence in place of a model).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestra.agents.contract import Contract
from orchestra.core.events import CheckQuestion, Verdict
from orchestra.core.protocols import EvidenceSource
from orchestra.verification.check_expression import AGREE
from orchestra.verification.entailment import EVIDENCE, JudgeReply
from orchestra.verification.equivalence import answer_content, cluster_equivalent, is_equivalent
from orchestra.verification.verdict import FAIL, PASS, excerpt, unknown_by_model

REDERIVE = "rederive"
DEFAULT_SAMPLES = 5
"""Default number of samples of `agree`. With five, a 4:1 split has a score of 0.69, and 3:2 has 0.58."""
MAX_SAMPLES = 16


def build_inputs(
    contract: Contract, given: Mapping[str, Any], sources: Sequence[EvidenceSource]
) -> dict[str, Any] | str:
    """Returns the inputs of the agent that answers again: the producer's inputs by name, and the evidence as
    `evidence`;
    or the name of a missing input.
    """
    wanted: Mapping[str, Any] = contract.input.get("properties", {})
    found = {name: given[name] for name in wanted if name in given}
    if EVIDENCE in wanted and EVIDENCE not in found and sources:
        found[EVIDENCE] = "\n\n".join(source.text for source in sources)
    return next((name for name in contract.input.get("required", ()) if name not in found), found)


def rederivation_questions(
    contract: Contract, given: Mapping[str, Any], sources: Sequence[EvidenceSource]
) -> tuple[CheckQuestion, ...] | Verdict:
    """Returns the question to the other agent: the producer's inputs and evidence, without its answer."""
    inputs = build_inputs(contract, given, sources)
    if isinstance(inputs, str):
        return unknown_by_model(REDERIVE, f"the agent {contract.name} requires the input {inputs!r}, which is missing")
    return (CheckQuestion(contract.name, inputs),)


def judge_rederivation(
    value: Any, schema: Mapping[str, Any], output: Mapping[str, Any], replies: Sequence[JudgeReply]
) -> Verdict:
    """Judges whether the other agent gave the same answer. An abstention is `unknown`."""
    if len(replies) != 1 or replies[0].error:
        return unknown_by_model(REDERIVE, replies[0].error if replies else "no reply")
    mine, theirs = answer_content(value, schema), answer_content(replies[0].value, output)
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        missing = [name for name in mine if name not in theirs]
        mine, theirs = (
            {name: mine[name] for name in mine if name in theirs},
            {name: theirs[name] for name in mine if name in theirs},
        )
        if missing and is_equivalent(mine, theirs):
            return unknown_by_model(REDERIVE, f"the other agent does not answer {missing[0]}")
    elif isinstance(mine, Mapping) or isinstance(theirs, Mapping):
        return unknown_by_model(REDERIVE, "one of the answers is a record, and the other is not")
    if is_equivalent(mine, theirs):
        return Verdict(REDERIVE, PASS, 1.0, deterministic=False)
    if theirs is None:
        return unknown_by_model(REDERIVE, "the other agent found no answer")
    return Verdict(
        REDERIVE, FAIL, 0.0, f"the other agent found {excerpt(theirs)}, not {excerpt(mine)}", deterministic=False
    )


def sample_questions(producer: Contract, given: Mapping[str, Any], count: int) -> tuple[CheckQuestion, ...]:
    """Returns the producer's own question `count` times, each with its own seed. Other inputs in `given` are for other
    checks.
    """
    own = {name: value for name, value in given.items() if name in producer.input.get("properties", {})}
    return tuple(CheckQuestion(producer.name, own, number) for number in range(1, count + 1))


def judge_agreement(value: Any, schema: Mapping[str, Any], replies: Sequence[JudgeReply]) -> Verdict:
    """Judges how far the samples agree with each other and with the value: 1 - entropy / log k over clusters of
    equivalent answers.

    Passes if more than half of all samples are equivalent to the value. Otherwise it is `unknown`.
    """
    heard = [answer_content(reply.value, schema) for reply in replies if not reply.error]
    if len(heard) < 2 or 2 * len(heard) <= len(replies):
        why = next((reply.error for reply in replies if reply.error), "no reply")
        return unknown_by_model(AGREE, f"{len(heard)} of {len(replies)} samples were answered: {why}")
    score = _agreement_score([len(cluster) for cluster in cluster_equivalent(heard)], len(heard))
    mine = answer_content(value, schema)
    with_it = sum(is_equivalent(mine, other) for other in heard)
    reason = f"{with_it} of {len(replies)} samples say the same"
    if 2 * with_it > len(replies):
        return Verdict(AGREE, PASS, score, reason, deterministic=False)
    return unknown_by_model(AGREE, reason, score)


def _agreement_score(sizes: Sequence[int], count: int) -> float:
    entropy = -sum(size / count * math.log(size / count) for size in sizes)
    return min(1.0, max(0.0, 1.0 - entropy / math.log(count)))
