"""Search: passages with exact offsets, ordered by score."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.errors import InputError
from orchestra.documents.passages import MAX_PASSAGE, split_passages
from orchestra.schema.builtin_models import Document
from orchestra.tools import search

TEXTS = st.text(
    st.sampled_from(["a", "b", " ", "\n", "\n\n", ".", "! ", "é", "東", "word"][:1] + list(" \n.aé東!")), max_size=400
) | st.lists(st.sampled_from(["word", " ", "\n", "\n\n", ". ", "x" * 500, "Heading\n\n", "東" * 300]), max_size=30).map(
    "".join
)


@given(st.lists(TEXTS, max_size=3))
def test_search_passages_have_offsets_and_all_words(texts: list[str]) -> None:
    documents = [Document(source=str(index), text=text) for index, text in enumerate(texts)]
    passages = split_passages(documents)
    for passage in passages:
        assert texts[int(passage.source)][passage.start : passage.end] == passage.text
        assert passage.text == passage.text.strip()
        assert passage.text
    for index, text in enumerate(texts):
        mine = [passage for passage in passages if passage.source == str(index)]
        assert "".join("".join(passage.text for passage in mine).split()) == "".join(text.split())
        assert all(before.end <= after.start for before, after in pairwise(mine))


@given(st.lists(st.sampled_from(["word", "longer", "x" * 300]), min_size=1, max_size=300))
def test_search_passage_length_limited(words: list[str]) -> None:
    assert (
        max(len(passage.text) for passage in split_passages([Document(source="a", text=" ".join(words))]))
        <= MAX_PASSAGE
    )


def test_search_heading_kept_with_paragraph() -> None:
    body = "The Amber Line runs for 42 kilometres between Port Selby and Kings Hill, and has since it opened."
    assert [passage.text for passage in split_passages([Document(source="a", text=f"Lines\n\n{body}\n\n{body}")])] == [
        f"Lines\n\n{body}",
        body,
    ]


def docs(*texts: str) -> list[Document]:
    return [Document(source=f"{index}.txt", text=text) for index, text in enumerate(texts)]


def test_search_best_overlap_first() -> None:
    found = search(
        "Which city has the oldest bridges?",
        docs("A river has fish.", "The oldest bridge of the city is stone.", "Cities are large."),
    )
    assert [passage.source for passage in found] == ["1.txt", "2.txt"]
    assert found[0].score > found[1].score > 0


@pytest.mark.parametrize(
    ("query", "documents"),
    [
        ("x", []),
        ("x", docs("")),
        ("x", docs(" \n\n ")),
        ("zebra", docs("no such animal")),
        ("", docs("text")),
        ("the of", docs("the of")),
        ("?!", docs("a ?!")),
    ],
)
def test_search_no_overlap_finds_nothing(query: str, documents: list[Document]) -> None:
    assert search(query, documents) == []


def test_search_single_passage_same_as_many() -> None:
    assert [passage.text for passage in search("only", docs("only one"))] == ["only one"]
    assert len(search("word", docs(*["a word"] * 50), top=7)) == 7
    assert search("word", docs("word"), top=0) == []


def test_search_equal_scores_keep_document_order() -> None:
    found = search("word", docs(*["the same word"] * 9), top=9)
    assert [passage.source for passage in found] == [f"{index}.txt" for index in range(9)]
    assert found == search("word", docs(*["the same word"] * 9), top=9)


def test_search_missing_package_names_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(InputError) as caught:
        search("word", docs("word"))
    assert caught.value.code == "T006"
    assert "pip install" in caught.value.hint
