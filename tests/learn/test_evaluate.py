"""`orchestra learn evaluate`: all arms in one table, requirements, JUnit; on simulated workers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from orchestra.agents.card import Card
from orchestra.core.errors import InputError
from orchestra.core.protocols import CallError, CallRequest, CallResult
from orchestra.learn.certification.labelled_answers import Predictions, correctness_of
from orchestra.learn.evaluation.config import RowSelection
from orchestra.learn.evaluation.metrics import Case
from orchestra.learn.evaluation.rows import EvaluationRow, as_record, metrics_for, read_selected_rows
from tests.cli.shell import Said, Shell
from tests.cli.stage import AGENT, TEXT, Simulated, furnish
from tests.learn.promotion.test_promotion import adapter
from tests.verification.samples import certified

MEASURED = """\
schema: orchestra/evaluation/v1
metrics:
  EM: {of: exact, field: answer, expected: answers}
  no-answer accuracy: {of: silence, field: answer, expected: answers}
"""


def answer(call: CallRequest) -> Any:
    """The candidate answers everything, the agent half of it, its base nothing; `broken` fails."""
    question = call.inputs["question"]
    if question == "broken":
        return CallError(code="M001", reason="not JSON")
    knows = call.name == "answerer_candidate" or (call.name == "answerer" and question.endswith("0"))
    return {"answer": "1889" if knows else "in", "quote": "in 1889"}


def rows(count: int, **more: Any) -> None:
    lines = [
        {"id": f"r{n}", "input": {"question": f"q{n % 2}", "context": TEXT}, "expected": {"answers": ["1889"]}}
        for n in range(count)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps({**line, **more}) + "\n" for line in lines))


@pytest.fixture
def shell(shell: Shell) -> Shell:
    furnish()
    Path("agents/answerer/agent.yaml").write_text(AGENT + "adapter: adapter\n")
    Path("agents/answerer/evaluation.yaml").write_text(MEASURED)
    shell.opener = Simulated(answer)
    return shell


def evaluate(shell: Shell, *more: str) -> Said:
    return shell("learn", "evaluate", "answerer", "--data", "rows.jsonl", *more)


def ensemble() -> None:
    """An ensemble of the agent and another one."""
    both = AGENT.replace("name: answerer", "name: both\nkind: ensemble\nmembers: [answerer, other]")
    for name, text in (("both", both), ("other", AGENT.replace("name: answerer", "name: other"))):
        Path(f"agents/{name}").mkdir()
        Path(f"agents/{name}/agent.yaml").write_text(text)
        Path(f"agents/{name}/evaluation.yaml").write_text(MEASURED)
        Path(f"agents/{name}/prompt.md").write_text(Path("agents/answerer/prompt.md").read_text())


def test_evaluate_ensemble_shows_members(shell: Shell) -> None:
    rows(8)
    ensemble()
    known = {"both": "1889", "other": "1889"}
    shell.opener = Simulated(lambda call: {"answer": known.get(call.name, "in"), "quote": "in 1889"})
    said = shell("learn", "evaluate", "both", "--data", "rows.jsonl", "--json")
    assert said.code == 0, said.err
    arms = {arm["arm"]: arm["metrics"]["EM"]["value"] for arm in said.json["arms"]}
    assert arms == {"answerer": 0.0, "other": 1.0, "as it is": 1.0}


@pytest.mark.parametrize(
    "command",
    [
        ("learn", "train", "both", "--data", "rows.jsonl"),
        ("learn", "promote", "both", "new/adapter", "--data", "rows.jsonl"),
        ("learn", "rollback", "both"),
        ("learn", "evaluate", "both", "--data", "rows.jsonl", "--candidate", "new/adapter"),
    ],
)
def test_train_ensemble_refused(shell: Shell, command: tuple[str, ...]) -> None:
    rows(2)
    ensemble()
    said = shell(*command)
    assert said.code == 2
    assert "N105: both is an ensemble and cannot be trained: its members are answerer, other" in said.err


def test_evaluate_shows_all_arms(shell: Shell) -> None:
    rows(8)
    adapter(Path("new/adapter"), "new")
    said = evaluate(shell, "--candidate", "new/adapter", "--json")
    assert said.code == 0, said.err
    arms = {arm["arm"]: arm["metrics"]["EM"]["value"] for arm in said.json["arms"]}
    assert arms == {"its untuned base": 0.0, "as it is": 0.5, "the candidate": 1.0}
    assert said.json["arms"][1]["metrics"]["no-answer accuracy"] is None


def test_evaluate_untuned_base_with_fewer_rows(shell: Shell) -> None:
    rows(8)
    file = Path("agents/answerer/evaluation.yaml")
    file.write_text(file.read_text() + "rows: {file: it/rows.jsonl, untuned: 3}\n")
    assert [(arm["arm"], arm["rows"]) for arm in evaluate(shell, "--json").json["arms"]] == [
        ("its untuned base", 3),
        ("as it is", 8),
    ]
    assert "| its untuned base, 3 rows | 0.000" in evaluate(shell).out


def test_evaluate_baselines_from_training_rows(shell: Shell) -> None:
    rows(4)
    shown = {"id": "t", "input": {"question": "q1", "context": TEXT}, "output": {"answer": "1889", "quote": "in 1889"}}
    Path("train.jsonl").write_text(json.dumps(shown) + "\n")
    said = evaluate(shell, "--train", "train.jsonl", "--no-untuned")
    assert said.code == 0, said.err
    assert "| floor: the most frequent output | 1.000 [0.398, 1.000] | - | 1.000 | - |" in said.out
    assert "| as it is | 0.500 [" in said.out
    assert "untuned" not in said.out


def test_evaluate_missed_requirement_exits_1(shell: Shell) -> None:
    rows(8)
    said = evaluate(shell, "--require", "EM >= 0.4", "--require", "EM>=0.9", "--junit", "out.xml")
    assert said.code == 1
    assert "missed: EM >= 0.9, and it is 0.500" in said.err
    suite = ElementTree.fromstring(Path("out.xml").read_bytes())
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None] == ["EM >= 0.9"]


def test_evaluate_failure_replaces_old_junit_report(shell: Shell) -> None:
    rows(4)
    Path("report.xml").write_text("<testsuite/>")
    said = evaluate(shell, "--require", "x > 0.8", "--junit", "report.xml")
    assert (said.code, "N203" in said.err) == (2, True)
    assert 'errors="1"' in Path("report.xml").read_text()
    assert "N203" in Path("report.xml").read_text()
    assert evaluate(shell, "--require", "answered >= 0").code == 0
    assert evaluate(shell, "--require", "answered >= 1.1").code == 1


def test_evaluate_junit_path_checked_first(shell: Shell) -> None:
    rows(8)
    assert evaluate(shell, "--require", "EM >= 0.4", "--junit", "reports/of/out.xml").code == 0
    assert Path("reports/of/out.xml").is_file()
    shell.opener = Simulated(answer)
    said = evaluate(shell, "--require", "EM >= 0.4", "--junit", "reports")
    assert said.err.startswith("C023: reports cannot be written: it is a folder")
    assert not shell.opener.opened


def test_evaluation_rows_skip_blank_lines_and_bom(shell: Shell) -> None:
    rows(2)
    Path("rows.jsonl").write_bytes(b"\xef\xbb\xbf" + Path("rows.jsonl").read_bytes() + b"\n  \n")
    assert evaluate(shell, "--json").json["rows"] == 2


def test_evaluate_sample_is_deterministic(shell: Shell) -> None:
    rows(40)
    first, again, other = (evaluate(shell, "--rows", "9", "--seed", seed, "--json").json for seed in ("1", "1", "2"))
    assert first["rows"] == 9
    assert first["arms"][1]["metrics"] == again["arms"][1]["metrics"]
    assert other["test"] != first["test"]


def test_evaluate_failed_wrong_withheld_may_be_correct(shell: Shell) -> None:
    rows(1, input={"question": "broken", "context": TEXT}, expected={"answers": []})
    said = evaluate(shell, "--json")
    arm = said.json["arms"][1]
    assert (arm["failed"], arm["answered"], arm["metrics"]["EM"]["value"]) == (1, 0.0, 0.0)
    assert "1 rows failed; the first:" in said.err
    Path("agents/answerer/agent.yaml").write_text(AGENT + "adapter: adapter\nchecks: [quote]\notherwise: [abstain]\n")
    shell.opener = Simulated(lambda _: {"answer": "1889", "quote": "in 1999"})
    arm = evaluate(shell, "--json").json["arms"][1]
    assert (arm["failed"], arm["answered"], arm["metrics"]["EM"]["value"]) == (0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{}\n", "N001"),
        ('{"id": "1", "input": {"question": "q", "context": "c"}}\n', "N001"),
        ('{"id": "1", "input": {"question": "q", "text": "c"}, "expected": {}}\n', "N001"),
        ("", "N202"),
        ("no json\n", "N001"),
    ],
)
def test_evaluate_invalid_rows_refused_first(shell: Shell, text: str, code: str) -> None:
    Path("rows.jsonl").write_text(text)
    said = evaluate(shell)
    assert (said.code, said.err[:4]) == (2, code)


@pytest.mark.parametrize("text", ["EM > 1", "EM", "EMM >= 0.5", ">= 0.5"])
def test_evaluate_invalid_requirement_refused(shell: Shell, text: str) -> None:
    rows(1)
    said = evaluate(shell, "--require", text)
    assert (said.code, said.err[:4]) == (2, "N203")


def test_evaluate_replaced_metric_gets_hint(shell: Shell) -> None:
    file = Path("agents/answerer/evaluation.yaml")
    file.unlink()
    rows(1)
    said = evaluate(shell, "--require", "answer exact >= 0")
    assert (said.code, said.err[:4], "'answer same' has taken its place" in said.err) == (2, "N203", True)
    kept = re.search(r"evaluation.yaml keeps the old one: (.*)", said.err)
    assert kept is not None
    file.write_text(kept[1] + "\n")
    assert evaluate(shell, "--require", "answer exact >= 0").code == 0


@pytest.mark.parametrize(
    "text",
    [
        "metrics: {EM: {of: exactness, field: answer}}",
        "metrics: {}",
        "metric: {}",
        "metrics: {EM: {of: exact, fild: x}}",
    ],
)
def test_evaluate_invalid_config_has_location(shell: Shell, text: str) -> None:
    rows(1)
    Path("agents/answerer/evaluation.yaml").write_text(text)
    said = evaluate(shell)
    assert (said.code, said.err[:4]) == (2, "N201")
    assert "evaluation.yaml:1:" in said.err


def test_default_metrics_follow_output_type(shell: Shell) -> None:
    rows(2, expected={"answer": "1889", "quote": "in 1889"})
    Path("agents/answerer/evaluation.yaml").unlink()
    said = evaluate(shell, "--json", "--no-untuned")
    assert list(said.json["arms"][0]["metrics"]) == ["answer same", "answer F1", "quote exact", "quote F1"]


TEAM = "{type: object, properties: {team: {type: string}}, required: [team], additionalProperties: false}"


@pytest.mark.parametrize(
    ("output", "given", "wanted", "right"),
    [
        ("Team | null", {"team": "b"}, {"team": "a"}, False),
        ("Team | null", {"team": "a"}, {"team": "a"}, True),
        ("Team | null", None, {"team": "a"}, False),
        ("Team | null", None, None, True),
        ("dict[str, str]", {"output": "b"}, {"output": "a"}, False),
        ("dict[str, str]", {"x": "b"}, {"x": "b"}, True),
        ("list[str]", ["a"], ["b"], False),
        ("list[str]", ["a"], ["a"], True),
    ],
)
def test_default_metrics_plain_output(tmp_path: Path, output: str, given: Any, wanted: Any, right: bool) -> None:
    (tmp_path / "agent.yaml").write_text(
        f"name: desk\nmodel: base\ninput: {{text: str}}\noutput: '{output}'\ntypes: {{Team: {TEAM}}}\n"
    )
    (tmp_path / "prompt.md").write_text("{{ text }}")
    card = Card.load(tmp_path)
    case = Case(as_record(wanted), as_record(given), 0.9)
    assert [one.compute([case]) for one in metrics_for(card)] == [float(right)]
    assert correctness_of(card).is_correct(case) is right
    assert correctness_of(card).is_correct(Case(as_record(wanted), None)) is (wanted is None), (
        "withheld, which is right where nothing is"
    )


def test_default_metrics_skip_probabilities_and_absent(tmp_path: Path) -> None:
    text = "name: judge\nkind: encoder\nmodel: minilm\ninput: {text: str}\n"
    (tmp_path / "agent.yaml").write_text(text + "output: {label: \"Literal['a', 'b']\", outside: float}\n")
    assert [one.name for one in metrics_for(Card.load(tmp_path))] == ["label right"]
    computed = "output: {label: \"Literal['a', 'b']\", p: float | null, why: str}\ncomputed: {p: {probability: a}}\n"
    (tmp_path / "agent.yaml").write_text(text.replace("encoder\nmodel: minilm", "model") + computed)
    (tmp_path / "prompt.md").write_text("{{ text }}")
    card = Card.load(tmp_path)
    assert [one.name for one in metrics_for(card)] == ["label right", "why same", "why F1"]
    assert [one.name for one in metrics_for(card, questions=[EvaluationRow("1", {}, {"label": "a"})])] == [
        "label right"
    ]
    assert len(metrics_for(card, questions=[EvaluationRow("1", {}, {"nothing": "a"})])) == 3


def test_evaluate_reads_rows_from_data_folder(shell: Shell) -> None:
    rows(8)
    Path("sets/there").mkdir(parents=True)
    Path("rows.jsonl").rename("sets/there/dev.jsonl")
    named = "".join(
        f"  {name}:\n    rows: {{file: there/dev.jsonl, sample: {sample}}}\n"
        f"    metrics: {{{name} EM: {{of: exact, field: answer, expected: answers}}}}\n"
        for name, sample in (("first", 3), ("second", 5))
    )
    Path("agents/answerer/evaluation.yaml").write_text(f"evaluations:\n{named}")
    first, second, all_ = (
        shell("learn", "evaluate", "answerer", "--data", "sets", "--json", *more).json
        for more in ((), ("--evaluation", "second"), ("--rows", "0"))
    )
    assert [one["rows"] for one in (first, second, all_)] == [3, 5, 8]
    assert list(second["arms"][0]["metrics"]) == ["second EM"]
    assert first["test"] == "there/dev.jsonl, 3 of 8 rows, seed 0"
    assert shell("learn", "evaluate", "answerer", "--data", "sets", "--evaluation", "third").err.startswith("N204")


def test_evaluate_certified_card_uses_its_threshold(shell: Shell) -> None:
    """Arms need no certificate of their own: they are compared and give no guarantee."""
    card = Path("agents/answerer/agent.yaml")
    card.write_text(card.read_text() + "checks: [confidence]\naccept: certified\notherwise: [abstain]\n")
    shell.opener = Simulated(lambda call: CallResult(value=answer(call), confidence=0.6))
    rows(8)
    said = evaluate(shell, "--json")
    assert [arm["answered"] for arm in said.json["arms"]] == [1.0, 1.0]
    assert "accepts by a certificate but has none" in said.err
    Path("agents/answerer/certificate.json").write_bytes(certified("answerer", ("confidence",), 0.7).to_bytes())
    assert [arm["answered"] for arm in evaluate(shell, "--json").json["arms"]] == [0.0, 0.0]


LONG = "x" * 300


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("evaluate", "answerer", "--data", LONG), "N001"),
        (("promote", "answerer", LONG, "--data", "rows.jsonl"), "N301"),
    ],
)
def test_evaluate_overlong_name_is_unknown(shell: Shell, command: tuple[str, ...], code: str) -> None:
    rows(1)
    said = shell("learn", *command)
    assert (said.code, said.err[:4]) == (2, code)


PLACE = "{type: object, properties: {city: {type: string}}, required: [city], additionalProperties: false}"


def test_default_metrics_text_or_record(shell: Shell) -> None:
    text = AGENT.replace("answer: str | null", "answer: str | Place")
    Path("agents/answerer/agent.yaml").write_text(f"{text}types: {{Place: {PLACE}}}\n")
    Path("agents/answerer/evaluation.yaml").unlink()
    rows(4, expected={"answer": {"city": "Paris"}, "quote": "in 1889"})
    shell.opener = Simulated(
        lambda call: {"answer": {"city": "Paris" if call.inputs["question"] == "q0" else "Rome"}, "quote": "in 1889"}
    )
    said = evaluate(shell, "--json", "--no-untuned")
    assert said.code == 0, said.err
    assert {name: one["value"] for name, one in said.json["arms"][0]["metrics"].items()} == {
        "answer same": 0.5,
        "answer F1": 0.5,
        "quote exact": 1.0,
        "quote F1": 1.0,
    }


@pytest.fixture
def sorter(shell: Shell) -> Shell:
    """An agent that confuses `b` with `a`, and withholds an answer to an empty text."""
    Path("agents/sorter").mkdir()
    card = (
        "schema: orchestra/v1\nname: sorter\ndescription: Sorts.\ninput: {text: str}\n"
        "output: {label: \"Literal['a', 'b', 'c']\"}\n"
    )
    Path("agents/sorter/agent.yaml").write_text(card)
    Path("agents/sorter/prompt.md").write_text("{{ text }}\n")
    Path("rows.csv").write_text("id,text,label\n1,a,a\n2,b,b\n3,b,b\n4,c,c\n5,broken,c\n")

    def sorts(call: CallRequest) -> Any:
        text = call.inputs["text"]
        return (
            CallError(code="M001", reason="not JSON") if text == "broken" else {"label": "a" if text == "b" else text}
        )

    shell.opener = Simulated(sorts)
    return shell


def sorted_by(shell: Shell, *more: str) -> Said:
    return shell("learn", "evaluate", "sorter", "--data", "rows.csv", *more)


def test_classes_show_labels_and_confusions(sorter: Shell) -> None:
    found = sorted_by(sorter, "--classes", "--json").json["by_class"]
    assert found["field"] == "label"
    assert [tuple(one.values()) for one in found["labels"]] == [
        ("a", pytest.approx(1 / 3), 1.0, 0.5, 1),
        ("b", None, 0.0, 0.0, 2),
        ("c", 1.0, 0.5, pytest.approx(2 / 3), 2),
    ]
    assert found["confusions"] == [
        {"expected": "b", "predicted": "a", "rows": 2},
        {"expected": "c", "predicted": "(none)", "rows": 1},
    ]
    said = sorted_by(sorter, "--classes").out
    assert "b predicted as a: 2 rows" in said
    assert "by_class" not in sorted_by(sorter, "--json").json


def test_classes_of_plain_label_output(sorter: Shell) -> None:
    card = Path("agents/sorter/agent.yaml")
    card.write_text(
        card.read_text().replace("output: {label: \"Literal['a', 'b', 'c']\"}", "output: \"Literal['a', 'b', 'c']\"")
    )
    Path("rows.csv").write_text("id,text,output\n1,a,a\n2,b,b\n3,c,c\n")
    sorter.opener = Simulated(lambda call: "a" if call.inputs["text"] == "b" else call.inputs["text"])
    said = sorted_by(sorter, "--classes", "--json")
    assert said.code == 0, said.err
    found = said.json["by_class"]
    assert (found["field"], [one["recall"] for one in found["labels"]]) == ("output", [1.0, 0.0, 1.0])
    assert found["confusions"] == [{"expected": "b", "predicted": "a", "rows": 1}]


def test_evaluate_predictions_readable_by_certify(sorter: Shell) -> None:
    assert sorted_by(sorter, "--predictions", "said.jsonl").code == 0
    lines = [json.loads(line) for line in Path("said.jsonl").read_text().splitlines()]
    assert [(one["id"], one["input"], one["expected"], one["output"], one["right"]) for one in lines[1:4:2]] == [
        ("2", {"text": "b"}, {"label": "b"}, {"label": "a"}, False),
        ("4", {"text": "c"}, {"label": "c"}, {"label": "c"}, True),
    ]
    assert (lines[4]["output"], lines[4]["right"]) == (None, False)
    assert set(Predictions.read(Path("said.jsonl")).answers) == {"1", "2", "3", "4", "5"}


def test_classes_without_label_refused(shell: Shell) -> None:
    rows(2)
    assert evaluate(shell, "--classes").err.startswith("C010: --classes needs an agent with one label field")


def test_evaluate_intervals_resample_groups(shell: Shell) -> None:
    rows(40)
    alone = evaluate(shell, "--json").json
    given = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    half = {at: "known" if at % 2 else "unknown" for at in range(40)}
    Path("rows.jsonl").write_text(
        "".join(json.dumps({**line, "group": half[at]}) + "\n" for at, line in enumerate(given))
    )
    together = evaluate(shell, "--json").json
    assert (alone["groups"], together["groups"]) == (40, 2)
    apart, grouped = (told["arms"][-1]["metrics"]["EM"] for told in (alone, together))
    assert apart["value"] == grouped["value"] == 0.5
    assert (grouped["low"], grouped["high"]) == (0.0, 1.0)  # one group is correct, and one is wrong
    assert "those of each of 2 groups together" in evaluate(shell).out


def test_evaluation_group_names_input(shell: Shell) -> None:
    rows(8)
    Path("it").mkdir(exist_ok=True)
    Path("it/rows.jsonl").write_bytes(Path("rows.jsonl").read_bytes())
    assert read_selected_rows(Path(), RowSelection(file="it/rows.jsonl", group="context")).group_count == 1
    assert read_selected_rows(Path(), RowSelection(file="it/rows.jsonl")).group_count == 8
    with pytest.raises(InputError, match="no input 'passage' to group it by") as refused:
        read_selected_rows(Path(), RowSelection(file="it/rows.jsonl", group="passage"))
    assert refused.value.code == "N201"
