"""`orchestra certify --watch`: sampling accepted outputs, verdicts, and refuted guarantees."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestra.cli.learn.audit import parse_period
from orchestra.core.errors import SourceLocation
from orchestra.verification.certificates.audits import AuditLog, OutputAudited, OutputsSampled, encode
from orchestra.verification.certificates.file import Certificate
from tests.cli.processes import Terminal
from tests.cli.shell import Said, Shell
from tests.cli.test_certify import FILE, PREDICTED, certified, certify, edited, lines, predictions, rows, run, shell

pytestmark = pytest.mark.slow

__all__ = ["certified", "shell"]
LOG = Path("agents/sorter/audits.jsonl")
WATCH = ("certify", "sorter", "--watch")


@pytest.fixture
def ran(shell: Shell, certified: Certificate) -> Shell:
    """A shell with forty sorted messages; those with a number below the threshold were withheld."""
    lines("messages.jsonl", [{"id": f"{n}", "input": {"text": f"{n}"}} for n in range(0, 1000, 25)])
    assert shell("batch", "sort", "--input", "messages.jsonl", "--output", "sorted.jsonl").code == 0
    return shell


def drawn(shell: Shell, count: int, *more: str) -> list[dict[str, Any]]:
    said = shell(*WATCH, "--audit", str(count), *more)
    assert said.code == 0, said.err
    return [json.loads(line) for line in said.out.splitlines()]


def labelled(shell: Shell, found: list[dict[str, Any]], verdict: str | dict[str, Any], *more: str) -> Said:
    told = {"verdict": verdict} if isinstance(verdict, str) else {"expected": verdict}
    lines("verdicts.jsonl", [{**line, "verdict": None, **told} for line in found])
    return shell(*WATCH, "--labels", "verdicts.jsonl", *more)


def written() -> list[Any]:
    from orchestra.core.errors import SourceLocation

    return list(AuditLog.from_bytes(LOG.read_bytes(), SourceLocation("", 1)).entries)


def test_a_draw_has_accepted_outputs_alone_with_what_was_asked(ran: Shell) -> None:
    found = drawn(ran, 20)
    assert len({line["run"] for line in found}) == 20
    assert {line["node"] for line in found} == {"sorted"}
    certificate = Certificate.from_bytes(FILE.read_bytes())
    assert all(line["score"] >= certificate.threshold and line["verdict"] is None for line in found)
    assert all(line["input"].keys() == {"text"} and line["output"] == {"label": "yes"} for line in found)


def test_the_same_seed_draws_the_same_and_another_one_others(ran: Shell) -> None:
    first = drawn(ran, 5)
    LOG.unlink()
    assert drawn(ran, 5) == first
    LOG.unlink()
    assert drawn(ran, 5, "--seed", "1") != first


def test_what_was_drawn_stays_first_until_somebody_has_judged_it(ran: Shell) -> None:
    first = drawn(ran, 5)
    assert drawn(ran, 3) == first[:3]
    more = drawn(ran, 8)
    assert more[:5] == first
    assert len({line["run"] for line in more}) == 8
    assert [len(line.outputs) for line in written() if isinstance(line, OutputsSampled)] == [5, 3]


def test_verdicts_are_recorded_each_with_its_step_of_alpha(ran: Shell) -> None:
    found = drawn(ran, 4)
    said = labelled(ran, found, "right", "--by", "ada")
    assert said.code == 0
    assert "verdicts.jsonl: 4 verdicts recorded" in said.err
    assert "audited   0 of 4 wrong, 0 % [0 %, 60.2 %]; 0 sampled and still open" in said.out
    assert "The guarantee is not refuted by these audits." in said.out
    assert "working at 0.05 of 0.05" in said.out
    audits = [line for line in written() if isinstance(line, OutputAudited)]
    assert [(line.by, line.verdict) for line in audits] == [("ada", "right")] * 4
    assert [line.alpha for line in audits] == [0.05] * 4


def test_audits_against_the_guarantee_do_not_support_it(ran: Shell) -> None:
    found = drawn(ran, 4)
    labelled(ran, found[:1], "wrong")
    said = labelled(ran, found[1:], "right")
    assert said.code == 0
    assert "The guarantee is not refuted yet, but the audits contradict it." in said.out
    assert "not refuted yet, but the audits point to a violation" in ran("certify", "--watch").out
    assert ran(*WATCH, "--json").json["standing"] == "not refuted yet, but the audits point to a violation"


def test_what_is_expected_is_held_against_the_output(ran: Shell) -> None:
    found = drawn(ran, 2)
    assert labelled(ran, found[:1], {"label": "yes"}, "--json").json["wrong"] == 0
    assert labelled(ran, found[1:], {"label": "no"}, "--json").json["wrong"] == 1


def test_a_broken_guarantee_is_voided_and_refused(ran: Shell) -> None:
    before = FILE.read_bytes()
    said = labelled(ran, drawn(ran, 6), "wrong")
    assert said.code == 3
    assert "The certificate is void: of audited answers 6 of 6 wrong" in said.out
    assert FILE.read_bytes() != before
    refused = run(ran, 990)
    assert refused.code == 2
    assert "V002" in refused.err
    assert "is void: of audited answers 6 of 6 wrong" in refused.err
    assert ran("certify", "sorter").code == 2
    again = ran(*WATCH, "--json")
    assert again.code == 3
    assert again.json["void"].startswith(
        "of audited answers 6 of 6 wrong, 100 % [54.1 %, 100 %], and 5 % was guaranteed"
    )
    assert ran(*WATCH, "--audit", "5").code == 3  # no more sampling
    assert len(written()) == 8  # a sample, six verdicts, and the voiding


def test_a_void_certificate_stays_void_without_its_log(ran: Shell) -> None:
    labelled(ran, drawn(ran, 6), "wrong")
    LOG.unlink()
    assert run(ran, 990).code == 2


def test_a_process_that_ended_before_it_voided_is_made_up_for(ran: Shell) -> None:
    sound = FILE.read_bytes()
    labelled(ran, drawn(ran, 6), "wrong")
    FILE.write_bytes(sound)
    assert ran(*WATCH).code == 3
    assert run(ran, 990).code == 2


def test_another_certificate_begins_another_watch(ran: Shell) -> None:
    labelled(ran, drawn(ran, 6), "wrong")
    rows(1000, 1000)
    assert ran("certify", "sorter", "--data", "rows.jsonl", "--checks", "schema,confidence", "--seed", "7").code == 0
    assert run(ran, 990).code == 0
    found = drawn(ran, 5)
    assert len(found) == 1  # of the runs since then
    assert [line["input"] for line in found] == [{"text": "990"}]
    assert labelled(ran, found, "right", "--json").json["audited"] == 1


def test_faulty_verdicts_are_told_all_at_once_and_none_is_recorded(ran: Shell) -> None:
    found = drawn(ran, 3)
    size = len(LOG.read_bytes())
    other = json.loads(run(ran, 999).out)["run"]
    strange: list[Any] = [
        {**found[0], "verdict": "right"},
        {**found[0], "verdict": "right"},
        {**found[1], "verdict": "perhaps"},
        {**found[1], "verdict": None},
        {"run": "nowhere", "node": "sorted", "verdict": "right"},
        {"run": other, "node": "sorted", "verdict": "wrong"},
        {"node": "sorted"},
        [1, 2],
    ]
    lines("verdicts.jsonl", strange)
    with Path("verdicts.jsonl").open("ab") as file:
        file.write(b"\xff\n\n{\n")
    said = ran(*WATCH, "--labels", "verdicts.jsonl")
    assert said.code == 2
    for text in (
        "two lines are about sorted of run",
        "the verdict is 'perhaps', and must be right, wrong or unclear",
        "neither `verdict` nor `expected`",
        "run nowhere is not in the journal",
        f"sorted of run {other} was not sampled",
        "missing required field `run`",
        "Expected `object`, got `array`",
        "verdicts.jsonl:9:1",
        "verdicts.jsonl:11:1",
    ):
        assert text in said.err
    assert len(LOG.read_bytes()) == size


def test_a_verdict_on_record_may_be_said_again_and_not_otherwise(ran: Shell) -> None:
    found = drawn(ran, 2)
    labelled(ran, found, "right", "--by", "ada")
    again = labelled(ran, found, "right")
    assert again.code == 0
    assert "0 verdicts recorded, 2 of before" in again.err
    other = labelled(ran, found[:1], "wrong")
    assert other.code == 2
    assert "is `right` by ada, " in other.err


def test_of_a_run_that_is_gone_only_a_verdict_counts(ran: Shell) -> None:
    found = drawn(ran, 2)
    assert ran("runs", "gc", "--older", "0h", "--yes").code == 0
    expected = labelled(ran, found, {"label": "yes"})
    assert expected.code == 2
    assert "is gone, so its output cannot be compared with the expected one" in expected.err
    assert labelled(ran, found[:1], "right").code == 0
    left = ran(*WATCH, "--audit", "1")
    assert left.code == 2
    assert "V022" in left.err
    assert "1 output of an earlier sample cannot be shown" in left.err


def test_unclear_ones_are_counted_apart(ran: Shell) -> None:
    said = labelled(ran, drawn(ran, 3), "unclear", "--json").json
    assert (said["audited"], said["unclear"], said["open"], said["alpha"]) == (0, 3, [], 0.05)


def test_recalled_answers_are_passed_over(ran: Shell) -> None:
    assert ran("runs", "fork", json.loads(run(ran, 990).out)["run"], "--json").code == 0
    assert "1 answers recalled from another run skipped" in ran(*WATCH, "--audit", "1").err


@pytest.mark.parametrize("option", ["--since", "--until"])
def test_invalid_time_is_refused(ran: Shell, option: str) -> None:
    for text in ("noon", "2026-13-01", "1999-02-30", "-1d"):
        said = ran(*WATCH, "--audit", "1", f"{option}={text}")
        assert said.code == 2, text
        assert "C010" in said.err


def test_the_time_chooses_among_runs(ran: Shell) -> None:
    assert ran(*WATCH, "--audit", "3", "--since", "yesterday", "--until", "today").code == 2
    assert len(drawn(ran, 3, "--since", "today")) == 3
    assert ran(*WATCH, "--audit", "3", "--since", "today", "--until", "yesterday").code == 2


def test_watch_without_a_certificate_is_refused(shell: Shell) -> None:
    said = shell(*WATCH)
    assert (said.code, said.err[:4]) == (3, "L119")
    assert shell("certify", "--watch").code == 0
    assert shell("certify").code == 2
    assert shell("certify", "--audit", "3").code == 2


def test_without_audits_it_says_how_to_begin(ran: Shell) -> None:
    said = ran(*WATCH)
    assert said.code == 0
    assert "an error rate of 10 % within 386 audits, 90 % of the time; a false alarm at most 5 %" in said.out
    assert "orchestra certify sorter --watch --audit 20" in said.out
    assert not LOG.exists()


def again(shell: Shell, *more: str) -> Said:
    return shell("certify", "sorter", "--data", "rows.jsonl", "--checks", "schema,confidence", *more)


def test_voided_rows_make_no_certificate(ran: Shell) -> None:
    labelled(ran, drawn(ran, 6), "wrong")
    for more in (
        PREDICTED,
        (*PREDICTED, "--alpha", "0.5"),
        (*PREDICTED, "--seed", "1"),
        (),
        ("--out", "elsewhere.json", *PREDICTED),
    ):
        said = again(ran, *more)
        assert said.code == 2, more
        assert (
            "V023: audits have voided the certificate of 'sorter' that was made on many of these rows, rows.jsonl"
            in said.err
        )
    assert Certificate.from_bytes(FILE.read_bytes()).void_reason


def test_voided_rows_make_no_certificate_after_a_replacement(ran: Shell) -> None:
    labelled(ran, drawn(ran, 6), "wrong")
    refuted = Path("rows.jsonl").read_bytes()
    rows(1000, 1000)
    predictions(1000, first=1000)
    said = again(ran, *PREDICTED)
    assert said.code == 0, said.err
    assert "which audits have voided: of audited answers 6 of 6 wrong" in " ".join(said.out.split())
    assert ran(*WATCH).code == 0
    Path("rows.jsonl").write_bytes(refuted)
    assert "V023" in again(ran, *PREDICTED).err


@pytest.mark.parametrize("made_anew", [False, True])
def test_voided_rows_make_no_certificate_when_edited_or_mixed(ran: Shell, made_anew: bool) -> None:
    labelled(ran, drawn(ran, 6), "wrong")
    refuted = Path("rows.jsonl").read_text()
    if made_anew:
        rows(1000, 1000)
        predictions(1000, first=1000)
        assert again(ran, *PREDICTED).code == 0
    few = "".join(refuted.splitlines(True)[1:])
    others = "".join(
        json.dumps({"id": f"x{n}", "input": {"text": f"x{n}"}, "expected": {}}) + "\n" for n in range(2000)
    )
    for text in (f"{refuted}\n", few, refuted.replace('"id": "', '"id": "a'), refuted + others):
        Path("rows.jsonl").write_text(text)
        assert again(ran).err[:4] == "V023"


def test_an_alarm_counts_before_anybody_has_voided_the_certificate(ran: Shell) -> None:
    labelled(ran, drawn(ran, 6), "wrong")
    LOG.write_bytes(b"".join(line for line in LOG.read_bytes().splitlines(True) if b'"voided"' not in line))
    FILE.write_bytes(Certificate.from_bytes(FILE.read_bytes()).original.to_bytes())
    assert "V023" in again(ran, *PREDICTED).err


def test_all_agents_are_watched_at_once(ran: Shell) -> None:
    (told,) = ran("certify", "--watch", "--json").json
    assert told == {"agent": "sorter", "audited": 0, "wrong": 0, "void": None, "evidence": 1, "standing": "not audited"}
    nothing = ran("certify", "--watch").out
    assert "not audited" in nothing
    assert "working alpha" in nothing
    assert "0.05 of 0.05" in nothing
    labelled(ran, drawn(ran, 6), "wrong")
    said = ran("certify", "--watch")
    assert said.code == 3
    assert "void: of audited answers 6 of 6" in said.out


def test_a_certificate_that_is_void_for_another_reason_is_not_watched(ran: Shell) -> None:
    Path("agents/sorter/prompt.md").write_text("Sort: {{ text }}\n")
    said = ran(*WATCH)
    assert said.code == 2
    assert "its card or prompt changed" in said.err


def test_a_changed_log_is_refused(ran: Shell) -> None:
    labelled(ran, drawn(ran, 2), "wrong")
    LOG.write_text(LOG.read_text().replace('"wrong"', '"right"'))
    said = ran(*WATCH)
    assert said.code == 2
    assert "V020" in said.err


def test_a_person_is_asked_at_the_terminal_and_what_was_said_stands(ran: Shell) -> None:
    with Terminal(*WATCH, "--audit", "3", "--by", "ada") as terminal:
        terminal.until("1 of 3  sorted of run")
        shown = terminal.until("[q]uit: ")
        assert "text: " in shown
        assert '"label": "yes"' in shown
        terminal.press("perhaps\n")
        terminal.until("[q]uit: ")
        terminal.press("y\n")
        terminal.until("2 of 3")
        terminal.until("[q]uit: ")
        terminal.press("N\n")
        terminal.until("3 of 3")
        terminal.until("[q]uit: ")
        terminal.press("q\n")
        code, shown = terminal.ended()
    assert code == 0
    assert "1 of 2 wrong" in shown
    assert "1 sampled and still open" in shown
    assert [line.verdict for line in written() if isinstance(line, OutputAudited)] == ["right", "wrong"]


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of a process is set by tzset")
@pytest.mark.parametrize(
    "now", ["2026-10-25 12:00", "2026-10-26 12:00", "2026-03-29 12:00", "2026-03-30 12:00", "2026-11-24 12:00"]
)
def test_a_day_begins_at_its_midnight_also_where_clocks_were_changed_since(
    now: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Then(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Then:
            return cls.fromisoformat(now)

    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Europe/Berlin")
        time.tzset()
        patched.setattr("orchestra.cli.options.datetime", Then)
        today = Then.now().date()
        for day, name in ((today, "today"), (today - timedelta(days=1), "yesterday")):
            assert parse_period(name, None).run_filter.since == parse_period(day.isoformat(), None).run_filter.since
    time.tzset()


def test_an_input_is_bet_on_once_however_often_it_was_answered(ran: Shell) -> None:
    """Three requests with the same text count as one, within a sample and over several."""
    lines("more.jsonl", [{"id": f"again {n}", "input": {"text": " 975 "}} for n in range(3)])
    assert ran("batch", "sort", "--input", "more.jsonl", "--output", "more_sorted.jsonl").code == 0
    said = ran(*WATCH, "--audit", "100")
    texts = [json.loads(line)["input"]["text"].strip() for line in said.out.splitlines()]
    assert len(set(texts)) == len(texts)
    assert "975" in texts
    assert (
        f"{len(texts)} accepted outputs in 43 runs to sample from; 3 more with an input or group that is "
        "already counted"
    ) in said.err
    assert labelled(ran, [json.loads(line) for line in said.out.splitlines()], "right").code == 0
    assert run(ran, 975).code == 0
    assert "V022" in ran(*WATCH, "--audit", "100").err, "what was judged once is not judged again"


def test_what_was_drawn_before_by_its_name_alone_is_known_by_its_input(ran: Shell) -> None:
    """An old log has no digests of inputs."""
    drawn(ran, 100)
    found = AuditLog.from_bytes(LOG.read_bytes(), SourceLocation("", 1)).entries
    old = [
        msgspec.structs.replace(
            one, outputs=[msgspec.structs.replace(two, input_fingerprint=msgspec.UNSET) for two in one.outputs]
        )
        for one in found
        if isinstance(one, OutputsSampled)
    ]
    LOG.write_bytes(encode(AuditLog().with_digests(old)))
    assert run(ran, 975).code == 0
    before = len(written())
    drawn(ran, 100)
    assert len(written()) == before


def test_of_a_group_one_is_bet_on_where_the_certificate_was_made_of_groups(shell: Shell) -> None:
    edited("input: {text: str}", "input: {text: str, about: str}\nevidence: about")
    edited("input: {text: str}", "input: {text: str, about: str}", "workflows/sort.yaml")
    edited('text: "${input.text}"', 'text: "${input.text}", about: "${input.about}"', "workflows/sort.yaml")
    made = [
        {"id": f"{n}", "input": {"text": f"{n}", "about": f"{n // 2}"}, "expected": {"label": "yes"}}
        for n in range(2000)
    ]
    lines("rows.jsonl", made)
    predictions(2000)
    assert certify(shell, *PREDICTED).code == 0
    certificate = Certificate.from_bytes(FILE.read_bytes())
    assert (certificate.data.grouped, certificate.data.group) == (1000, "about")
    asked = [{"id": f"{n}", "input": {"text": f"{n}", "about": "a letter"}} for n in range(990, 999)]
    lines("messages.jsonl", asked)
    assert shell("batch", "sort", "--input", "messages.jsonl", "--output", "sorted.jsonl").code == 0
    assert len(drawn(shell, 5)) == 1
