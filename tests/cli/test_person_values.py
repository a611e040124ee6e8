"""Values given by a person: results of calls of unknown outcome, and overrides in forks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestra import InputError
from orchestra.cli.run import questions
from orchestra.core.events import (
    AttemptFinished,
    CancelRequested,
    InboxMessageRejected,
    OverrideSource,
    QuestionAnswered,
    QuestionAsked,
    RunResumed,
)
from orchestra.core.outcomes import FailedOutcome
from orchestra.core.protocols import InboxMessage
from orchestra.journal.history import History
from tests.cli.shell import Shell
from tests.cli.shop import ended, opened, rows

NOTE = """
schema: orchestra/v1
name: note
output: {it: "${note}"}
nodes:
  note: {ask: "What is noted?", returns: "str | null"}
"""


async def doubtful(shop: Path) -> str:
    """A run whose process was killed between its payment and the response."""
    async with opened(shop) as orchestra:
        run = await orchestra.start(orchestra.find("order"), topics=["tea"])
        assert await run.wait_until_blocked() is None
    (shop / "die").touch()
    command = (sys.executable, "-m", "orchestra.cli", "runs", "answer", run.id, "yes", "--by", "ada")
    died = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False, timeout=60)
    assert died.returncode == 9
    (shop / "die").unlink()
    return run.id


async def test_person_reports_an_unknown_call_result_also_for_forks(shop: Path, shell: Shell) -> None:
    run = await doubtful(shop)
    said = await asyncio.to_thread(shell, "runs", "resume", run)
    assert said.code == 5
    assert "or the result of the call, if it happened: a value of type Receipt, as JSON" in said.out
    assert f"or: orchestra runs answer {run} --to " in said.out
    wrong = await asyncio.to_thread(shell, "runs", "answer", run, "--node", "paid", "--gave", '{"number": "seven"}')
    assert wrong.code == 2
    assert "E022: paid of run" in wrong.err
    assert "what the call gave is a value of type Receipt" in wrong.err
    (shop / "receipt.json").write_text('{"number": 7, "item": "tea"}')
    text = await asyncio.to_thread(shell, "runs", "answer", run, "--node", "paid", "--gave", "seven")
    assert "C024: paid outputs a value of type Receipt" in text.err
    both = await asyncio.to_thread(shell, "runs", "answer", run, "again", "--node", "paid", "--gave", "7")
    assert both.code == 2
    done = await asyncio.to_thread(
        shell, "runs", "answer", run, "--node", "paid", "--gave", "@receipt.json", "--by", "ada"
    )
    assert done.code == 5, done.err  # the question about the letter
    assert "Send about tea; tea 7?" in done.out
    assert (await asyncio.to_thread(shell, "runs", "answer", run, "yes", "--node", "sure")).code == 0
    assert (shop / "paid.txt").read_text() == "tea\n"
    shown = (await asyncio.to_thread(shell, "runs", "show", run)).out
    assert "paid: ada reports that the call happened, with the result" in shown
    assert " given " in shown
    node = (await asyncio.to_thread(shell, "runs", "show", run, "paid")).out
    assert "given by ada" in node
    assert "under way" not in node
    async with opened(shop) as orchestra:
        events = list(await orchestra.journal.read(run))
        (answer,) = [event for event in events if isinstance(event, QuestionAnswered) and event.call_happened]
        assert (answer.by, answer.value) == ("ada", {"number": 7, "item": "tea"})
        assert (await orchestra.replay(run)).reason == ""
        assert (await orchestra.whatif(run)).verdict == "same"
        forked = (await orchestra.fork(run)).run
        result = await forked  # both questions were answered
        assert result.output == "about tea; tea 7"
        recalled = [
            event
            for event in await orchestra.journal.read(forked.id)
            if isinstance(event, AttemptFinished) and event.overridden_by
        ]
        assert [(event.node, event.overridden_by) for event in recalled] == [("paid", OverrideSource("ada", run))]
        assert rows(list(await orchestra.journal.read(forked.id)))["paid"][0] == "given"
        (claim,) = result.claims
        assert "ada" in claim.unsupported
    assert (shop / "paid.txt").read_text() == "tea\n"


async def test_declined_call_prints_the_resume_command(shop: Path, shell: Shell) -> None:
    run = await doubtful(shop)
    await asyncio.to_thread(shell, "runs", "resume", run)
    said = await asyncio.to_thread(shell, "runs", "answer", run, "fail", "--node", "paid")
    assert said.code == 1
    async with opened(shop) as orchestra:
        outcome = History.of(await orchestra.journal.read(run)).outcome
        assert isinstance(outcome, FailedOutcome)
        assert (outcome.code, outcome.hint) == (
            "E016",
            "see what it has done; to call it again: orchestra runs fork RUN --again; "
            "to say what it gave: orchestra runs fork RUN --set paid=VALUE",
        )
        fork = await orchestra.options(values={"paid": {"number": 7, "item": "tea"}}).fork(run)
        assert await fork.run.wait_until_blocked() is None
        assert "Send about tea; tea 7?" in fork.run.questions[0].question
    assert (shop / "paid.txt").read_text() == "tea\n"


async def test_call_result_option_accepts_text_json_or_a_file(shop: Path, shell: Shell) -> None:
    run = await ended(shop, "tea")
    (shop / "lines.json").write_text('["a", "b"]')
    said = await asyncio.to_thread(
        shell,
        "runs",
        "fork",
        run,
        "--set",
        "lines=@lines.json",
        "--set",
        'paid={"number": 9, "item": "cake"}',
        "--set",
        "sure=yes",
        "--by",
        "bob",
    )
    assert said.code == 0, said.err
    assert "lines: the value is given by bob\n" in said.out
    assert f"allowed: the answer is given by ada, in run {run}\n" in said.out
    assert "paid: pay has effects and is not called\n" in said.out
    assert "a, b; cake 9" in said.out
    assert (shop / "paid.txt").read_text() == "tea\n"
    events = (await asyncio.to_thread(shell, "runs", "show", "last", "--json")).json["events"]
    assert events[0]["overrides"]["lines"] == {"value": ["a", "b"], "source": {"by": "bob"}}
    page = shop / "page.html"
    assert (await asyncio.to_thread(shell, "runs", "show", "last", "--html", str(page))).code == 0
    assert "given by bob" in page.read_text()
    told = (await asyncio.to_thread(shell, "runs", "tail", "last")).out
    assert "lines: given by bob" in told
    unknown = await asyncio.to_thread(shell, "runs", "fork", run, "--set", "line=x")
    assert (unknown.code, "did you mean 'lines'?" in unknown.err) == (2, True)
    bad = await asyncio.to_thread(shell, "runs", "fork", run, "--set", "lines=x")
    assert "C012: lines outputs list[str]" in bad.err
    assert [event["type"] for event in events][-1] == "run_finished"


def test_terminal_line_reports_an_unknown_call_result() -> None:
    gives = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
    asked = QuestionAsked(
        seq=1,
        at=0.0,
        node="paid",
        question="Again?",
        schema={},
        question_digest="s",
        options=("again", "fail"),
        kind="effect",
        result_schema=gives,
    )
    assert questions.parse_terminal_line("r", asked, '/gave {"number": 7}\n') == ({"number": 7}, True)
    assert questions.parse_terminal_line("r", asked, "1\n") == ("again", False)
    with pytest.raises(InputError) as caught:
        questions.parse_terminal_line("r", asked, "/gave\n")
    assert caught.value.code == "C024"
    older = msgspec.structs.replace(asked, result_schema=None)
    assert questions.call_result_command("r", older) is None
    # which is not one of its options
    assert questions.parse_terminal_line("r", older, "/gave 7\n") == ("/gave 7", False)


async def test_override_records_its_author(shop: Path, shell: Shell) -> None:
    run = await ended(shop, "tea")
    said = await asyncio.to_thread(shell, "runs", "fork", run, "--by", "bob")
    assert said.code == 2
    assert "C010: --by is the author of --set" in said.err
    twice = await asyncio.to_thread(shell, "runs", "fork", run, "--set", "letter=a", "--set", "letter=b")
    assert "C010: --set gives letter twice" in twice.err


async def test_override_replaces_an_unrepeatable_payment(shop: Path, shell: Shell) -> None:
    run = await ended(shop, "tea")
    refused = await asyncio.to_thread(shell, "runs", "fork", run, "-i", 'topics=["cake"]', "--set", "allowed=yes")
    assert "orchestra runs fork RUN --set paid=VALUE" in refused.out + refused.err
    receipt = '{"number": 3, "item": "cake"}'
    more = ("--set", "allowed=yes", "--set", f"paid={receipt}", "--set", "sure=yes")
    said = await asyncio.to_thread(shell, "runs", "fork", run, "-i", 'topics=["cake"]', *more)
    assert said.code == 0, said.err
    assert "about cake; cake 3" in said.out
    assert (shop / "paid.txt").read_text() == "tea\n"


async def test_author_is_recorded_for_all_manual_commands(shop: Path) -> None:
    async with opened(shop) as orchestra:
        run = await orchestra.start(orchestra.find("order"), topics=["tea"])
        assert await run.wait_until_blocked() is None
    async with opened(shop) as orchestra:
        eve = orchestra.options(by="eve")
        await eve.answer(run.id, "yes")
        going = await eve.resume(run.id)
        await going.wait_until_blocked()
        await eve.answer(run.id, "no", by="ada")
        await going
        fork = (await eve.options(values={"letter": "x"}).fork(run.id)).run
        await fork.wait_until_blocked()
        await eve.cancel(fork.id)
        events = [*await orchestra.journal.read(run.id), *await orchestra.journal.read(fork.id)]
    found = [event for event in events if isinstance(event, QuestionAnswered | RunResumed | CancelRequested)]
    said = [(event.by, type(event).__name__) for event in found if event.by != "a message"]  # which resumed the run
    assert said == [
        ("eve", "RunResumed"),
        ("eve", "QuestionAnswered"),
        ("ada", "QuestionAnswered"),
        ("eve", "CancelRequested"),
    ]


async def test_set_accepts_one_object_and_reads_stdin_once(shop: Path, shell: Shell) -> None:
    run = await ended(shop, "tea")
    (shop / "values.json").write_text('{"lines": ["a"], "letter": "b"}')
    said = await asyncio.to_thread(shell, "runs", "fork", run, "--set", "@values.json", "--set", "sure=-", stdin="yes")
    assert (said.code, said.out.count("the value is given")) == (0, 3), said.err
    piped = await asyncio.to_thread(shell, "runs", "fork", run, "--set", "-", stdin='{"letter": "c", "sure": "no"}')
    assert (piped.code, "\nc\n" in piped.out) == (0, True), piped.err
    twice = await asyncio.to_thread(shell, "runs", "fork", run, "-i", "topics=-", "--set", "letter=@-", stdin='["x"]')
    assert "C010: -i topics=- has already read stdin; --set letter=@- cannot read it again" in twice.err
    unknown = await asyncio.to_thread(shell, "runs", "fork", run, "--set", "-", stdin='{"line": "c"}')
    assert (unknown.code, "did you mean 'lines'?" in unknown.err) == (2, True)


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("@none.json", None),
        ("@none.txt", "null\n"),
        ("null", "null"),
        ("@@ada", "@ada"),
        ("-", "piped"),
        ("@-", "piped"),
    ],
)
def test_answer_is_parsed_like_inputs_and_may_be_null_in_a_file(shell: Shell, typed: str, value: str | None) -> None:
    (shell.project / "workflows").mkdir()
    (shell.project / "workflows" / "note.yaml").write_text(NOTE)
    for name in ("none.json", "none.txt"):
        (shell.project / name).write_text("null\n")
    assert shell("run", "note").code == 5
    assert shell("runs", "answer", "last", typed, "--json", stdin="piped").json["output"] == {"it": value}
    again = shell("runs", "fork", "last", "--set", "-", "--json", stdin='{"note": null}').json
    assert again["given"]["note"]["value"] is None


async def asked_twice(shop: Path, shell: Shell) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A run whose process was killed at the first and at the second payment, and the question after each."""
    run = await doubtful(shop)
    await asyncio.to_thread(shell, "runs", "resume", run)
    (first,) = [
        one
        for one in (await asyncio.to_thread(shell, "runs", "show", run, "--json")).json["asked"]
        if one["node"] == "paid"
    ]
    (shop / "die").touch()
    command = (
        sys.executable,
        "-m",
        "orchestra.cli",
        "runs",
        "answer",
        run,
        "again",
        "--to",
        first["to"],
        "--by",
        "ann",
    )
    assert (
        await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False, timeout=60)
    ).returncode == 9
    (shop / "die").unlink()
    await asyncio.to_thread(shell, "runs", "resume", run)
    (second,) = [
        one
        for one in (await asyncio.to_thread(shell, "runs", "show", run, "--json")).json["asked"]
        if one["node"] == "paid"
    ]
    assert (first["question"], first["shown"]) == (second["question"], second["shown"])
    return run, first, second


