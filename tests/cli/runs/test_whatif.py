"""`orchestra whatif`: replays call only what changed, and repeat no effects."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestra.app.orchestra import Orchestra
from orchestra.app.whatif import WhatifResult
from orchestra.core.events import Usage
from orchestra.core.protocols import CallError, CallRequest, CallResult
from orchestra.core.settings import Settings
from orchestra.testing import SimulatedWorkers, answer_sequence
from tests.cli.shell import Said, Shell
from tests.cli.stage import ASK, BAD, GOOD, TEXT, Simulated, calls, furnish

pytestmark = pytest.mark.slow

SEND = """\
schema: orchestra/v1
name: send
input: {question: str, text: str}
output: {sent: "${sent}", reading: "${reading}"}
nodes:
  plain: {agent: critic, with: {question: "${input.question}", context: "${input.text}"}}
  reading: {agent: answerer, with: {question: "${plain.answer}", context: "${input.text}"}}
  sent: {tool: mail, with: {text: "${reading.answer}"}}
  logged: {tool: log, with: {text: "always the same"}}
"""
DECIDE = """\
schema: orchestra/v1
name: decide
input: {question: str, text: str}
output: {reading: "${reading}", sure: "${sure}", again: "${again}"}
nodes:
  reading: {agent: answerer, with: {question: "${input.question}", context: "${input.text}"}}
  sure: {ask: "Is ${input.question} a question?", options: ["yes", "no"]}
  again: {agent: critic, with: {question: "${sure}", context: "${input.text}"}}
"""
TOOLS = """\
from orchestra import tool

SENT = []


@tool(effect="once")
def mail(text: str) -> str:
    SENT.append(text)
    return f"sent {text}"


@tool(effect="transactional")
def log(text: str) -> str:
    return text
"""
FRUGAL = """\
schema: orchestra/v1
name: frugal
input: {question: str, text: str}
output: {reading: "${reading}", more: "${more}"}
budget: {tokens: 15}
nodes:
  reading: {agent: answerer, with: {question: "${input.question}", context: "${input.text}"}}
  more:
    agent: critic
    with: {question: "${reading.answer}", context: "${input.text}"}
    fallback: ${reading}
"""
TWICE = """\
schema: orchestra/v1
name: twice
input: {question: str, text: str}
output: {one: "${one}", other: "${other}"}
nodes:
  one: {agent: critic, with: {question: "${input.question}", context: "${input.text}"}}
  other: {agent: critic, with: {question: "${input.question}", context: "${input.text}"}, after: [one]}
