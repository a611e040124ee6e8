"""`orchestra certify --claims --watch`: sampling and judging answers with dropped parts; withheld answers count as
right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.errors import SourceLocation
from orchestra.core.protocols import CallRequest
from orchestra.verification.certificates.audits import AuditLog, OutputAudited, OutputsSampled
from orchestra.verification.certificates.certify import format_percent
from orchestra.verification.certificates.claims_file import ClaimsCertificate
from tests.cli.processes import Terminal
from tests.cli.shell import Said, Shell
from tests.cli.stage import Simulated
from tests.cli.test_certify_claims import FILE, TELL, certify, rows, score, shell

__all__ = ["shell"]
LOG = Path("agents/teller/audits.jsonl")
WATCH = ("certify", "teller", "--claims", "--watch")
RUNS = 24
TWICE = """\
schema: orchestra/v1
name: twice
input: {text: str}
output: ${again.values}
nodes:
  again:
    call: tell
    each: '${[input.text, input.text + "11"]}'
    as: text
    with: {text: "${text}"}
  plain: {agent: teller, with: {text: "${input.text}"}, checks: ["entailment(checker)"], otherwise: [abstain]}
"""
PLANNED = """\
schema: orchestra/v1
name: planned
label: public
input: {text: str}
output: ${p}
nodes:
  p: {plan: "Tell it.", with: {text: "${input.text}"}, workflows: [tell], returns: "list[str]"}
