"""`orchestra learn data --runs` and `--teacher`: rows from runs and from teachers; on simulated workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.protocols import CallError, CallRequest
from orchestra.learn.data.dataset import Dataset, DatasetRow
from tests.cli.shell import Said, Shell
from tests.cli.stage import AGENT, ASK, BAD, FLEET, GOOD, TEXT, Simulated, furnish

pytestmark = pytest.mark.slow

LICENSED = ("--licence", "own", "--tune", "0", "--test", "0")
ESCALATED = ASK.replace("name: ask", "name: larger").replace("[retry, abstain]", "[escalate]")
PERSON = """\
schema: orchestra/v1
name: person
input: {question: str, text: str}
output: ${chosen}
types:
  Reading:
    type: object
    properties: {answer: {type: [string, "null"]}, quote: {type: [string, "null"]}}
    required: [answer, quote]
nodes:
  reading:
    agent: answerer
    with: {question: "${input.question}", context: "${input.text}"}
    checks: [quote]
    against: ${input.text}
    otherwise: [abstain]
  typed: {ask: "${input.question}", returns: Reading}
  chosen: {first_of: ["${reading}", "${typed}"]}
"""
REVIEW = """{ask: "Right? ${reading.answer != null ? reading.answer : 'none'}\""""
CORRECTED = PERSON.replace("name: person", "name: corrected").replace('{ask: "${input.question}"', REVIEW)
EACH = """\
schema: orchestra/v1
name: each
input: {questions: "list[str]", text: str}
output: "${readings.values}"
nodes:
  readings:
    each: ${input.questions}
    as: question
    call:
      output: ${one}
      nodes:
        one: {agent: answerer, with: {question: "${question}", context: "${input.text}"}}
"""


def answer(call: CallRequest) -> Any:
    """The agent is wrong about questions that begin with `hard`; its larger model and the teacher are not; `impossible`
    is never answered.
    """
    question = call.inputs["question"]
    if question == "broken" and call.name == "answerer":
        return CallError(code="M001", reason="no JSON", retryable=False)
    wrong = question.startswith("hard") and call.name == "answerer" and not call.is_escalated
    return BAD if wrong or question == "impossible" else GOOD


@pytest.fixture
def shell(shell: Shell) -> Shell:
    furnish()
    agent("critic", AGENT.replace("answerer", "critic"))
    for name, text in (("larger", ESCALATED), ("person", PERSON), ("corrected", CORRECTED), ("each", EACH)):
        Path(f"workflows/{name}.yaml").write_text(text)
    Path("configs/nowhere.yaml").write_text(FLEET.replace("{base: it}", "{base: it, big: it}"))
    shell.opener = Simulated(answer)
    return shell


def agent(name: str, text: str) -> None:
    Path(f"agents/{name}").mkdir(exist_ok=True)
    Path(f"agents/{name}/agent.yaml").write_text(text)
    Path(f"agents/{name}/prompt.md").write_text("{{ context }}\n\n{{ question }}\n")


def ran(shell: Shell, *questions: str, workflow: str = "ask") -> list[str]:
    return [
        str(shell("run", workflow, "-i", f"question={question}", "-i", f"text={TEXT}", "--json").json["run"])
        for question in questions
    ]


def collected(shell: Shell, *more: str, agent: str = "answerer") -> Said:
    return shell("learn", "data", agent, "--out", "set", *LICENSED, *more)


def rows() -> dict[str, DatasetRow]:
    """The collected outputs by question."""
    return {str(row.input["question"]): row for row in Dataset.load(Path("set")).rows["train"]}


def left_out() -> dict[str, int]:
    return {reason: count for reason, count in Dataset.load(Path("set")).manifest.left_out.items() if count}


def test_runs_accepted_answers_become_rows(shell: Shell) -> None:
    runs = ran(shell, "easy 1", "easy 2", "Easy 2!", "hard 1")
    said = collected(shell, "--runs")
    assert said.code == 0, said.err
    found = rows()
    assert [row.output for row in found.values()] == [GOOD, GOOD]
    assert found["easy 1"].id == f"{runs[0]}/reading"
    assert found["easy 1"].input == {"question": "easy 1", "context": TEXT}
    assert left_out() == {"the same in another spelling": 1, "without an accepted answer": 1}
    own, failed = Dataset.load(Path("set")).manifest.sources
    assert (own.name, own.rows, sorted(own.runs), own.label) == ("journal.db", 3, sorted(runs[:3]), "internal")
    assert own.description == "answers of its own, 3 accepted by checks and 0 not judged by a check; in 3 of 4 runs"
    assert failed.runs == (runs[3],)
    assert f"  3 {own.description}\n" in said.out


def test_runs_dataset_is_deterministic(shell: Shell) -> None:
    ran(shell, "easy 1", "easy 2")
    one, two = collected(shell, "--runs").out, collected(shell, "--runs").out
    assert one == two
    assert (one.splitlines()[0]).startswith("set: set ")


def test_runs_replacement_answers_for_withheld(shell: Shell) -> None:
    ran(shell, "hard 1", workflow="larger")
    for run in ran(shell, "hard 2", "easy 2", workflow="person"):
        assert shell("runs", "answer", run, json.dumps({"answer": "in 1889", "quote": "in 1889"})).code == 0
    assert collected(shell, "--runs").code == 0
    assert {question: row.output["answer"] for question, row in rows().items()} == {
        "hard 1": "1889",
        "hard 2": "in 1889",
        "easy 2": "1889",
    }
    made = [source.description.partition(";")[0] for source in Dataset.load(Path("set")).manifest.sources]
    assert made == [
        "answers of a person in its place",
        "answers of the larger model in its place",
        "answers of its own, 1 accepted by checks and 0 not judged by a check",
    ]


def test_runs_person_correction_overrides_agent(shell: Shell) -> None:
    [run] = ran(shell, "easy 1", workflow="corrected")
    ran(shell, "easy 1")
    assert shell("runs", "answer", run, '{"answer": "1889 AD", "quote": null}').code == 0
    assert collected(shell, "--runs").code == 0
    assert rows()["easy 1"].output == {"answer": "1889 AD", "quote": None}
    assert left_out() == {"equal inputs with another output": 1}


def test_runs_map_elements_are_rows(shell: Shell) -> None:
    said = shell("run", "each", "-i", 'questions=["a", "b"]', "-i", f"text={TEXT}")
    assert said.code == 0, said.err
    assert collected(shell, "--runs").code == 0
    assert {row.id.partition("/")[2] for row in rows().values()} == {"readings[0]/one", "readings[1]/one"}
    assert (
        "0 accepted by checks and 2 not judged by a check" in Dataset.load(Path("set")).manifest.sources[0].description
    )


def test_runs_fallback_is_no_answer(shell: Shell) -> None:
    Path("workflows/fallen.yaml").write_text(
        ASK.replace("name: ask", "name: fallen") + '    fallback: {answer: "never", quote: null}\n'
    )
    ran(shell, "easy 1", "broken", workflow="fallen")
    assert collected(shell, "--runs").code == 0
    assert list(rows()) == ["easy 1"]
    assert left_out() == {"without an accepted answer": 1}


def test_runs_filter_by_workflow_and_age(shell: Shell) -> None:
    ran(shell, "easy 1")
    ran(shell, "easy 2", workflow="larger")
    assert collected(shell, "--runs", "--workflow", "larger", "--since", "1h").code == 0
    assert list(rows()) == ["easy 2"]
    assert collected(shell, "--runs", "--workflow", "larger", "--since", "0h").err.startswith("N006")
    assert collected(shell, "--runs", "--since", "lately").err.startswith("C010")
    assert "--since 12h" in collected(shell, "--runs", "--since", "lately").err


def test_runs_stricter_label_left_out(shell: Shell) -> None:
    ran(shell, "easy 1")
    agent("answerer", f"{AGENT}label: public\n")
    said = collected(shell, "--runs")
    assert said.code == 2
    assert said.err.startswith("N008")
    assert "1 with a stricter label than public" in said.err


def test_runs_other_types_left_out(shell: Shell) -> None:
    ran(shell, "easy 1")
    agent("answerer", AGENT.replace("question: str", "question: str, language: str"))
    assert "1 of other types than the agent has now" in collected(shell, "--runs").err


def test_runs_of_evaluation_left_out(shell: Shell) -> None:
    ran(shell, "easy 1")
    Path("test.jsonl").write_text(
        json.dumps({"id": "1", "input": {"question": "secret", "context": TEXT}, "expected": GOOD}) + "\n"
    )
    assert shell("learn", "evaluate", "answerer", "--data", "test.jsonl").code == 0
    said = collected(shell, "--runs")
    assert list(rows()) == ["easy 1"]
    assert "skipped 1 run of an evaluation" in said.err


def test_runs_unreadable_run_counted(shell: Shell) -> None:
    ran(shell, "easy 1", "easy 2")
    import sqlite3

    with sqlite3.connect(".orchestra/journal.db") as file:
        file.execute("UPDATE events SET body = replace(body, 'easy 2', 'easy 3') WHERE seq = 1")
    assert "skipped 1 run that cannot be read any more" in collected(shell, "--runs").err
    assert list(rows()) == ["easy 1"]


@pytest.mark.parametrize("group", ["question", ""])
def test_runs_group_by_input_or_evidence(shell: Shell, group: str) -> None:
    ran(shell, "easy 1", "easy 2")
    assert collected(shell, "--runs", "--group", group).code == 0
    assert len({row.group for row in rows().values()}) == (2 if group else 1)
    assert collected(shell, "--runs", "--group", "run").err.startswith("N011")


def test_runs_computed_fields_left_out(shell: Shell) -> None:
    """For the agent's own answers and for a teacher's, with and without the fields."""
    card = "name: NAME\ninput: {question: str}\noutput: {sum: str, is: float | null}\ncomputed: {is: {value: sum}}\n"
    for name, text in (
        ("calculator", card),
        ("same", card),
        ("bare", card.replace(", is: float | null", "").partition("computed")[0]),
    ):
        Path(f"agents/{name}").mkdir()
        Path(f"agents/{name}/agent.yaml").write_text(text.replace("NAME", name))
        Path(f"agents/{name}/prompt.md").write_text("{{ question }}\n")

    def count(call: CallRequest) -> Any:
        if call.inputs["question"] == "hard" and call.name == "calculator":
            return CallError(code="M001", reason="no sum")
        return {"sum": "1 + 1"} if call.name == "bare" else {"sum": "1 + 1", "is": 2.0}

    shell.opener = Simulated(count)
    for question in ("easy", "hard"):
        shell("run", "calculator", "-i", f"question={question}")
    for teacher in ("same", "bare", "base"):
        said = collected(shell, "--runs", "--teacher", teacher, "--replace", agent="calculator")
        assert said.code == 0, said.err
        assert [row.output for row in rows().values()] == [{"sum": "1 + 1"}] * 2


def test_a_journal_without_runs_and_an_agent_that_never_ran_are_told(shell: Shell) -> None:
    assert collected(shell, "--runs").err.startswith("N006: nothing is recorded yet")
    ran(shell, "easy 1")
    said = collected(shell, "--runs", agent="critic")
    assert said.err.startswith("N007: 1 workflow ran, and none called 'critic': ask")
    assert said.code == 2
    assert not Path("set").exists()


def test_runs_no_accepted_answer_has_hint(shell: Shell) -> None:
    ran(shell, "hard 1", "hard 2")
    said = collected(shell, "--runs")
    assert said.err.startswith("N008: no answer of answerer can be used: 2 without an accepted answer")
    assert "--teacher" in said.err


def test_data_without_files_or_runs_refused(shell: Shell) -> None:
    assert collected(shell).err.startswith("N015")
    assert collected(shell, "rows.csv", "--since", "1d").err.startswith("N015")


@pytest.mark.parametrize("teacher", ["critic", "big"])
def test_teacher_answers_failed_inputs(shell: Shell, teacher: str) -> None:
    ran(shell, "hard 1", "easy 1", "impossible", "hard 1", "hard 2")
    ran(shell, "hard 2", workflow="larger")
    agent("answerer", f"{AGENT}checks: [quote]\n")
    said = collected(shell, "--runs", "--teacher", teacher)
    assert said.code == 0, said.err
    assert {question: row.output for question, row in rows().items()} == dict.fromkeys(
        ("hard 2", "hard 1", "easy 1"), GOOD
    )
    assert "was called for 2 inputs: 1 accepted, 1 (50.0%) not" in said.out
    source = Dataset.load(Path("set")).manifest.sources[-1]
    assert (source.name, source.rows) == (teacher, 1)
    assert source.digest
    assert source.description.startswith(
        "answers of the agent critic" if teacher == "critic" else "answers of the model big with the prompt of"
    )
    assert left_out() == {
        "the same": 1,
        "withheld or failed, and answered elsewhere": 1,
        "the teacher's answer was withheld": 1,
    }
    assert isinstance(shell.opener, Simulated)
    assert shell.opener.workers is not None
    asked = {(call.name, call.inputs["question"]) for call in shell.opener.workers.calls}
    assert {question for _, question in asked} == {"hard 1", "impossible"}
    assert {name for name, _ in asked} == {"critic_teaching" if teacher == "critic" else "answerer_teaching"}


def test_teacher_answers_inputs_of_files(shell: Shell) -> None:
    Path("inputs.csv").write_text(f"question,text\nhard 1,{TEXT}\nHARD 1,{TEXT}\neasy 1,{TEXT}\n")
    said = collected(shell, "inputs.csv", "--teacher", "critic", "--column", "context=text")
    assert said.code == 0, said.err
    assert {question: row.output for question, row in rows().items()} == {"hard 1": GOOD, "easy 1": GOOD}
    assert left_out() == {"the same": 1}
    assert [source.name for source in Dataset.load(Path("set")).manifest.sources] == ["inputs.csv", "critic"]
    assert "the agent critic was called for 2 inputs: 2 accepted, 0 (0.0%) not" in said.out


def test_teacher_unknown_or_other_contract_refused_first(shell: Shell) -> None:
    agent("other", AGENT.replace("answerer", "other").replace("quote: Quote | null", "quote: str"))
    said = collected(shell, "nowhere.csv", "--teacher", "other")
    assert said.err.startswith("N009: other has other output than answerer")
    said = collected(shell, "nowhere.csv", "--teacher", "crític")
    assert said.err.startswith("N013")
    assert "did you mean 'critic'?" in said.err


def test_teacher_without_accepted_answer_writes_nothing(shell: Shell) -> None:
    Path("inputs.csv").write_text(f"question,context\nimpossible,{TEXT}\n")
    agent("answerer", f"{AGENT}checks: [quote]\n")
    assert collected(shell, "inputs.csv", "--teacher", "critic").err.startswith(
        "N014: critic answered 1 inputs, and none was accepted"
    )
    assert not Path("set").exists()


def test_teacher_unreachable_fails_after_one_call(shell: Shell) -> None:
    Path("inputs.csv").write_text("question,context\n" + "".join(f"q{n},{TEXT}\n" for n in range(20)))
    shell.opener = Simulated(lambda call: CallError(code="F203", reason="no server listens there", hint="is it on?"))
    said = collected(shell, "inputs.csv", "--teacher", "big")
    assert said.code == 1
    assert said.err.startswith("F203: the teacher big cannot be called: no server listens there")
    assert shell.opener.workers is not None
    assert len(shell.opener.workers.calls) == 1
    assert not Path("set").exists()


def test_teacher_without_clearance_not_called(shell: Shell) -> None:
    """The fleet file has the clearance of an endpoint; rows of files are internal, like the inputs of a run."""
    Path("inputs.csv").write_text(f"question,context\neasy,{TEXT}\n")
    shell.opener = None
    assert collected(shell, "inputs.csv", "--teacher", "big").err.startswith("F202: the teacher big cannot be called")