async def test_old_answer_command_does_not_answer_a_repeated_question(shop: Path, shell: Shell) -> None:
    run, first, second = await asked_twice(shop, shell)
    for told in (("--to", first["to"]), ("--node", "paid")):
        said = await asyncio.to_thread(shell, "runs", "answer", run, "again", *told)
        assert (said.code, said.err[:5]) == (2, "E037:")
    assert (shop / "paid.txt").read_text() == "tea\ntea\n"
    assert (await asyncio.to_thread(shell, "runs", "answer", run, "again", "--to", second["to"], "--later")).code == 0


async def test_old_question_in_python_does_not_answer_a_repeated_one(shop: Path, shell: Shell) -> None:
    run, first, _ = await asked_twice(shop, shell)
    async with opened(shop) as orchestra:
        one, two = (
            event
            for event in await orchestra.journal.read(run)
            if isinstance(event, QuestionAsked) and event.node == "paid"
        )
        assert one.question_digest == first["shown"]
        for told in (
            {"question_digest": one.question_digest},
            {"question_digest": one.question_digest, "question_seq": one.seq},
            {"question_seq": one.seq},
        ):
            with pytest.raises(InputError) as caught:
                await orchestra.answer(run, "again", node="paid", by="bob", **told)
            assert caught.value.code == "E037"
        # Posted before the question was asked again, it does not answer that one either.
        late = InboxMessage(
            kind="answer",
            node="paid",
            value="again",
            question_digest=one.question_digest,
            question_seq=one.seq,
            by="bob",
        )
        await orchestra.journal.send(run, late)
        receipt = {"number": 7, "item": "tea"}
        await orchestra.answer(
            run, receipt, node="paid", question_digest=two.question_digest, question_seq=two.seq, call_happened=True
        )
        going = await orchestra.resume(run)
        assert await going.wait_until_blocked() is None
        reasons = [
            event.reason for event in await orchestra.journal.read(run) if isinstance(event, InboxMessageRejected)
        ]
        assert reasons == ["it was asked again since it was shown"]
    assert (shop / "paid.txt").read_text() == "tea\ntea\n"
