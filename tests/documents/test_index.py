"""The index of a folder: what an update reads, what a search finds, and states that readers see."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestra.core.errors import InputError
from orchestra.documents.excerpts import make_excerpts
from orchestra.documents.index import DATABASE, FolderIndex, IndexOptions, index_folder
from orchestra.documents.postings import Postings, TermCounts, best, count_terms, write_postings
from orchestra.documents.ranking import bm25_scores, fuse_rankings, index_terms
from orchestra.documents.reader_process import ProcessLimits
from orchestra.documents.vectors import VectorStore, quantize, write_vectors
from orchestra.schema.builtin_models import Location, Passage

TEXTS = {
    "leave.md": "# Leave\n\n" + "Full-timers get 27 days of paid leave each year, and part-timers a share of it.",
    "travel.txt": "The company pays 0.30 EUR for each kilometre that somebody drives by own car for work.",
    "deep/it.txt": "The help desk has the extension 4411, and is open until seven in the evening on all days.",
}


class WordEmbedder:
    """A vector with one dimension for each of a few words, some of which have the same."""

    name = "words"

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed(self, text: str) -> NDArray[np.float32]:
        """The vector of the words of a text."""
        self.texts.append(text)
        places = {"leave": 0, "holiday": 0, "car": 1, "automobile": 1, "desk": 2}
        vector = np.full(64, 0.01, np.float32)
        for word in text.lower().replace(",", " ").split():
            vector[places.get(word, 3 + hash(word) % 1)] += 1.0 if word in places else 0.0
        length: np.float32 = np.linalg.norm(vector)
        return np.asarray(vector / length, np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    for name, text in TEXTS.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    return made


@pytest.fixture
def index(folder: Path, tmp_path: Path) -> FolderIndex:
    return FolderIndex(folder, tmp_path / "index")


def test_search_finds_passages_with_their_places(index: FolderIndex, folder: Path) -> None:
    assert not index.exists
    assert index.update().read == 3
    assert index.exists
    found = index.search("How many days of paid leave do I get?")
    assert found[0].source == "leave.md"
    assert found[0].text == TEXTS["leave.md"][found[0].start : found[0].end]
    assert found[0].locations == [Location(start=0, name="Leave")]
    assert index.search("zebra") == []


def test_update_reads_only_what_has_changed(index: FolderIndex, folder: Path) -> None:
    index.update()
    (folder / "travel.txt").write_text("Trains are paid in full, in the second class.")
    (folder / "deep" / "it.txt").unlink()
    (folder / "new.txt").write_text("A new file about lamps.")
    os.utime(folder / "leave.md")
    assert index.count_changes() == 4
    report = index.update()
    assert (report.read, report.unchanged, report.removed) == (2, 1, 1)
    assert index.count_changes() == 0
    assert [content.document.source for content in index.contents()] == ["leave.md", "new.txt", "travel.txt"]
    assert index.search("kilometre by own car") == []
    assert index.search("trains")[0].source == "travel.txt"
    assert index.search("lamps")[0].source == "new.txt"


def test_update_without_changes_keeps_the_arrays(index: FolderIndex) -> None:
    index.update()
    before = sorted(path.name for path in index.store.iterdir())
    assert index.update().read == 0
    assert sorted(path.name for path in index.store.iterdir()) == before


def test_file_that_cannot_be_read_is_kept_as_failure(index: FolderIndex, folder: Path) -> None:
    (folder / "bad.pdf").write_bytes(b"nonsense")
    index.update()
    assert [(failure.source, failure.code) for failure in index.state().failures] == [("bad.pdf", "D003")]
    assert index.update().read == 0
    (folder / "bad.pdf").unlink()
    index.update()
    assert index.state().failures == []


def test_vectors_find_other_words_for_the_same(index: FolderIndex) -> None:
    embedder = WordEmbedder()
    report = index.update(IndexOptions(embedder=embedder))
    assert report.encoded == report.state.encoded == 3
    assert index.search("automobile") == []
    assert index.search("automobile", embedder=embedder)[0].source == "travel.txt"


def test_update_encodes_only_new_passages(index: FolderIndex, folder: Path) -> None:
    index.update(IndexOptions(embedder=WordEmbedder()))
    (folder / "new.txt").write_text("The desk in the hall is open.")
    index.update()
    again = WordEmbedder()
    assert index.search("desk", embedder=again)[0].source in ("new.txt", "deep/it.txt")
    again.texts.clear()
    index.update(IndexOptions(embedder=again))
    assert again.texts == ["The desk in the hall is open."]


def test_second_update_at_the_same_time_is_refused(index: FolderIndex) -> None:
    index.update()

    def update_again(_: str) -> None:
        with pytest.raises(InputError) as caught:
            FolderIndex(index.folder, index.store).update()
        codes.append(caught.value.code)

    codes: list[str] = []
    (index.folder / "new.txt").write_text("text")
    index.update(IndexOptions(progress=update_again))
    assert codes == ["D009"]


def test_search_during_update_sees_the_old_state(index: FolderIndex) -> None:
    index.update()
    found: list[list[str]] = []
    for name in ("deep/it.txt", "leave.md", "travel.txt"):
        (index.folder / name).write_text("Nothing of it any more.")
    index.update(IndexOptions(progress=lambda _: found.append([one.text for one in index.search("paid leave")])))
    assert [[text in TEXTS["leave.md"] for text in texts] for texts in found] == [[True]] * 3
    assert index.search("paid leave") == []


def interrupt(message: str) -> None:
    """Ends an update at the file travel.txt."""
    if "travel.txt" in message:
        raise KeyboardInterrupt


def test_interrupted_update_changes_nothing(index: FolderIndex) -> None:
    index.update()
    for name in ("leave.md", "travel.txt"):
        (index.folder / name).write_text("Nothing of it any more.")
    with pytest.raises(KeyboardInterrupt):
        index.update(IndexOptions(progress=interrupt))
    assert index.search("paid leave")[0].source == "leave.md"
    assert index.update().read == 2
    assert index.search("paid leave") == []
    assert len(list(index.store.glob("arrays-*"))) == 1


def test_interrupted_first_update_goes_on(index: FolderIndex) -> None:
    with pytest.raises(KeyboardInterrupt):
        index.update(IndexOptions(progress=interrupt))
    report = index.update()
    assert (report.read, report.unchanged) == (1, 2)
    assert index.search("paid leave")[0].source == "leave.md"


def test_vectors_of_an_interrupted_update_are_used(index: FolderIndex) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space left on the disk")

    index.update()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "save", refuse)
        with pytest.raises(OSError, match="no space"):
            index.update(IndexOptions(embedder=WordEmbedder()))
    assert index.update(IndexOptions(embedder=WordEmbedder())).encoded == 0
    assert index.search("automobile", embedder=WordEmbedder())[0].source == "travel.txt"


def test_file_whose_reading_took_too_long_is_tried_again(index: FolderIndex) -> None:
    page = index.folder / "page.html"
    page.write_text("<p>lamps</p>")
    index.update(IndexOptions(limits=ProcessLimits(seconds=0.0)))
    assert [failure.code for failure in index.state().failures] == ["D007"]
    assert index.update().read == 1
    assert index.search("lamps")[0].source == "page.html"


def test_index_of_another_version_is_built_anew(index: FolderIndex) -> None:
    index.update()
    with sqlite3.connect(index.store / DATABASE) as connection:
        connection.execute("UPDATE meta SET value = '0' WHERE key = 'format'")
    assert not index.exists
    assert index.update().read == 3
    assert index.exists


def test_removed_index_leaves_the_files(index: FolderIndex, folder: Path) -> None:
    index.update()
    index.remove()
    assert not index.exists
    assert (folder / "leave.md").exists()


def test_index_is_in_the_cache_of_the_user(tmp_path: Path) -> None:
    first, second = (index_folder(tmp_path / name, {"XDG_CACHE_HOME": "/cache"}) for name in ("a", "b"))
    assert first.parent == second.parent == Path("/cache/orchestra/index")
    assert first != second


WORDS = st.sampled_from(["tower", "river", "stone", "of", "the", "lamp", "lamps", "blue", "green", "1889"])
CORPORA = st.lists(st.lists(WORDS, max_size=12).map(" ".join), min_size=1, max_size=30)


@settings(max_examples=50)
@given(CORPORA, st.lists(WORDS, max_size=5).map(" ".join), st.integers(0, 29))
def test_postings_have_the_scores_of_bm25s(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], query: str, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("postings")
    numbers: dict[str, int] = {}
    files = [count_terms(part, numbers) for part in (texts[:cut], texts[cut:])]
    write_postings(folder, [TermCounts.from_bytes(file.to_bytes()) for file in files], len(numbers))
    known = [numbers[term] for term in dict.fromkeys(index_terms(query)) if term in numbers]
    scores = Postings(folder).scores(known, len(texts))
    assert scores == pytest.approx(bm25_scores(texts, query), rel=1e-4, abs=1e-6)
    ranked = best(scores, 5)
    assert ranked == sorted(np.flatnonzero(scores > 0), key=lambda at: (-scores[at], at))[:5]
    assert bm25s.__name__


def test_nearest_vectors_of_many_are_found_by_their_signs(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    rows = random.standard_normal((30_000, 384), np.float32)
    write_vectors(tmp_path, [quantize(list(rows[:10_000])), quantize(list(rows[10_000:]))], 384)
    store = VectorStore(tmp_path, 384)
    for at in (0, 9_999, 10_000, 29_999):
        near = rows[at] + 0.5 * random.standard_normal(384, np.float32)
        assert store.nearest(near / np.linalg.norm(near), 10)[0] == at


def test_passage_without_vector_is_never_nearest(tmp_path: Path) -> None:
    write_vectors(tmp_path, [np.zeros((2, 64), np.int8), quantize([np.ones(64, np.float32)])], 64)
    assert VectorStore(tmp_path, 64).nearest(-np.ones(64, np.float32), 3) == [2]


def test_fused_ranking_prefers_what_both_have() -> None:
    assert [item for item, _ in fuse_rankings([[1, 2, 3], [4, 2, 5]])] == [2, 1, 4, 3, 5]


def test_excerpt_has_the_passages_of_each_source_in_order() -> None:
    def passage(source: str, start: int, text: str, *locations: tuple[int, str]) -> Passage:
        named = [Location(start=at, name=name) for at, name in locations]
        return Passage(source=source, text=text, start=start, end=start + len(text), locations=named)

    found = [
        passage("b", 50, "second part", (40, "p. 2"), (57, "p. 3")),
        passage("a", 0, "alone"),
        passage("b", 0, "first part", (0, "p. 1")),
    ]
    first, second = make_excerpts(found)
    assert (first.source, first.text) == ("b", "first part\n\nsecond part")
    assert [(one.start, one.name) for one in first.locations] == [(0, "p. 1"), (12, "p. 2"), (19, "p. 3")]
    assert (second.text, second.locations) == ("alone", [])
