"""The certificate file: it round-trips, and is refused if it is malformed, edited, or does not support its
guarantee.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.errors import InputError
from orchestra.verification.acceptance import VerificationRequest, certification_score, verify_without_models
from orchestra.verification.certificates.file import Certificate
from tests.verification.samples import BONDS, certified

MADE = certified()


def refused(data: bytes) -> InputError:
    with pytest.raises(InputError) as caught:
        Certificate.from_bytes(data)
    return caught.value


def changed(change: Callable[[dict[str, Any]], None], *, sealed: bool = True) -> bytes:
    """The file after a change. With `sealed`, its digest is recomputed."""
    data = json.loads(MADE.to_bytes())
    change(data)
    if sealed:
        data["digest"] = msgspec.json.decode(json.dumps(data), type=Certificate).with_digest().digest
    return json.dumps(data).encode()


def test_certificate_round_trips() -> None:
    assert Certificate.from_bytes(MADE.to_bytes()) == MADE
    assert (
        MADE.guarantee
        == f"at most 5 % of what is accepted is wrong, with 95 % confidence; covers {100 * MADE.coverage:.3g} %"
    )
    assert MADE.renew_command == "orchestra certify reader --data FILE --alpha 0.05 --delta 0.05"
    assert MADE.checks == ("confidence", "quote")


def test_certificate_voided_keeps_key_order_and_original() -> None:
    # journals store the digest of the file's bytes
    void = MADE.mark_void("4 of 20 were wrong")
    keys, more = (list(json.loads(one.to_bytes())) for one in (MADE, void))
    assert (keys[:3], keys[-1]) == (["format", "kind", "agent"], "digest")
    assert more == [*keys[:-1], "void_reason", "digest"]
    assert Certificate.from_bytes(void.to_bytes()) == void
    assert void.original == MADE


def test_certificate_edited_threshold_is_refused() -> None:
    error = refused(changed(lambda data: data.update(threshold=0.1), sealed=False))
    assert error.code == "V004"
    assert error.hint == MADE.renew_command


@given(st.sampled_from(sorted(set(json.loads(MADE.to_bytes())) - {"digest"})))
def test_certificate_any_edit_is_refused(key: str) -> None:
    def other(value: Any) -> Any:
        match value:
            case str():
                return value + "x"
            case float() | int():
                return value / 2
            case list():
                return [*value, "x"]
            case dict():
                first = next(iter(value))
                return {**value, first: other(value[first])}
        raise AssertionError(value)

    assert refused(changed(lambda data: data.update({key: other(data[key])}), sealed=False)).code in ("V003", "V004")


@pytest.mark.parametrize("change", [{"alpha": 0.01}, {"delta": 0.0001}, {"accepted": 20}])
def test_certificate_figures_without_guarantee_are_refused(change: dict[str, Any]) -> None:
    def weaken(data: dict[str, Any]) -> None:
        data.update(errors=8)
        data.update(change)

    error = refused(changed(weaken))
    assert error.code == "V003"
    assert "do not support" in error.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b" " * (1 << 20) + b"{}",
        MADE.to_bytes().replace(b"orchestra/certificate/v3", b"orchestra/certificate/v9"),
        MADE.to_bytes().replace(b'"alpha": 0.05', b'"alpha": NaN'),
        MADE.to_bytes().replace(b'"alpha": 0.05', b'"alpha": 1.5'),
        MADE.to_bytes().replace(b'"alpha": 0.05', b'"alpha": "a lot"'),
        MADE.to_bytes().replace(b'"agent"', b'"agents"'),
        MADE.to_bytes().replace(b'"accepted"', b'"accepted": -1, "x"'),
    ],
)
def test_certificate_invalid_bytes_are_refused(data: bytes) -> None:
    assert refused(data).code == "V003"


def test_certificate_of_previous_format_is_refused() -> None:
    previous = (
        MADE.to_bytes()
        .replace(b"orchestra/certificate/v3", b"orchestra/certificate/v2")
        .replace(b"held_out", b"judged")
    )
    error = refused(previous)
    assert (error.code, error.hint) == ("V003", Certificate.create_command)
    assert error.message.endswith(
        "its format is 'orchestra/certificate/v2', and this version reads 'orchestra/certificate/v3'"
    )


def test_certificate_of_another_kind_is_refused() -> None:
    error = refused(MADE.to_bytes().replace(b'"kind": "outputs"', b'"kind": "claims"'))
    assert (error.code, error.message) == ("V003", "no certificate: its kind is 'claims', not 'outputs'")


def test_certificate_impossible_counts_are_refused() -> None:
    assert refused(changed(lambda data: data.update(errors=data["accepted"] + 1))).code == "V003"
    assert refused(changed(lambda data: data.update(accepted=data["data"]["calibration"] + 1))).code == "V003"


@pytest.mark.parametrize("field", ["card", "model", "adapter", "checks"])
def test_certificate_each_changed_dependency_is_reported(field: str) -> None:
    assert BONDS.changes(BONDS) == []
    (said,) = BONDS.changes(msgspec.structs.replace(BONDS, **{field: "another"}))
    assert field in said


SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}


@given(
    st.sampled_from([{"label": "a"}, {"label": 1}, {}]),
    st.none() | st.floats(0, 1),
    st.lists(st.sampled_from(["schema", "confidence", "quote", "mine"]), unique=True, min_size=1),
    st.floats(0, 1),
)
def test_certification_score_decides_acceptance(
    value: Any, confidence: float | None, checks: list[str], threshold: float
) -> None:
    """An answer is accepted at a threshold exactly if its certified score reaches it, and never if a check fails."""
    situation = VerificationRequest(value=value, schema=SCHEMA, checks=tuple(checks), confidence=confidence)
    score = certification_score(situation)
    ruling = verify_without_models(msgspec.structs.replace(situation, accept=threshold))
    assert ruling.accepted == (score is not None and score >= threshold)
    if ruling.accepted:
        assert ruling.score == score
