"""Drift: false alarms stay below delta, real drifts are detected, and changes of the audit log are detected."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.errors import InputError, SourceLocation
from orchestra.verification.certificates.audits import (
    AuditEntry,
    AuditLog,
    AuditVerdict,
    OutputAudited,
    OutputsSampled,
    SampledOutput,
    audit_entries,
    encode,
    in_sampling_order,
)
from orchestra.verification.certificates.conformal import quantile_rank
from orchestra.verification.certificates.drift import (
    DEFAULT_DELTA,
    GAMMA,
    DriftMonitor,
    alarm_probability,
    audits_to_detect,
    claims_bound,
    e_value,
    min_wrong,
)
from tests.verification.samples import certified

PLACE = SourceLocation("audits.jsonl", 1)
WATCHES = 500


def watched(rate: float, audits: int, seed: int, alpha: float = 0.05, delta: float = 0.05) -> int | None:
    """Number of audits until an alarm at this error rate; None without an alarm."""
    drawn, drift = random.Random(seed), DriftMonitor.of(alpha, delta)
    for number in range(1, audits + 1):
        drift = drift.with_audit(wrong=drawn.random() < rate)
        if drift.is_violated:
            return number
    return None


def test_drift_false_alarms_stay_below_delta() -> None:
    alarmed = sum(watched(0.05, 600, seed) is not None for seed in range(400))  # exactly at the guaranteed rate
    assert 0 < alarmed <= 0.05 * 400


@pytest.mark.parametrize("alpha", [0.01, 0.02, 0.05, 0.1, 0.3, 0.5])
def test_alarm_probability_at_alpha_is_below_delta(alpha: float) -> None:
    assert alarm_probability(alpha, 0.05, alpha, 1500) <= 0.05
    assert alarm_probability(alpha, 0.05, 0.8 * alpha, 1500) <= alarm_probability(alpha, 0.05, alpha, 1500)


def test_audits_to_detect_doubled_error_rate() -> None:
    within = audits_to_detect(0.05, 0.05, 0.1)
    print(f"a doubled error rate of 5 % is found within {within} audits, 9 times in 10")
    assert within == 386
    found = sum(watched(0.1, within, seed) is not None for seed in range(WATCHES))
    assert found / WATCHES == pytest.approx(0.9, abs=0.04)


def test_drift_broken_agent_is_detected_quickly() -> None:
    within = audits_to_detect(0.05, 0.05, 0.5)
    assert within is not None
    assert within <= 15


def test_alarm_probability_matches_simulation() -> None:
    simulated = sum(watched(0.15, 80, seed) is not None for seed in range(WATCHES)) / WATCHES
    assert alarm_probability(0.05, 0.05, 0.15, 80) == pytest.approx(simulated, abs=0.04)


def test_audits_to_detect_without_drift_is_none() -> None:
    assert audits_to_detect(0.05, 0.05, 0.05) is None
    assert audits_to_detect(0.05, 0.05, 0.01) is None


@given(
    st.floats(0.001, 0.5),
    st.integers(0, 3000).flatmap(lambda audited: st.tuples(st.just(audited), st.integers(0, audited))),
)
def test_e_value_expectation_at_alpha_is_one(alpha: float, counts: tuple[int, int]) -> None:
    audited, wrong = counts
    now = e_value(audited, wrong, alpha)
    then = alpha * e_value(audited + 1, wrong + 1, alpha) + (1 - alpha) * e_value(audited + 1, wrong, alpha)
    if 1e-300 < now < 1e300:
        assert then == pytest.approx(now, rel=1e-6)
    assert e_value(audited + 1, wrong + 1, alpha) >= e_value(audited + 1, wrong, alpha)


def test_min_wrong_is_smallest_alarming_count() -> None:
    wrong = min_wrong(100, 0.05, 0.05)
    assert e_value(100, wrong, 0.05) >= 20 > e_value(100, wrong - 1, 0.05)
    assert min_wrong(1, 0.05, 0.05) == 2  # a single audit proves nothing


def test_drift_alarm_is_permanent() -> None:
    drift = DriftMonitor.of(0.05, 0.05)
    for _ in range(5):
        drift = drift.with_audit(wrong=True)
    assert drift.is_violated
    for _ in range(500):
        drift = drift.with_audit(wrong=False)
    assert drift.evidence < 1
    assert drift.is_violated


def test_working_alpha_follows_adaptive_conformal_step() -> None:
    drift = DriftMonitor.of(0.05, 0.05).with_audit(wrong=True).with_audit(wrong=False)
    assert drift.alpha == pytest.approx(0.05 + GAMMA * (0.05 - 1) + GAMMA * 0.05)
    assert drift.guaranteed_alpha == 0.05


def test_working_alpha_never_exceeds_guaranteed_alpha() -> None:
    drift, drawn = DriftMonitor.of(0.05, 0.05), random.Random(1)
    for _ in range(7000):
        drift = drift.with_audit(wrong=drawn.random() < 0.02)
        assert drift.alpha <= 0.05
    assert drift.alpha > 0.03  # and stays there while the guarantee holds


def test_working_alpha_many_errors_falls_to_zero() -> None:
    drift = DriftMonitor.of(0.05, 0.05)
    for _ in range(100):
        drift = drift.with_audit(wrong=True)
        assert drift.alpha >= 0
    assert drift.alpha == 0


def test_drift_status_never_claims_guarantee_holds() -> None:
    drift = DriftMonitor.of(0.05, 0.05)
    assert drift.status == "not audited"
    assert drift.with_audit(wrong=False).status == "not refuted"
    for wrong in (True, False, False):
        drift = drift.with_audit(wrong=wrong)
    assert 1 < drift.evidence < drift.evidence_limit
    assert drift.status == "not refuted yet, but the audits point to a violation"
    for _ in range(5):
        drift = drift.with_audit(wrong=True)
    assert drift.status == "refuted"


# Certificates of claims: the rate of a single threshold may exceed the guaranteed one


@pytest.mark.parametrize(("answers", "alpha"), [(20, 0.1), (140, 0.2), (220, 0.05)])
def test_drift_claims_false_alarms_stay_below_delta(answers: int, alpha: float) -> None:
    drawn, broken, alarmed = random.Random(answers), answers - quantile_rank(answers, alpha), 0
    for _ in range(400):
        rate = drawn.betavariate(
            broken + 1, answers - broken
        )  # for a threshold at the k-th smallest risk, without ties
        drift = DriftMonitor.of_claims(alpha, answers, broken)
        for _ in range(400):
            drift = drift.with_audit(wrong=drawn.random() < rate)
        alarmed += drift.is_violated
    assert alarmed <= DEFAULT_DELTA * 400
    naive = (
        sum(
            alarm_probability(alpha, DEFAULT_DELTA, drawn.betavariate(broken + 1, answers - broken), 400)
            for _ in range(100)
        )
        / 100
    )
    assert naive > DEFAULT_DELTA  # bets against the guaranteed rate would raise too many alarms


def test_claims_bound_is_beta_quantile() -> None:
    drawn = random.Random(3)
    bound = claims_bound(100, 9, 0.1)
    assert sum(drawn.betavariate(10, 91) > bound for _ in range(4000)) / 4000 == pytest.approx(0.1, abs=0.02)
    assert claims_bound(10_000, 999, 0.025) == pytest.approx(0.1, abs=0.01)


def test_drift_useless_judge_is_detected_quickly() -> None:
    drift = DriftMonitor.of_claims(0.1, 220, 21)
    for _ in range(12):
        drift = drift.with_audit(wrong=True)
    assert drift.is_violated
    assert drift.alpha == pytest.approx(0.1 + 12 * GAMMA * (0.1 - 1))
    assert drift.guaranteed_alpha == 0.1


# The log


def output(number: int) -> SampledOutput:
    return SampledOutput(f"run{number}", "reading", f"{number:032x}", 0.9)


def drawn(count: int) -> OutputsSampled:
    mark = certified().digest
    return OutputsSampled(
        certificate=mark, at="2026-11-25", seed=0, population=count, outputs=tuple(map(output, range(count)))
    )


def logged(said: str) -> bytes:
    """A log with an audit per letter: r, w, u."""
    words: dict[str, AuditVerdict] = {"r": "right", "w": "wrong", "u": "unclear"}
    log = AuditLog().with_digests([drawn(len(said))])
    watch = AuditLog(tuple(log)).audit_state(certified())
    verdicts = [(output(at), words[one]) for at, one in enumerate(said)]
    lines = audit_entries(certified(), watch, verdicts, "ada", "2026-11-25")
    return encode([*log, *AuditLog(tuple(log)).with_digests(lines)])


def test_audit_log_state_follows_entries() -> None:
    watch = AuditLog.from_bytes(logged("rrwur"), PLACE).audit_state(certified())
    assert (watch.drift.audited, watch.drift.wrong, watch.unclear_count, watch.pending) == (4, 1, 1, [])
    steps = [audit.alpha for audit in watch.audits.values()]
    assert steps == pytest.approx([0.05, 0.05, 0.04525, 0.04525, 0.0455])
    assert list(watch.audits.values())[-1].evidence == pytest.approx(watch.drift.evidence)


def test_sampling_order_withheld_wait_for_earlier_verdicts() -> None:
    outputs = [
        msgspec.structs.replace(output(at), withheld=True) if kept == "." else output(at)
        for at, kept in enumerate(".a.b..c.")
    ]
    line = AuditLog().with_digests([msgspec.structs.replace(drawn(0), outputs=tuple(outputs))])
    watch = AuditLog(tuple(line)).audit_state(certified())

    def told(*said: int) -> list[int]:
        return [outputs.index(one) for one, _ in in_sampling_order(watch, [(outputs[at], "wrong") for at in said])]

    assert told() == []
    assert told(1) == [0, 1]
    assert told(3) == [0, 2, 3]
    assert told(1, 3) == [0, 1, 2, 3]
    assert told(1, 3, 6) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert {said for one, said in in_sampling_order(watch, [(outputs[1], "wrong")]) if one.withheld} == {"right"}


def test_audit_log_accepted_entries_keep_their_format() -> None:
    assert b"withheld" not in logged("rw")


def test_audit_log_other_certificate_does_not_count() -> None:
    other = certified(threshold=0.9)
    watch = AuditLog.from_bytes(logged("wwww"), PLACE).audit_state(other)
    assert (watch.drift.audited, watch.sampled) == (0, {})


def test_audit_log_voided_certificate_keeps_its_entries() -> None:
    void = certified().mark_void("four of four were wrong")
    assert void.digest != certified().digest
    assert void.original == certified()
    assert (
        AuditLog.from_bytes(logged("wwww"), PLACE)
        .audit_state(void)
        .violation.startswith("of audited answers 4 of 4 wrong, 100 %")
    )


@pytest.mark.parametrize("change", ["altered", "taken out", "moved", "added", "no json", "another kind"])
def test_audit_log_change_is_detected(change: str) -> None:
    lines = logged("rwrr").splitlines(keepends=True)
    match change:
        case "altered":
            lines[2] = lines[2].replace(b'"wrong"', b'"right"')
        case "taken out":
            del lines[2]
        case "moved":
            lines[1], lines[2] = lines[2], lines[1]
        case "added":
            lines.insert(2, lines[1])
        case "no json":
            lines[2] = b"\xff\x00\n"
        case _:
            lines[2] = lines[2].replace(b'"audited"', b'"forgiven"')
    with pytest.raises(InputError) as error:
        AuditLog.from_bytes(b"".join(lines), PLACE)
    assert error.value.code == "V020"


def test_audit_log_torn_line_is_ignored() -> None:
    whole = logged("rwr")
    last = whole[:-1].rfind(b"\n") + 1
    for end in range(last, len(whole)):
        log = AuditLog.from_bytes(whole[:end], PLACE)
        assert (len(log.entries), log.size) == (3, last)


@given(st.binary(max_size=200))
def test_audit_log_any_bytes_parse_or_raise_input_error(data: bytes) -> None:
    with suppress(InputError):
        assert not AuditLog.from_bytes(data, PLACE).entries


def test_audit_log_duplicate_verdict_counts_once() -> None:
    log = AuditLog.from_bytes(logged("r"), PLACE)
    again: list[AuditEntry] = [
        msgspec.structs.replace(line, verdict="wrong") for line in log.entries if isinstance(line, OutputAudited)
    ]
    doubled = replace(log, entries=(*log.entries, *log.with_digests(again)))
    assert doubled.audit_state(certified()).drift.wrong == 0
