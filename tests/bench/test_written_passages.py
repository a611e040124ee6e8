"""Written questions to passages and problems: read, or refused with the line of the error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.written_rows import Unusable, as_test, passages, problems

PASSAGES = """The bridge was closed in May 1931 and opened in the autumn, after five months.
? When was it opened?
= in the autumn
? What did it cost?
-

It had 212 metres and 12 arches (all of stone).
? Of what are they made?
= stone
? How many arches?
= 12
"""
STORY = "Ann has 12 pears, gives a third of them away and sells half of a fifth of the rest at 2.50 each."


def file(folder: Path, text: str) -> Path:
    path = folder / "some.txt"
    path.write_text(text)
    return path


def test_passage_questions_grouped_with_quoted_answers(tmp_path: Path) -> None:
    first, second, third, _ = passages(file(tmp_path, PASSAGES))

    assert first.input == {"question": "When was it opened?", "context": PASSAGES.split("\n")[0]}
    assert [row.output for row in (first, second, third)] == [
        {"answer": "in the autumn"},
        {"answer": None},
        {"answer": "stone"},
    ]
    assert first.group == second.group != third.group
    assert len({row.id for row in (first, second, third)}) == 3


def test_passage_questions_as_xquad_rows(tmp_path: Path) -> None:
    first, second, _, fourth = [json.loads(line) for line in as_test(passages(file(tmp_path, PASSAGES))).splitlines()]

    assert first["expected"] == {"answers": [{"text": "in the autumn", "start": PASSAGES.index("in the autumn")}]}
    assert second["expected"] == {"answers": []}
    assert fourth["expected"] == {"answers": [{"text": "12", "start": len("It had 212 metres and ")}]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A passage of words.\n", r"some\.txt:1: a text, and below it questions"),
        ("A passage of words.\n? Of what?\n", r"some\.txt:1: a text, and below it questions"),
        ("? Of what?\n= words\n? And?\n-\n", r"some\.txt:1: a text, and below it questions"),
        ("A passage of words.\n? Of what?\n? And?\n", r"some\.txt:2: a question \(\?\) and its answer"),
        ("A passage of words.\n? Of what?\n=words\n", r"some\.txt:2: a question \(\?\) and its answer"),
        ("A passage of words.\n? Of what?\n- words\n", r"some\.txt:3: nothing may follow -"),
        ("A passage of words.\nOf what?\n= words\n", r"some\.txt:2: a question \(\?\) and its answer"),
        ("A passage of words.\n? Of what?\n= Words\n", r"some\.txt:3: 'Words' is not in the passage"),
        ("A passage of words.\n? Of what?\n= word\n", r"some\.txt:3: 'word' is not in the passage"),
        ("A passage of words.\n? Of what?\n= words\n? Of what?\n-\n", r"some\.txt:1: a question is asked twice"),
        ("A passage of 9.5 words.\n? Of how many?\n= 9\n", r"some\.txt:3: '9' is not in the passage"),
        ("A passage of words.\n? Of what?\n= ords\n", r"some\.txt:3: 'ords' is not in the passage"),
    ],
)
def test_passage_questions_invalid_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Unusable, match=said):
        passages(file(tmp_path, text))


def test_problems_grouped_with_valid_expressions(tmp_path: Path) -> None:
    first, second = problems(
        file(tmp_path, f"{STORY}\n? How many are left?\n# 12 - (12 / 3)\n? What did she get?\n# (12-12/3)/5*0.5*2.50\n")
    )

    assert (first.input, first.output) == ({"question": f"{STORY} How many are left?"}, {"expression": "12-12/3"})
    assert second.output == {"expression": "(12-12/3)/5*0.5*2.5"}
    assert first.group == second.group
    assert [json.loads(line)["expected"]["answer"] for line in as_test([first, second]).splitlines()] == [8, 2]


@pytest.mark.parametrize(
    ("below", "said"),
    [
        ("", r"some\.txt:1: a text, and below it questions"),
        ("? How many?\n", r"some\.txt:1: a text, and below it questions"),
        ("# 12\n? How many?\n", r"some\.txt:2: a question \(\?\) and its answer"),
        ("? How many?\n= 12\n", r"some\.txt:2: a question \(\?\) and its answer"),
        ("? How many?\n# 12-5\n? And now?\n# 12-6\n", r"some\.txt:5: 6 is not told"),
        ("? How many?\n# 12*1.25\n", r"some\.txt:3: 1\.25 is not told"),
        ("? How many?\n# 3-12\n", r"some\.txt:3: 3-12 is less than zero"),
        ("? How many?\n# 12+*3\n", r"some\.txt:3: '12\+\*3' is no arithmetic"),
        ("? How many?\n# 12-3 # three\n", r"some\.txt:3: .* has a remark in it"),
        ("? How many?\n# 12**3\n", r"some\.txt:3: 12\*\*3"),
        ("? How many?\n# 12/(3-3)\n", r"some\.txt:3: "),
        ("? How many?\n# 12+12+12+12+12+12+12+12+12+12+12\n", r"some\.txt:3: .* more than 10 numbers"),
    ],
)
def test_problems_invalid_refused(tmp_path: Path, below: str, said: str) -> None:
    with pytest.raises(Unusable, match=said):
        problems(file(tmp_path, f"{STORY}\n{below}"))
