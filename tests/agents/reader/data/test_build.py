"""The readers' data set: derived rows are correct for their passages, and groups stay together."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from agents.reader.data.build import (
    WITHOUT,
    WRITTEN,
    Passage,
    articles,
    asked,
    cloze,
    data_set,
    finance,
    sentences,
    siblings,
    told,
    windows,
    without,
)
from bench.written_rows import written

FIRST = (
    "Ada Lovelace wrote her notes in 1843. She lived in London. The notes were read by Charles Babbage, and 12 "
    "people more."
)
SECOND = "Charles Babbage planned the engine in 1837. He never built it. Its parts were made by Joseph Clement."
THIRD = "The tower is located in Paris. It was completed in 1889 by the company of Gustave Eiffel."


def item(context: str, question: str, answer: str | None) -> dict[str, Any]:
    answers = [] if answer is None else [{"text": answer, "start": context.index(answer)}]
    return {"id": question, "input": {"question": question, "context": context}, "expected": {"answers": answers}}


ROWS = [
    item(FIRST, "When did she write?", "1843"),
    item(FIRST, "Where did she live?", "London"),
    item(SECOND, "Where did she live?", None),
    item(SECOND, "When was the engine planned?", "1837"),
    item(SECOND, "Who made its parts?", "Joseph Clement"),
    item(THIRD, "When was it completed?", "1889"),
]


def test_articles_group_passages_by_question() -> None:
    found = sorted(articles(ROWS), key=len)
    assert [[passage.text for passage in article] for article in found] == [[THIRD], [FIRST, SECOND]]
    assert len({passage.group for article in found for passage in article}) == 2


def test_asked_rows_are_unchanged() -> None:
    rows = [row for article in articles(ROWS) for row in asked(article)]
    assert sorted((row.input["question"], str(row.output["answer"])) for row in rows) == sorted(
        (one["id"], one["expected"]["answers"][0]["text"] if one["expected"]["answers"] else "None") for one in ROWS
    )


def test_siblings_are_unanswerable() -> None:
    article = next(article for article in articles(ROWS) if len(article) == 2)
    rows = list(siblings(article, 9))
    assert {row.input["question"] for row in rows} == {
        "When did she write?",
        "When was the engine planned?",
        "Who made its parts?",
    }
    assert all(row.output == {"answer": None} for row in rows)
    assert "Where did she live?" not in {row.input["question"] for row in rows if row.input["context"] == SECOND}, (
        "it is there already"
    )


def test_windows_answer_only_their_content() -> None:
    long = " ".join([FIRST, SECOND, THIRD])
    passage = Passage(
        long,
        "g",
        {"When did she write?": "1843", "When was it completed?": "1889", "Who made its parts?": "Joseph Clement"},
    )
    rows = list(windows([passage], 4))
    assert {row.output["answer"] is None for row in rows} == {True, False}
    for row in rows:
        answer = passage.asked[row.input["question"]]
        assert row.input["context"] in long
        assert (row.output["answer"] == answer) == (answer in row.input["context"])


def test_finance_answers_spans_not_table_values() -> None:
    paragraph = "Revenue rose by 12 per cent in the year, for more customers came to our shops."

    def asks(question: str, answer: Any, kind: str, source: str) -> dict[str, Any]:
        inputs = {"question": question, "table": [["a", "7"]], "paragraphs": ["Note 3", paragraph]}
        return {"id": question, "input": inputs, "expected": {"answer": answer, "type": kind, "from": source}}

    rows = [
        asks("By how much?", ["12 per cent"], "span", "text"),
        asks("Why?", ["more customers"], "span", "text"),
        asks("What is a?", ["7"], "span", "table"),
        asks("What is a plus a?", 14, "arithmetic", "table"),
    ]
    found = {row.input["question"]: row.output["answer"] for row in finance(rows)}
    assert found == {"By how much?": "12 per cent", "Why?": "more customers", "What is a?": None}
    assert {row.input["context"] for row in finance(rows)} == {paragraph}


@pytest.mark.parametrize("text", [FIRST, SECOND, THIRD])
def test_cloze_answer_once_in_text_not_in_question(text: str) -> None:
    made = [pair for seed in range(20) for pair in cloze(text, 3, random.Random(seed))]
    assert made
    for question, answer in made:
        assert text.count(answer) == 1
        assert answer not in question
        assert question.endswith("?")
        assert "what" in question.lower() or "who" in question.lower() or "how many" in question.lower()


def test_told_matches_whole_words() -> None:
    assert told("1843", FIRST)
    assert told("ada lovelace", FIRST)
    assert not told("184", FIRST)


def test_sentences_cover_text() -> None:
    assert " ".join(sentences(FIRST)) == FIRST
    assert sentences("It was 3.5 m. Then it grew.") == ["It was 3.5 m.", "Then it grew."]


def test_without_sentence_changes_answerability() -> None:
    asked = {
        "When did she write?": "1843",
        "Where did she live?": "London",
        "Who read them?": "Charles Babbage",
        "How many more?": "12",
    }
    rows = list(without(Passage(FIRST, "g", asked)))

    silent, still = (
        [row for row in rows if row.output["answer"] is None],
        [row for row in rows if row.output["answer"] is not None],
    )
    assert 0 < len(still) <= len(silent)
    assert {row.group for row in rows} == {"g"}
    (text,) = {str(row.input["context"]) for row in rows}
    assert 0 < len(text) < len(FIRST)
    assert all(asked[str(row.input["question"])] not in text for row in silent)
    assert all(row.output["answer"] == asked[str(row.input["question"])] in text for row in still)


def test_without_sentence_skips_unsuitable_passages() -> None:
    again = Passage(
        "It was in 1843. Ada came in 1843. Rain fell at night.", "g", {"When?": "1843", "What fell?": "Rain"}
    )

    assert [(row.input["question"], row.output["answer"]) for row in without(again)] == [
        ("What fell?", None),
        ("When?", "1843"),
    ]
    three = Passage("It was in May. Ada came. Rain fell.", "g", {"When?": "May", "Who?": "Ada", "What fell?": "Rain"})
    assert [row.output["answer"] is None for row in without(three)] == [
        True,
        False,
    ]  # one that is unanswerable now, and as many others
    assert not list(without(Passage("Ada was born in 1843. It rained.", "g", {"When?": "1843", "Who?": "Ada"})))


def test_reader_data_set_has_sources(tmp_path: Path) -> None:
    (tmp_path / "xquad_en").mkdir()
    (tmp_path / "xquad_en" / "train.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    made = data_set(tmp_path, "some", ["asked", "siblings", WRITTEN])
    alone = data_set(tmp_path, "some", [WRITTEN])

    ours = [row for part in alone.rows.values() for row in part]
    assert len(ours) == len(written(WRITTEN)[0])
    assert alone.manifest.licence == "Apache-2.0"
    assert made.manifest.licence == "CC BY-SA 4.0; Apache-2.0"
    assert [source.name for source in made.manifest.sources] == ["xquad_en", "agents/reader/data/written/passages"]
    assert sum(len(part) for part in made.rows.values()) == len(ours) + len(ROWS) + 3
    assert 0 < len(alone.rows["tune"]) < len(ours) / 10


def test_without_rows_in_training_only() -> None:
    made = data_set(Path("nowhere"), "some", [WRITTEN, WITHOUT])
    cut = [row for row in made.rows["train"] if row.id.startswith(WITHOUT)]

    assert made.manifest.sources[-1].rows == len(cut) > 500
    assert not any(row.id.startswith(WITHOUT) for row in made.rows["tune"])
    assert not {row.group for row in made.rows["train"]} & {row.group for row in made.rows["tune"]}
    texts = {row.group: row.input["context"] for row in made.rows["train"] if not row.id.startswith(WITHOUT)}
    assert len({row.group for row in cut}) < 0.6 * len(texts)
    assert all(row.input["context"] != texts[row.group] for row in cut)
