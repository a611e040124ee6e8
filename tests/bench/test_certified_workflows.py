"""`bench.certified_workflows`: pools of one part, and a table of recorded answers, without a fleet."""

from __future__ import annotations

from pathlib import Path

from bench.certified_workflows import HEAD, POOL, WORKFLOWS, judged, later, pooled, right_of, table, unanswered
from bench.machine import ROOT
from orchestra.app.project import Project
from orchestra.core.settings import Settings
from orchestra.learn.evaluation import rows
from orchestra.learn.evaluation.rows import EvaluationRow

READING, _ = WORKFLOWS
ROWS = [
    EvaluationRow(
        f"{'written-' if n % 6 < 3 else ''}{n}",
        {"question": f"When {n}?", "context": f"It was in {n // 3}."},
        {"answers": [] if n % 3 == 2 else [{"text": f"{n}"}]},
    )
    for n in range(1200)
]


def test_pooled_has_own_passage_among_other_set() -> None:
    found = pooled(ROWS)
    own = {row.id: row.input["context"] for row in ROWS}
    half = {text: later(row.group) for row in found for text in [own[row.id]]}
    of = {own[row.id]: row.id.startswith("written") for row in ROWS}
    assert len(found) == len(ROWS)
    for row in found:
        texts = [one["text"] for one in row.input["documents"]]
        assert (len(set(texts)), own[row.id] in texts) == (POOL, True)
        assert {half[text] for text in texts} == {later(row.group)}
        assert sum(of[text] == of[own[row.id]] for text in texts) == 1
    assert pooled(ROWS) == found
    assert {[one["text"] for one in row.input["documents"]].index(own[row.id]) for row in found} == set(range(POOL))


def test_workflow_certificate_tested_on_separate_rows(tmp_path: Path) -> None:
    test = rows.EvaluationSet("made up", "0", pooled(ROWS))
    answers = {
        row.id: ({"text": row.id.removeprefix("written-") if row.expected["answers"] else "none", "citations": []}, 0.9)
        for row in test.rows
    }
    answers |= {row.id: (answers[row.id][0], 0.1) for row in test.rows if not row.expected["answers"]}
    project = Project.load(Settings.load({}, start=ROOT))
    lines = judged(READING, test, answers, right_of(project, READING))
    assert [line[1] for line in lines] == ["30 %", "20 %", "10 %", "5 %"]
    assert all(line[5].startswith("0, 0 %") and line[6].endswith(", 100 %") for line in lines)
    few = judged(READING, test, dict(list(answers.items())[:100]), right_of(project, READING))
    assert few[-1][3].startswith("none, too little data: about ")
    assert table(lines).count("\n") == 5
    assert table(lines).startswith(f"| {HEAD[0]} |")
    assert unanswered(READING, test, answers).endswith(
        "of 400 questions that are answered nowhere 400 get an answer where nothing is withheld, the surest at 0.10."
    )
    told = {row.id: answers[row.id] for row in test.rows if row.expected["answers"]}
    assert unanswered(READING, test, told).endswith(
        "of 0 questions that are answered nowhere 0 get an answer where nothing is withheld."
    )