"""


def withheld(number: int) -> bool:
    return number % 4 == 3


def answer(call: CallRequest) -> Any:
    if call.name == "checker":
        return {"p_supported": score(call.inputs["claim"]), "p_refute": 0.0}
    number = int(call.inputs["text"])
    return {"facts": [f"fact {400 if withheld(number) else 990} of {number}", f"fact 300 of {number}"]}


@pytest.fixture
def ran(shell: Shell) -> Shell:
    """A shell with the answers of a run; every fourth answer is withheld as a whole."""
    rows(200, scored=True)
    assert certify(shell).code == 0
    shell.opener = Simulated(answer)
    Path("texts.jsonl").write_text(
        "".join(json.dumps({"id": f"{n}", "input": {"text": f"{n}"}}) + "\n" for n in range(RUNS))
    )
    assert shell("batch", "tell", "--input", "texts.jsonl", "--output", "told.jsonl").code in (0, 3)
    return shell


def drawn(shell: Shell, count: int, *more: str) -> list[dict[str, Any]]:
    said = shell(*WATCH, "--audit", str(count), *more)
    assert said.code == 0, said.err
    return [json.loads(line) for line in said.out.splitlines()]


def labelled(shell: Shell, found: list[dict[str, Any]], verdict: str, *more: str) -> Said:
    Path("verdicts.jsonl").write_text("".join(json.dumps({**line, "verdict": verdict}) + "\n" for line in found))
    return shell(*WATCH, "--labels", "verdicts.jsonl", *more)


def written() -> list[Any]:
    return list(AuditLog.from_bytes(LOG.read_bytes(), SourceLocation("", 1)).entries)


def test_a_draw_is_of_all_answers_and_shows_what_was_kept_of_them(ran: Shell) -> None:
    said = ran(*WATCH, "--audit", str(RUNS))
    found = [json.loads(line) for line in said.out.splitlines()]
    assert len(found) == sum(not withheld(n) for n in range(RUNS))
    for line in found:
        assert line["output"] == {"facts": [f"fact 990 of {line['input']['text']}"]}
        assert (line["dropped"], line["node"]) == (1, "told")
    assert f"{RUNS} judged answers in {RUNS} runs to sample from" in said.err
    assert f"of {RUNS // 4} drawn answers nothing was kept" in said.err
    (draw,) = (line for line in written() if isinstance(line, OutputsSampled))
    assert sum(bool(output.withheld) for output in draw.outputs) == RUNS // 4


def test_verdicts_count_in_sampling_order_and_withheld_answers_as_right(ran: Shell) -> None:
    found = drawn(ran, RUNS)
    said = labelled(ran, found, "right", "--by", "ada")
    assert said.code == 0
    assert f"audited   0 of {RUNS} wrong" in said.out
    audits = [line for line in written() if isinstance(line, OutputAudited)]
    assert [line.alpha for line in audits] == [0.2] * RUNS
    (draw,) = (line for line in written() if isinstance(line, OutputsSampled))
    assert [line.run for line in audits] == [output.run for output in draw.outputs]
    assert [line.by for line in audits] == ["" if output.withheld else "ada" for output in draw.outputs]


def test_withheld_answers_behind_one_that_is_open_wait_for_it(ran: Shell) -> None:
    found = drawn(ran, RUNS)
    (draw,) = (line for line in written() if isinstance(line, OutputsSampled))
    last = next(at for at, output in enumerate(draw.outputs) if output.run == found[2]["run"])
    labelled(ran, found[:3], "right")
    audits = [line for line in written() if isinstance(line, OutputAudited)]
    assert [line.run for line in audits] == [output.run for output in draw.outputs[: last + 1]]


def test_a_broken_guarantee_is_voided_and_the_node_refuses(ran: Shell) -> None:
    said = labelled(ran, drawn(ran, RUNS), "wrong")
    assert said.code == 3
    assert "The certificate is void: of audited answers 18 of 24 wrong" in said.out
    bound = ClaimsCertificate.from_bytes(FILE.read_bytes()).drift.tested_rate
    assert f"and 20 % was guaranteed, no more than {format_percent(bound)} of this threshold" in " ".join(
        said.out.split()
    )
    assert 0.2 < bound < 0.3
    refused = ran("run", "tell", "-i", "text=1")
    assert (refused.code, "V002" in refused.err, "18 of 24 wrong" in refused.err) == (2, True, True)
    assert ClaimsCertificate.from_bytes(FILE.read_bytes()).void_reason
    assert ran(*WATCH).code == 3
    listed = ran("certify", "--watch")
    assert (listed.code, "teller, claims" in listed.out) == (3, True)


def test_nothing_is_broken_by_as_many_as_guaranteed(ran: Shell) -> None:
    found = drawn(ran, RUNS)
    assert labelled(ran, found[:4], "wrong").code == 0
    assert labelled(ran, found[4:], "right", "--json").json["wrong"] == 4


def test_only_nodes_that_keep_parts_by_it_count_wherever_they_stand(ran: Shell) -> None:
    Path("workflows/twice.yaml").write_text(TWICE)
    LOG.unlink(missing_ok=True)
    since = ran("run", "twice", "-i", f"text={RUNS + 3}", "--json")
    assert since.code in (0, 3), since.err
    said = ran(*WATCH, "--audit", "100")
    mine = [
        output
        for line in written()
        if isinstance(line, OutputsSampled)
        for output in line.outputs
        if output.run == since.json["run"]
    ]
    assert {(output.node, output.withheld) for output in mine} == {("again[0]/told", True), ("again[1]/told", True)}
    assert f"{RUNS + 2} judged answers in {RUNS + 1} runs" in said.err


def test_those_of_a_workflow_that_a_plan_called_count_too(ran: Shell) -> None:
    Path("workflows/tell.yaml").write_text(
        TELL.replace("name: tell\n", "name: tell\ndescription: Tells.\n").replace("${told}", "${told.facts}")
    )
    Path("workflows/planned.yaml").write_text(PLANNED)
    lines = iter(["s1 = tell(text=input.text)", "return s1"])
    ran.opener = Simulated(lambda call: next(lines, "nothing more") if call.name == "router" else answer(call))
    since = ran("run", "planned", "-i", f"text={RUNS + 3}", "--json")
    assert since.json["status"] == "failed", "what a step withholds is planned around, and there is no other plan"
    assert ran(*WATCH, "--audit", "100").code == 0
    mine = [
        output
        for line in written()
        if isinstance(line, OutputsSampled)
        for output in line.outputs
        if output.run == since.json["run"]
    ]
    assert [(output.node, output.withheld) for output in mine] == [("p@1/s1/told", True)]


def test_what_was_expected_tells_nothing_of_parts(ran: Shell) -> None:
    line = drawn(ran, 4)[0]
    Path("verdicts.jsonl").write_text(
        json.dumps({"run": line["run"], "node": line["node"], "expected": {"facts": []}}) + "\n"
    )
    said = ran(*WATCH, "--labels", "verdicts.jsonl")
    assert (said.code, "V021" in said.err, "no metric decides" in said.err) == (2, True, True)


def test_the_certificate_of_whole_answers_is_another_watch(ran: Shell) -> None:
    assert "there is no certificate for 'teller'" in ran("certify", "teller", "--watch").err
    FILE.unlink()
    said = ran(*WATCH)
    assert "L119: there is no certificate of 'teller' about claims" in said.err
    assert "orchestra certify teller --claims --data FILE" in said.err


def test_it_is_asked_at_the_terminal(ran: Shell) -> None:
    with Terminal(*WATCH, "--audit", "8") as terminal:
        shown = terminal.until("all of it right? [y]es")
        assert "fact 990" in shown
        assert "1 part of it dropped" in shown
        terminal.press("y\n")
        terminal.until("all of it right?")
        terminal.press("q\n")
        code, shown = terminal.ended()
    assert (code, "sampled and still open" in shown) == (0, True)
