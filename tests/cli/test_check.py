"""`orchestra check`: verdicts, evidence and exit codes; a fleet is opened only for checks that call agents."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestra.cli.files import read_documents
from orchestra.core.protocols import CallRequest
from tests.cli.shell import Shell
from tests.cli.stage import Simulated

TEXT = "The tower was finished in 1889, with 18,038 pieces.\n"


@pytest.fixture(autouse=True)
def tower(shell: Shell) -> None:
    Path("tower.txt").write_text(TEXT)


def test_words_of_the_evidence_are_accepted_with_their_place(shell: Shell) -> None:
    said = shell("check", "FINISHED  in 1889", "--against", "tower.txt")
    assert said.code == 0
    assert said.out == "accepted, score 1.00\n\nquote: pass 1.00\n  “finished in 1889”  tower.txt [14:30]\n"


def test_other_words_are_not(shell: Shell) -> None:
    said = shell("check", "finished in 1890", "--against", "tower.txt")
    assert said.code == 3
    assert said.out.startswith(
        "not accepted, score 0.00\n\nquote: fail 0.00  'finished in 1890' does not occur in the evidence"
    )


def test_numbers_of_a_sentence_in_its_own_words_are_looked_up(shell: Shell) -> None:
    assert shell("check", "It has 18038 pieces", "--against", "tower.txt", "--checks", "numbers").code == 0
    said = shell("check", "It has 18038 pieces, since 1890", "--against", "tower.txt", "--checks", "numbers")
    assert said.code == 3
    assert "1890 in the answer is not in the evidence" in said.out


def test_a_record_has_its_quotes_found_and_its_sum_computed_again(shell: Shell) -> None:
    good = {"answer": 36076, "expression": "18038 * 2", "quote": "18,038 pieces"}
    options = ("--against", "tower.txt", "--checks", "quote,numbers,recompute", "--json")
    found = shell("check", json.dumps(good), *options).json
    assert found["accepted"] is True
    assert [one["check"] for one in found["verdicts"]] == ["quote", "numbers", "recompute"]
    for span in found["evidence"]:
        assert TEXT[span["start"] : span["end"]] == span["quote"]
    wrong = shell("check", json.dumps({**good, "answer": 36077}), *options)
    assert wrong.code == 3
    assert wrong.json["accepted"] is False


def test_answer_and_evidence_may_be_files_of_text_of_json_and_folders(shell: Shell) -> None:
    Path("answer.txt").write_text("in 1889\n")
    Path("answer.json").write_text('{"quote": "in 1889"}')
    Path("evidence.json").write_text('[{"source": "a", "text": "It opened in 1889."}]')
    Path("texts").mkdir()
    Path("texts/b.md").write_text("It opened in 1889.")
    for answer in ("@answer.txt", "@answer.json"):
        for against in ("evidence.json", "texts"):
            assert shell("check", answer, "--against", against).code == 0
    assert "b.md [10:17]" in shell(
        "check", "@answer.txt", "--against", "evidence.json", "--against", "texts"
    ).out.replace("a [", "b.md [")


def test_the_score_that_must_be_reached_is_the_callers(shell: Shell) -> None:
    answer = json.dumps({"answer": "finished early in 1889", "quote": "The tower was finished in 1889"})
    options = ("--against", "tower.txt", "--checks", "support")
    assert shell("check", answer, *options, "--accept", "0.5").code == 0
    assert shell("check", answer, *options, "--accept", "1").code == 3


def test_words_in_brackets_are_a_text(shell: Shell) -> None:
    Path("note.txt").write_text("He said [in 1889] that it stands.")
    assert shell("check", "[in 1889]", "--against", "note.txt").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("x", "--against", "tower.txt", "--checks", "qoute"), "C037", "did you mean 'quote'?"),
        (("x", "--against", "tower.txt", "--checks", "confidence"), "C037", "available checks: schema, quote"),
        (
            ("x", "--against", "tower.txt", "--checks", "quote | agree(3)"),
            "C037",
            "the check 'agree' cannot check an answer alone",
        ),
        (("x", "--against", "tower.txt", "--checks", "quote |"), "V010", "'quote |' is not a check"),
        (("x", "--against", "tower.txt", "--checks", "entailment(nobody)"), "V011", "does not exist"),
        (("x", "--against", "tower.txt", "--checks", ","), "C037", "no check is given"),
        (("x", "--against", "nowhere.txt"), "C014", "nowhere.txt"),
        (("@broken.json", "--against", "tower.txt"), "C038", "broken.json is not JSON"),
        (("x", "--against", "broken.json"), "C038", "broken.json is not JSON"),
    ],
)
def test_bad_usage_is_told(shell: Shell, arguments: tuple[str, ...], code: str, says: str) -> None:
    Path("broken.json").write_text('{"a": 1, "a": 2}')
    shell.opener = Simulated(lambda call: None)
    said = shell("check", *arguments)
    assert (said.code, said.err[:4]) == (2, code)
    assert says in said.err


def test_evidence_that_a_terminal_would_obey_is_spelled_out(shell: Shell) -> None:
    Path("bad.txt").write_text("in \x1b[31m1889\u202e")
    said = shell("check", "in \x1b[31m1889\u202e", "--against", "bad.txt")
    assert said.code == 0
    assert not {"\x1b", "\u202e"} & set(said.out)


def judging(shell: Shell, label: str, chance: float) -> list[CallRequest]:
    """Every agent answers this; returns the requests."""
    asked: list[CallRequest] = []

    def answer(call: CallRequest) -> Any:
        asked.append(call)
        return (
            {"label": label, "p_supported": chance, "p_support": chance, "p_refute": 0.0}
            if call.name == "entailment"
            else {"answer": "1889"}
        )

    shell.opener = Simulated(answer)
    return asked


@pytest.mark.parametrize(("label", "chance", "code"), [("supported", 0.9, 0), ("not stated", 0.1, 3)])
def test_checks_may_be_put_together_and_ask_agents(shell: Shell, label: str, chance: float, code: int) -> None:
    asked = judging(shell, label, chance)
    said = shell(
        "check",
        "It was ready in 1889.",
        "--against",
        "tower.txt",
        "--checks",
        "numbers & (quote | entailment)",
        "--json",
    )
    assert (said.code, said.json["accepted"], said.json["score"]) == (code, code == 0, chance if code == 0 else 0.0)
    (question,) = asked
    assert (question.name, question.inputs["claim"], question.inputs["evidence"]) == (
        "entailment",
        "It was ready in 1889.",
        TEXT.strip(),
    )


def test_what_it_was_made_from_is_for_whoever_derives_it_again(shell: Shell) -> None:
    asked = judging(shell, "", 0.0)
    options = (
        "--against",
        "tower.txt",
        "--checks",
        "rederive(reader)",
        "-i",
        "question=When?",
        "-i",
        "context=In 1889.",
    )
    assert shell("check", "1889", *options).code == 0
    assert shell("check", "1890", *options).code == 3
    assert [call.inputs for call in asked] == [{"question": "When?", "context": "In 1889."}] * 2


def test_where_no_check_asks_an_agent_nothing_is_opened(shell: Shell) -> None:
    asked = judging(shell, "", 0.0)
    assert shell("check", "in 1889", "--against", "tower.txt", "--checks", "quote | numbers").code == 0
    assert asked == []


def test_nothing_is_recorded(shell: Shell) -> None:
    shell("check", "in 1889", "--against", "tower.txt")
    assert not Path(".orchestra").exists()


def test_parts_that_the_evidence_does_not_bear_out_are_taken_out(shell: Shell) -> None:
    def judge(call: CallRequest) -> Any:
        supported = 0.1 if "wood" in call.inputs["claim"] else 0.8
        return {"label": "supported", "p_supported": supported, "p_support": None, "p_refute": 0.0}

    shell.opener = Simulated(judge)
    options = ("--against", "tower.txt", "--back-off", "--checks")
    answer = "It was ready in 1889. It is of wood."
    said = shell("check", answer, *options, "entailment")
    assert said.code == 0
    assert "dropped: It is of wood.: the evidence does not state 'It is of wood.'" in said.out
    assert said.out.endswith("\nIt was ready in 1889.\n")
    told = shell("check", answer, *options, "entailment", "--json").json
    assert (told["rest"], [one["text"] for one in told["dropped"]]) == ("It was ready in 1889.", ["It is of wood."])
    refused = shell("check", answer, *options, "quote | entailment")
    assert (refused.code, "C037" in refused.err) == (2, True)


def test_evidence_out_of_a_pipe_has_the_name_of_the_pipe() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        pipe.write(TEXT)
    assert read_documents(Path(f"/dev/fd/{reading}")) == [{"source": f"/dev/fd/{reading}", "text": TEXT}]
    os.close(reading)