"""
OTHER = {"answer": "of 1889", "quote": "in 1889"}


def cost(value: Any, tokens: int = 10) -> Callable[[CallRequest], CallResult]:
    return lambda call: CallResult(
        value=value, usage=Usage(tokens, 0, tokens // 2, 1, 0.5, money=tokens / 100), confidence=0.9
    )


def acting(call: CallRequest) -> CallResult:
    return CallResult(value=f"sent {call.inputs['text']}" if call.name == "mail" else call.inputs["text"])


@pytest.fixture
def shell(shell: Shell) -> Shell:
    furnish()
    card = Path("agents/answerer/agent.yaml")
    card.write_text(card.read_text().replace(" | null", ""))
    for name in ("critic", "answerer_v2"):
        folder = Path("agents") / name
        folder.mkdir()
        (folder / "agent.yaml").write_text(Path("agents/answerer/agent.yaml").read_text().replace("answerer", name))
        (folder / "prompt.md").write_text(Path("agents/answerer/prompt.md").read_text())
    Path("workflows/send.yaml").write_text(SEND)
    Path("workflows/decide.yaml").write_text(DECIDE)
    Path("acting.py").write_text(TOOLS)
    Path("orchestra.toml").write_text('fleet = "nowhere"\nmodules = ["acting"]\n')
    answering(shell)
    return shell


def answering(shell: Shell, **script: Any) -> None:
    """The answers of the workers from now on."""
    said = {"answerer": cost(GOOD), "critic": cost(GOOD), "answerer_v2": cost(OTHER, 30), "mail": acting, "log": acting}
    shell.opener = Simulated({**said, **script})


def ran(shell: Shell, workflow: str = "ask", question: str = "When?") -> str:
    said = shell("run", workflow, "-i", f"question={question}", "-i", f"text={TEXT}", "--json")
    assert said.code in (0, 3, 5), said.err
    run: str = said.json["run"]
    return run


def whatif(shell: Shell, *arguments: str) -> Said:
    return shell("whatif", *arguments, "--json")


def test_the_same_agent_is_asked_anew_and_what_comes_of_it_is_the_same(shell: Shell) -> None:
    run = ran(shell)
    said = whatif(shell, run, "--agent", "answerer")
    assert said.code == 0, said.err
    assert calls(shell) == ["answerer"]
    assert said.json["verdicts"] == {"same": 1}
    assert (said.json["recalled"], said.json["anew"], said.json["runs"][0]["changed"]) == (0, 1, [])


def test_whatif_refuses_a_run_of_an_evaluation(shell: Shell) -> None:
    async def evaluated() -> str:
        assert shell.opener is not None
        async with shell.opener(Settings.load(), fleet="start") as orchestra:
            runs = orchestra.options(purpose="evaluation")
            return (await runs.run(orchestra.find("ask"), question="When?", text=TEXT)).run

    run = asyncio.run(evaluated())
    said = whatif(shell, run)
    assert said.code == 2
    assert f"C042: run {run} belongs to an evaluation" in said.err


def test_nothing_changed_today_asks_nobody(shell: Shell) -> None:
    run = ran(shell, "send")
    said = whatif(shell, run)
    assert said.code == 0, said.err
    assert calls(shell) == []
    assert (said.json["recalled"], said.json["anew"]) == (4, 0)


def test_an_edited_prompt_is_asked_anew_and_nothing_else(shell: Shell) -> None:
    run = ran(shell, "send")
    Path("agents/critic/prompt.md").write_text("{{ context }} {{ question }}\n")
    assert whatif(shell, run).code == 0
    assert calls(shell) == ["critic"]
    assert whatif(shell, run, "--agent", "critic").code == 0
    assert calls(shell) == ["critic"]


def test_another_agent_takes_its_place_with_its_cost(shell: Shell) -> None:
    run = ran(shell)
    said = whatif(shell, run, "--agent", "answerer@answerer_v2")
    assert said.code == 1
    assert calls(shell) == ["answerer_v2"]
    (one,) = said.json["runs"]
    assert one["verdict"] == "changed"
    assert [change["node"] for change in one["changed"]] == ["reading"]
    assert one["before"]["usage"]["prompt_tokens"] == 10
    assert one["after"]["usage"] == {"prompt_tokens": 30, "output_tokens": 15, "calls": 1, "seconds": 0.5, "money": 0.3}
    assert said.json["spent"]["prompt_tokens"] == 30


def test_a_recalled_call_counts_with_what_it_cost_then(shell: Shell) -> None:
    run = ran(shell, "send")
    (one,) = whatif(shell, run, "--agent", "critic").json["runs"]
    assert one["before"]["usage"]["prompt_tokens"] == one["after"]["usage"]["prompt_tokens"] == 20
    assert one["spent"]["prompt_tokens"] == 10


def test_an_answer_that_is_not_accepted_any_more_is_withheld(shell: Shell) -> None:
    run = ran(shell)
    answering(shell, answerer=cost(BAD))
    said = whatif(shell, run, "--agent", "answerer")
    assert said.code == 1
    (one,) = said.json["runs"]
    assert one["verdict"] == "withheld"
    assert (one["before"]["accepted"], one["after"]["accepted"], one["after"]["judged"]) == (1, 0, 1)


def test_an_answer_that_was_withheld_is_there_now(shell: Shell) -> None:
    answering(shell, answerer=cost(BAD))
    run = ran(shell)
    answering(shell)
    assert whatif(shell, run, "--agent", "answerer").json["verdicts"] == {"answered": 1}


def test_a_tool_with_effects_is_recalled_where_its_inputs_are_the_same(shell: Shell) -> None:
    run = ran(shell, "send")
    answering(shell, critic=cost({"answer": "1889", "quote": "opened in 1889"}))
    said = whatif(shell, run, "--agent", "critic")
    assert said.code == 0, said.out
    assert calls(shell) == ["critic"]


def test_a_tool_with_effects_is_never_called_and_the_run_stops_there(shell: Shell) -> None:
    run = ran(shell, "send")
    said = whatif(shell, run, "--agent", "answerer@answerer_v2")
    assert said.code == 1
    assert calls(shell) == ["answerer_v2"]
    (one,) = said.json["runs"]
    assert one["verdict"] == "stopped"
    assert one["stops"] == [{"node": "sent", "name": "mail", "inputs": {"text": "of 1889"}}]
    assert [change["node"] for change in one["changed"]] == ["reading"]
    text = shell("whatif", run, "--agent", "answerer@answerer_v2").out
    assert f"{run} stops at sent: mail has effects, and its inputs differ" in text
    assert "0 runs completed" in text


def test_a_fallback_does_not_hide_a_stop(shell: Shell) -> None:
    Path("workflows/send.yaml").write_text(
        SEND.replace('"${reading.answer}"}}', '"${reading.answer}"}, fallback: "not sent"}')
    )
    run = ran(shell, "send")
    assert whatif(shell, run, "--agent", "answerer@answerer_v2").json["verdicts"] == {"stopped": 1}


@pytest.mark.parametrize("effect", ["idempotent", "keyed", "transactional", "once"])
def test_no_effect_of_any_kind_happens(shell: Shell, effect: str) -> None:
    Path("acting.py").write_text(TOOLS.replace('effect="once"', f'effect="{effect}"'))
    run = ran(shell, "send")
    whatif(shell, run, "--agent", "answerer@answerer_v2", "--agent", "critic@answerer_v2")
    assert set(calls(shell)) == {"answerer_v2"}


def test_nothing_reaches_the_journal(shell: Shell) -> None:
    run = ran(shell, "send")
    before = shell("runs", "list", "--json").out
    exported = shell("runs", "export", run).out
    whatif(shell, run, "--agent", "answerer@answerer_v2")
    assert shell("runs", "list", "--json").out == before
    assert shell("runs", "export", run).out == exported


def test_no_message_goes_into_the_outbox(shell: Shell) -> None:
    async def messages() -> int:
        async with Orchestra.open(Settings.load({}), workers=SimulatedWorkers({})) as orchestra:
            return len(await orchestra.journal.outbox())

    run = ran(shell, "send")
    assert whatif(shell, run).code == 0
    assert asyncio.run(messages()) == 1


def decided(shell: Shell) -> str:
    run = ran(shell, "decide")
    assert shell("runs", "answer", run, "yes", "--by", "ada").code == 0
    return run


def test_a_person_is_not_asked_twice(shell: Shell) -> None:
    run = decided(shell)
    said = whatif(shell, run, "--agent", "answerer@answerer_v2")
    assert said.json["verdicts"] == {"changed": 1}
    assert (calls(shell), said.json["recalled"]) == (["answerer_v2"], 1)


def test_a_person_is_not_asked_anything_else(shell: Shell) -> None:
    run = decided(shell)
    Path("workflows/decide.yaml").write_text(DECIDE.replace("a question?", "a good one?"))
    said = whatif(shell, run)
    assert said.json["runs"][0]["stops"] == [{"node": "sure", "name": "a person", "inputs": "Is When? a good one?"}]
    assert "a person would be asked a new question" in shell("whatif", run).out


def test_a_prompt_a_folder_and_a_model_are_variants(shell: Shell) -> None:
    run = ran(shell)
    Path("short.md").write_text("{{ question }} {{ context }}\n")
    shutil.copytree("agents/answerer", "candidate")
    Path("candidate/prompt.md").write_text("{{ context }}: {{ question }}\n")
    versions: set[str] = set()
    for other in ("short.md", "candidate", "model:large"):
        said = whatif(shell, run, "--agent", f"answerer@{other}")
        assert said.code == 0, said.err
        assert calls(shell) == ["answerer"], other
        assert isinstance(shell.opener, Simulated)
        assert shell.opener.workers is not None
        versions.add(shell.opener.workers.calls[0].version)
    assert len(versions) == 3


def test_an_adapter_of_the_same_name_is_told_apart(shell: Shell) -> None:
    card = Path("agents/answerer/agent.yaml")
    card.write_text(card.read_text() + "adapter: adapter\n")
    for folder in ("agents/answerer/adapter", "new/adapter"):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "adapter_config.json").write_text("{}")
    run = ran(shell)
    answering(shell, answerer_other=cost(OTHER))
    said = whatif(shell, run, "--agent", "answerer@new/adapter")
    assert said.json["verdicts"] == {"changed": 1}, said.err
    assert calls(shell) == ["answerer_other"]


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ("answerer@answerer_v3", "C041"),
        ("answerer@agents", "C041"),
        ("nobody", "A001"),
        ("answerer@", ""),
        ("answerer@broken.md", "A006"),
        ("answerer@empty.md", "A005"),
        ("answerer@other_types", "L"),
    ],
)
def test_a_variant_that_is_none(shell: Shell, other: str, code: str) -> None:
    run = ran(shell)
    Path("broken.md").write_text("{{ nothing }}\n")
    Path("empty.md").write_text("")
    shutil.copytree("agents/answerer", "other_types")
    card = Path("other_types/agent.yaml")
    card.write_text(card.read_text().replace("question: str", "question: int"))
    said = whatif(shell, run, "--agent", other)
    assert said.code == (2 if code else 0), said.out
    assert code in said.err


def test_two_variants_of_one_agent(shell: Shell) -> None:
    assert (
        "two variants of 'answerer'"
        in whatif(shell, ran(shell), "--agent", "answerer", "--agent", "answerer@critic").err
    )


@pytest.mark.parametrize("budget", ["tokens=15", "calls=1"])
@pytest.mark.parametrize("written", [True, False])
def test_a_budget_that_was_spent_is_spent_again_though_a_fallback_hid_that(
    shell: Shell, budget: str, written: bool
) -> None:
    name, _, limit = budget.partition("=")
    told = (
        FRUGAL.replace("{tokens: 15}", f"{{{name}: {limit}}}")
        if written
        else FRUGAL.replace("budget: {tokens: 15}\n", "")
    )
    Path("workflows/frugal.yaml").write_text(told)
    given = () if written else ("--budget", budget)
    answering(shell, critic=cost(OTHER))
    run = shell("run", "frugal", "-i", "question=When?", "-i", f"text={TEXT}", *given, "--json")
    assert (calls(shell), run.json["output"]["more"]) == (["answerer"], GOOD), run.err
    nothing = whatif(shell, "last")
    assert (nothing.code, calls(shell)) == (0, [])
    assert nothing.json["runs"][0]["changed"] == []
    again = whatif(shell, "last", "--agent", "answerer")
    assert (again.code, calls(shell)) == (0, ["answerer"]), "as much is spent as then"


def test_who_is_asked_instead_spends_of_the_same_budget(shell: Shell) -> None:
    Path("workflows/frugal.yaml").write_text(FRUGAL.replace("tokens: 15", "tokens: 40"))
    answering(shell, critic=cost(GOOD))
    ran(shell, "frugal")
    assert calls(shell) == ["answerer", "critic"]
    said = whatif(shell, "last", "--agent", "answerer@answerer_v2")
    (found,) = said.json["runs"]
    assert [change["node"] for change in found["changed"]] == ["reading", "more"]
    assert found["after"]["outcome"]["value"]["more"] == OTHER, "45 of 40 tokens are spent before it"
    assert calls(shell) == ["answerer_v2"]


def test_whatif_recalls_both_answers_of_a_repeated_call(shell: Shell) -> None:
    Path("workflows/twice.yaml").write_text(TWICE)
    answering(shell, critic=lambda call: (cost(GOOD) if call.node == "one" else cost(OTHER, 30))(call))
    run = ran(shell, "twice")
    found = whatif(shell, run)
    assert (found.code, calls(shell)) == (0, [])
    (one,) = found.json["runs"]
    assert (one["recalled"], one["after"]["usage"]) == (2, one["before"]["usage"])


def test_that_time_decided_something_is_told(shell: Shell) -> None:
    answering(shell, critic=CallError(code="E006", reason="no answer within 1 s", retryable=False))
    Path("workflows/frugal.yaml").write_text(FRUGAL.replace("tokens: 15", "tokens: 4000"))
    run = ran(shell, "frugal")
    assert whatif(shell, run).json["runs"][0]["late"] == ["more"]
    assert f"{run}: the deadline had passed at more" in shell("whatif", run).out
    assert "the deadline had passed at more" in shell("whatif", run, "--markdown").out
    assert whatif(shell, ran(shell)).json["runs"][0]["late"] == []


def test_the_latest_runs_that_asked_the_agent(shell: Shell) -> None:
    runs = [ran(shell, question=f"{at}?") for at in range(3)]
    ran(shell, "decide")  # waits: it has not ended
    send = ran(shell, "send")
    assert [one["run"] for one in whatif(shell, "--last", "2", "--agent", "answerer").json["runs"]] == [send, runs[2]]
    said = whatif(shell, "--last", "9", "--workflow", "ask", "--agent", "answerer").json
    assert [one["run"] for one in said["runs"]] == runs[::-1]
    assert [one["run"] for one in whatif(shell, "--last", "9", "--agent", "critic").json["runs"]] == [send]


def test_bad_choices_of_runs(shell: Shell) -> None:
    run = ran(shell)
    for arguments in (
        (),
        (run, "--last", "3"),
        ("--last", "3", "--workflow", "nothing"),
        ("--last", "3", "--since", "noon"),
        ("zzz",),
    ):
        assert whatif(shell, *arguments).code == 2, arguments
    for option, code in ((("--workflow", "ask"), "C042"), (("--since", "12h"), "C042"), (("--markdown",), "C010")):
        assert whatif(shell, run, *option).err.startswith(code), option
    assert "E025" in whatif(shell, ran(shell, "decide")).err


def test_a_run_that_cannot_be_gone_through_does_not_hide_the_others(shell: Shell) -> None:
    waits, run = ran(shell, "decide"), ran(shell)
    said = whatif(shell, waits, run, "--agent", "answerer")
    assert said.code == 1
    assert [one["run"] for one in said.json["lost"]] == [waits]
    assert said.json["verdicts"] == {"same": 1}
    assert "cannot be replayed" in shell("whatif", waits, run).out


def test_an_error_on_record_is_an_error_again_without_waiting(shell: Shell) -> None:
    down = CallError(code="F204", reason="down", retryable=True)
    answering(shell, critic=answer_sequence(down, cost(GOOD)), answerer=down)
    Path("workflows/send.yaml").write_text(
        SEND.replace(
            'context: "${input.text}"}}\n  reading',
            'context: "${input.text}"}, retry: {attempts: 2, wait: [0, 0]}}\n  reading',
        )
    )
    said = shell("run", "send", "-i", "question=When?", "-i", f"text={TEXT}", "--json")
    assert said.code == 1, said.out
    answering(shell)
    again = whatif(shell, said.json["run"])
    assert again.code == 0, again.out
    assert calls(shell) == []


def test_it_is_told_as_text(shell: Shell) -> None:
    run = ran(shell)
    said = shell("whatif", run, "--agent", "answerer@answerer_v2")
    assert said.code == 1
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    for line in (
        "answerer_v2 instead of answerer: 1 another",
        f"{run} ask another reading",
        f"reading of run {run}",
        'then { "answer": "1889", "quote": "in 1889" }',
        'now { "answer": "of 1889", "quote": "in 1889" }',
        "answers 1 1",
        "accepted 1 of 1 1 of 1",
        "tokens in 10 30",
        "money 0.100000 0.300000",
        "0 calls recalled, 1 made: 30 tokens in, 15 out, 0.50 s",
    ):
        assert line in lines, said.out


def test_it_is_told_as_markdown_in_which_nothing_a_model_wrote_is_obeyed(shell: Shell) -> None:
    run = ran(shell)
    nasty = {"answer": "```\n</details>@everyone | <img src=x> [x](http://x)\x1b[2J", "quote": "in 1889"}
    answering(shell, answerer_v2=cost(nasty))
    said = shell("whatif", run, "--agent", "answerer@answerer_v2", "--markdown")
    assert said.code == 1
    assert said.out.startswith("### What if: `answerer_v2 instead of answerer`\n")
    assert "| answers | 1 | 1 |" in said.out
    assert "\x1b" not in said.out
    lines = said.out.splitlines()
    start = next(at for at, line in enumerate(lines) if line.endswith("diff"))
    assert lines[start] == "````diff"
    assert lines[start + 3] == "````"
    assert lines[start + 1].startswith("- {")
    assert lines[start + 2].startswith("+ {")
    assert all("@everyone" not in line for at, line in enumerate(lines) if at != start + 2)


def test_in_python(shell: Shell) -> None:
    async def rehearsed() -> WhatifResult:
        async with Orchestra.open(
            Settings.load({}), workers=SimulatedWorkers({"answerer_v2": cost(OTHER)})
        ) as orchestra:
            return await orchestra.whatif(run, {"answerer": orchestra.registry.card("answerer_v2")})

    run = ran(shell)
    found = asyncio.run(rehearsed())
    assert (found.verdict, found.new_calls, [change.node for change in found.differences]) == (
        "changed",
        1,
        ["reading"],
    )


def test_the_json_is_one_line(shell: Shell) -> None:
    said = whatif(shell, ran(shell), "--agent", "answerer")
    assert json.loads(said.out)["agents"] == [{"agent": "answerer", "instead": "answerer in its current version"}]


def test_a_checked_list_is_told_by_its_elements(shell: Shell) -> None:
    listed = ASK.replace("reading:\n", "reading:\n    each: \"${['a', 'b']}\"\n    as: one\n").replace(
        "${input.question}", "${one}"
    )
    listed = listed.replace("output: ${reading}", "output: ${reading.values}")
    Path("workflows/ask.yaml").write_text(listed)
    run = ran(shell)
    answering(shell, answerer=lambda call: cost(OTHER if call.inputs["question"] == "b" else GOOD)(call))
    (one,) = whatif(shell, run, "--agent", "answerer").json["runs"]
    assert [change["node"] for change in one["changed"]] == ["reading[1]"]
