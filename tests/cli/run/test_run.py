"""`orchestra run`: answers, exit codes and output; bad input starts nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestra.core.events import Usage
from orchestra.core.protocols import CallError, CallRequest, CallResult
from orchestra.testing import answer_sequence
from tests.cli.shell import Said, Shell
from tests.cli.stage import BAD, GOOD, TEXT, Simulated, furnish

ROOT = Path(__file__).parents[3]
INPUTS = ("-i", "question=When?", "-i", f"text={TEXT}")


@pytest.fixture
def answering(shell: Shell) -> Shell:
    furnish()
    shell.opener = Simulated({"answerer": GOOD})
    return shell


def refusing(code: str, **more: object) -> Simulated:
    return Simulated(lambda _: CallError(code=code, reason="it did not work", hint="mend it", **more))  # type: ignore[arg-type]


def ask(shell: Shell, *more: str) -> Said:
    return shell("run", "ask", *INPUTS, *more)


def test_run_prints_answer_evidence_cost_and_next_command(answering: Shell) -> None:
    said = ask(answering)
    assert (said.code, said.err) == (0, "")
    answer, evidence, node, more = (
        said.out.index(text) for text in ('"answer": "1889"', "“in 1889”", "reading  answerer", "orchestra runs show")
    )
    assert answer < evidence < node < more
    assert "[14:21]" in said.out


def test_what_it_cost_stands_there_where_its_server_has_a_price(shell: Shell) -> None:
    furnish()
    usage = Usage(prompt_tokens=100, output_tokens=20, calls=1, money=0.08)
    shell.opener = Simulated(lambda _: CallResult(value=GOOD, usage=usage, server="it", model="m"))
    out = ask(shell).out + shell("runs", "show", "last", "--explain").out
    assert "20 tokens written, 120 tokens read and written, 0.080000 of money" in out
    assert " for 0.080000 of money" in out
    assert "0.080000" in next(line for line in out.splitlines() if line.startswith("reading  answerer"))


def test_a_result_is_one_json_object(answering: Shell) -> None:
    found = ask(answering, "--json").json
    assert (found["status"], found["output"], found["error"]) == ("done", GOOD, None)
    (evidence,) = found["evidence"]
    assert TEXT[evidence["start"] : evidence["end"]] == evidence["quote"] == "in 1889"
    assert set(found["ledger"]) == {"reading"}


def test_the_run_can_be_looked_at_afterwards(answering: Shell) -> None:
    run = ask(answering, "--json").json["run"]
    assert answering("runs", "list", "--json").json[0]["run"] == run
    assert "ask: done in" in answering("runs", "show", run).out


def test_events_are_streamed_as_lines_of_json(answering: Shell) -> None:
    lines = [json.loads(line) for line in ask(answering, "--stream").out.splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert (lines[0]["type"], lines[-1]["type"], lines[-1]["status"]) == ("run_started", "run_finished", "done")


def test_a_file_is_run_by_its_path_and_an_agent_by_its_name(answering: Shell) -> None:
    assert answering("run", "workflows/ask.yaml", *INPUTS, "--json").json["output"] == GOOD
    agent = ("-i", "question=When?", "-i", f"context={TEXT}", "--json")
    assert answering("run", "answerer", *agent).json["output"] == GOOD


def test_the_default_of_a_card_is_literal_where_its_agent_runs_by_itself(answering: Shell) -> None:
    card = Path("agents/answerer/agent.yaml")
    card.write_text(card.read_text().replace("question: str", 'question: {type: str, default: "costs ${x}, $${y}"}'))
    said = answering("run", "answerer", "-i", f"context={TEXT}")
    assert said.code == 0, said.err
    assert isinstance(answering.opener, Simulated)
    assert answering.opener.workers is not None
    assert answering.opener.workers.calls[0].inputs["question"] == "costs ${x}, $${y}"


def test_inputs_come_from_stdin(answering: Shell) -> None:
    said = answering("run", "ask", "-i", "-", "--json", stdin=json.dumps({"question": "When?", "text": TEXT}))
    assert said.json["output"] == GOOD


def test_model_text_is_escaped_on_the_screen_and_exact_in_json(shell: Shell) -> None:
    furnish()
    shell.opener = Simulated({"answerer": {"answer": "\x1b[31mred\u202e", "quote": "in 1889"}})
    out = ask(shell).out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert ask(shell, "--json").json["output"]["answer"] == "\x1b[31mred\u202e"


def test_an_output_that_its_checks_refuse_is_withheld_with_three(shell: Shell) -> None:
    furnish()
    shell.opener = opener = Simulated({"answerer": BAD})
    said = ask(shell)
    assert said.code == 3
    assert said.out.startswith("withheld: reading: quote: ")
    assert opener.workers is not None
    assert opener.workers.counts["answerer"] == 2
    assert ask(shell, "--json").json["error"]["code"] == "E010"


def test_a_retry_that_helps_is_done(shell: Shell) -> None:
    furnish()
    shell.opener = Simulated({"answerer": answer_sequence(BAD, GOOD)})
    assert (ask(shell).code, ask(shell, "--json").json["output"]) == (0, GOOD)


def test_a_failed_run_is_one_and_says_what_to_type(shell: Shell) -> None:
    furnish()
    shell.opener = refusing("F005")
    said = ask(shell)
    assert said.code == 1
    assert "it did not work" in said.out
    assert ask(shell, "--json").json["error"] == {
        "code": "F005",
        "message": "reading: it did not work",
        "hint": "mend it",
    }


def test_a_run_over_its_budget_is_four(shell: Shell) -> None:
    furnish()
    shell.opener = Simulated({"answerer": answer_sequence(BAD, GOOD)})
    said = ask(shell, "--budget", "tokens=1", "--json")
    assert (said.code, said.json["status"]) == (4, "budget")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("run", "aks", *INPUTS), "did you mean 'ask'?"),
        (("run", "ask", "-i", "question=x"), "needs the input 'text'"),
        (("run", "ask", *INPUTS, "-i", "txt=x"), "did you mean 'text'?"),
        (("run", "ask", *INPUTS, "-i", "nonsense"), "C010"),
        (("run", "ask", *INPUTS, "--budget", "token=3"), "C008"),
        (("run", "ask", *INPUTS, "--fleet", "nowere", "--dry-run"), "did you mean 'nowhere'?"),
        (("run", "workflows/absent.yaml", *INPUTS), "absent.yaml"),
    ],
)
def test_bad_input_is_two_and_nothing_starts(answering: Shell, arguments: tuple[str, ...], code: str) -> None:
    said = answering(*arguments)
    assert said.code == 2
    assert code in said.err
    opener = answering.opener
    assert isinstance(opener, Simulated)
    assert opener.workers is None or opener.workers.calls == []


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("run", "hello", "question=x"), "an input is written -i KEY=VALUE: orchestra run hello -i question=x"),
        (
            ("run", "hello", "a=1 b", "-i", "a=1 b", "--json"),
            "an input is written -i KEY=VALUE: orchestra run hello -i 'a=1 b' -i 'a=1 b' --json",
        ),
        (("ask", "Why?", "--", "text=-x"), "an input is written -i KEY=VALUE: orchestra ask 'Why?' -i text=-x"),
        (("run", "hello", "x"), "an input is written -i KEY=VALUE"),
    ],
)
def test_run_input_without_option_has_hint(answering: Shell, arguments: tuple[str, ...], hint: str) -> None:
    done = answering(*arguments)
    assert done.code == 2
    assert f"C010: unexpected argument {arguments[3 if '--' in arguments else 2]!r}" in done.err
    assert f"help: {hint}\n" in done.err


def test_a_faulty_workflow_is_shown_with_its_place(answering: Shell) -> None:
    Path("workflows/ask.yaml").write_text(
        Path("workflows/ask.yaml").read_text().replace("agent: answerer", "agent: anserer")
    )
    said = ask(answering)
    assert said.code == 2
    assert "workflows/ask.yaml:7:12" in said.err
    assert "did you mean 'answerer'?" in said.err


def test_a_dry_run_opens_nothing_and_says_what_it_would_take_at_most(answering: Shell) -> None:
    found = ask(answering, "--dry-run", "--json").json
    most = {"node": "reading", "asks": "answerer", "calls": 2, "output_tokens": 512, "tokens": 2000}
    assert [{key: node[key] for key in most} for node in found["nodes"]] == [most]
    assert {key: found[key] for key in ("calls", "output_tokens", "tokens")} == {
        "calls": 2,
        "output_tokens": 512,
        "tokens": 2000,
    }
    out = ask(answering, "--dry-run", "--budget", "tokens=700").out
    assert "nothing was started" in out
    assert "bounded by the budget of 700" in out
    opener = answering.opener
    assert isinstance(opener, Simulated)
    assert opener.opened == []
    assert not Path(".orchestra").exists()


def test_a_dry_run_refuses_wrong_inputs(answering: Shell) -> None:
    assert answering("run", "ask", "-i", "question=x", "--dry-run").code == 2


def test_a_run_under_a_key_happens_once(answering: Shell) -> None:
    first, second = (ask(answering, "--key", "order-42", "--json").json for _ in range(2))
    assert first["run"] == second["run"]
    assert len(answering("runs", "list", "--json").json) == 1
    assert answering("run", "ask", "-i", "question=other", "-i", f"text={TEXT}", "--key", "order-42").code == 2


SLOW = """
import asyncio, sys
from orchestra.cli.main import build_app
from tests.cli.stage import Simulated

async def forever(call):
    print("called", flush=True, file=sys.stderr)
    await asyncio.sleep(3600)

build_app(Simulated(forever))(prog_name="orchestra")
"""


def test_an_interrupted_run_is_130_and_journaled_as_cancelled(answering: Shell) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, "run", "ask", *INPUTS], stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "called\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)  # the call takes an hour
    assert (process.returncode, err) == (130, "interrupted\n")
    assert answering("runs", "list", "--json").json[0]["status"] == "cancelled"


def test_what_a_call_was_asked_is_what_the_inputs_say(answering: Shell) -> None:
    ask(answering)
    opener = answering.opener
    assert isinstance(opener, Simulated)
    assert opener.workers is not None
    call: CallRequest = opener.workers.calls[0]
    assert call.inputs == {"question": "When?", "context": TEXT}
