"""The index of a folder: its texts, tables and passages in SQLite, the arrays of both rankings in mapped files.

An update reads only files that are new or have changed: of another size or time, and then of another digest. The arrays
are written anew from what SQLite has of each file. They are in a folder of their own for each update, which the same
transaction names that changes the files, so that a search beside an update sees the old state or the new one, and an
interrupted update changes nothing. Only the first update stores each file at once: it has no older state to keep, and
goes on where it was interrupted.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestra.core import xdg
from orchestra.core.errors import InputError
from orchestra.documents.builder import FileContent
from orchestra.documents.passages import locations_in, split_passages
from orchestra.documents.ranking import fuse_rankings, index_terms
from orchestra.documents.reader_process import ProcessLimits
from orchestra.documents.reading import FileFailure, FileReader, FoundFile, find_files
from orchestra.schema.builtin_models import Document, Location, Passage, Table

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from orchestra.documents.vectors import Embedder

FORMAT: Final = "1"
"""Version of what is stored, and of the readers. Another one is built anew."""
DATABASE, LOCK, ARRAYS = "index.sqlite", "lock", "arrays"
MAX_FILES: Final = 1_000_000
RETRIED: Final = ("D002", "D007")
"""Errors that may be gone although the file is the same."""
CANDIDATES: Final = 100
"""Passages of each ranking that are fused."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS terms (term TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    source TEXT PRIMARY KEY, time INTEGER NOT NULL, size INTEGER NOT NULL, digest TEXT NOT NULL,
    code TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '', hint TEXT NOT NULL DEFAULT '',
    is_table INTEGER NOT NULL DEFAULT 0, first INTEGER NOT NULL DEFAULT 0, passages INTEGER NOT NULL DEFAULT 0,
    characters INTEGER NOT NULL DEFAULT 0, encoder TEXT NOT NULL DEFAULT '',
    spans BLOB, counts BLOB, vectors BLOB, locations TEXT NOT NULL DEFAULT '[]', tables TEXT NOT NULL DEFAULT '[]',
    text TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS files_by_first ON files (first);
"""
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class IndexState:
    """What an index has."""

    files: int = 0
    passages: int = 0
    encoded: int = 0
    """Passages with a vector."""
    characters: int = 0
    failures: Sequence[FileFailure] = ()


@dataclass
class UpdateReport:
    """What an update has done."""

    read: int = 0
    unchanged: int = 0
    removed: int = 0
    encoded: int = 0
    """Passages that were encoded."""
    state: IndexState = field(default_factory=IndexState)


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How an index is updated."""

    limits: ProcessLimits = field(default_factory=ProcessLimits)
    embedder: Embedder | None = None
    """None: passages are not encoded, and vectors that exist are kept."""
    progress: Progress = lambda _: None


def index_folder(folder: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Returns where the index of a folder is: in the user's cache, named by the folder's path."""
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:24]
    return xdg.base_folder(environment, "XDG_CACHE_HOME", ".cache") / "orchestra" / "index" / digest


class FolderIndex:
    """The index of a folder. It may be read while another process updates it."""

    def __init__(self, folder: Path, store: Path | None = None) -> None:
        self.folder, self.store = folder, store or index_folder(folder)

    @property
    def exists(self) -> bool:
        """Whether the folder has an index of this version."""
        if not (self.store / DATABASE).is_file():
            return False
        with self._open() as connection:
            return _meta(connection, "format") == FORMAT

    def update(self, options: IndexOptions | None = None) -> UpdateReport:
        """Reads new and changed files, drops those that are gone, and writes the arrays if anything has changed.

        Raises:
            InputError: C014 for a folder that cannot be read, D009 while another process updates the index.
        """
        options = options or IndexOptions()
        self.store.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(self.store, self.folder), self._open(create=True) as connection:
            if _meta(connection, "format") not in ("", FORMAT):
                connection.executescript("DELETE FROM files; DELETE FROM terms; DELETE FROM meta;")
            report = UpdateReport()
            old = _meta(connection, "arrays")
            with _transaction(connection) if old else nullcontext():
                if self._read_files(connection, options, report) or not old:
                    self._write_arrays(connection)
            if options.embedder is not None:
                _encode(connection, options, report)
                vectors = (_meta(connection, "encoder"), _meta(connection, "encoded"))
                if vectors != (options.embedder.name, str(_count_encoded(connection))):
                    self._write_arrays(connection)
            self._remove_old_arrays(_meta(connection, "arrays"))
            report.state = self.state()
            return report

    def remove(self) -> None:
        """Deletes the index. The files stay."""
        shutil.rmtree(self.store, ignore_errors=True)

    def state(self) -> IndexState:
        """Returns what the index has."""
        with self._open() as connection:
            files, passages, characters = connection.execute(
                "SELECT count(*), coalesce(sum(passages), 0), coalesce(sum(characters), 0) FROM files WHERE code = ''"
            ).fetchone()
            encoded_count = _count_encoded(connection)
            failed_rows = connection.execute(
                "SELECT source, code, reason, hint FROM files WHERE code != '' ORDER BY source"
            ).fetchall()
        return IndexState(files, passages, encoded_count, characters, [FileFailure(*row) for row in failed_rows])

    def count_changes(self) -> int:
        """Returns how many files are new, gone, or of another size or time than in the index."""
        with self._open() as connection:
            stored_stamps = {
                source: (modified_time, size)
                for source, modified_time, size in connection.execute("SELECT source, time, size FROM files")
            }
        stamps = {file.source: _stamp(file.path) for file in find_files(self.folder, MAX_FILES)}
        return sum(stored_stamps.get(source) != stamps.get(source) for source in stored_stamps.keys() | stamps.keys())

    def contents(self) -> list[FileContent]:
        """Returns all files, in the order of their names."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT source, text, locations, tables, is_table FROM files WHERE code = '' ORDER BY source"
            )
            return [
                FileContent(
                    Document(source=source, text=text, locations=_locations(locations)), _tables(tables), bool(is_table)
                )
                for source, text, locations, tables, is_table in rows
            ]

    def tables(self, sources: Sequence[str]) -> list[Table]:
        """Returns the tables of some files."""
        tables: list[Table] = []
        with self._open() as connection:
            for source in sources:
                row = connection.execute("SELECT tables FROM files WHERE source = ?", (source,)).fetchone()
                tables += _tables(row[0]) if row is not None else ()
        return tables

    def search(self, query: str, top: int = 5, embedder: Embedder | None = None) -> list[Passage]:
        """Returns the passages that answer a query best, the best first.

        With an embedder whose vectors the index has, two rankings are fused: BM25 and the similarity of vectors.
        Without one only passages are returned that share a word with the query.
        """
        from orchestra.documents.postings import Postings, best
        from orchestra.documents.vectors import VectorStore

        with self._open() as connection:
            arrays = self.store / _meta(connection, "arrays")
            count = int(_meta(connection, "passages") or 0)
            if not count or top < 1:
                return []
            numbers = [
                row[0]
                for term in dict.fromkeys(index_terms(query))
                if (row := connection.execute("SELECT number FROM terms WHERE term = ?", (term,)).fetchone())
            ]
            scores = Postings(arrays).scores(numbers, count)
            if embedder is None or _meta(connection, "encoder") != embedder.name:
                ranked_passages = [(at, float(scores[at])) for at in best(scores, top)]
            else:
                vector = embedder.embed(query)
                nearest = VectorStore(arrays, len(vector)).nearest(vector, max(top, CANDIDATES))
                ranked_passages = fuse_rankings([best(scores, max(top, CANDIDATES)), nearest])[:top]
            return _passages(connection, ranked_passages)

    @contextmanager
    def _open(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.store / DATABASE, timeout=30, isolation_level=None)) as connection:
            if create:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.executescript(_SCHEMA)
                yield connection
                return
            connection.execute("BEGIN")  # all reads see one state
            try:
                yield connection
            finally:
                connection.rollback()

    def _read_files(self, connection: sqlite3.Connection, options: IndexOptions, report: UpdateReport) -> bool:
        """Reads what has changed. Returns whether anything has."""
        rows = {row[0]: row[1:] for row in connection.execute("SELECT source, time, size, digest, code FROM files")}
        numbers = dict(connection.execute("SELECT term, number FROM terms"))
        files = list(find_files(self.folder, MAX_FILES))
        with FileReader(options.limits) as reader:
            for at, file in enumerate(files, 1):
                stored_row = rows.pop(file.source, None)
                stamp = _stamp(file.path)
                if stored_row is not None and stored_row[:2] == stamp and stored_row[3] not in RETRIED:
                    report.unchanged += 1
                    continue
                digest = _digest(file.path)
                if stored_row is not None and stored_row[2] == digest and stored_row[3] not in RETRIED:
                    connection.execute("UPDATE files SET time = ?, size = ? WHERE source = ?", (*stamp, file.source))
                    report.unchanged += 1
                    continue
                options.progress(f"reading {at} of {len(files)}: {file.source}")
                _store(connection, file, (*stamp, digest), reader, numbers)
                report.read += 1
        connection.executemany("DELETE FROM files WHERE source = ?", [(source,) for source in rows])
        report.removed = len(rows)
        return bool(report.read or report.removed)

    def _write_arrays(self, connection: sqlite3.Connection) -> None:
        """Writes the arrays of all files into a new folder, and names it in the database."""
        from orchestra.documents.postings import TermCounts, write_postings
        from orchestra.documents.vectors import write_vectors

        name = f"{ARRAYS}-{time.time_ns()}"
        (self.store / name).mkdir()
        query = "SELECT source, passages, counts, encoder FROM files WHERE passages > 0 ORDER BY source"
        rows = connection.execute(query).fetchall()
        vocabulary = connection.execute("SELECT count(*) FROM terms").fetchone()[0]
        write_postings(self.store / name, (TermCounts.from_bytes(row[2]) for row in rows), vocabulary)
        encoders = {row[3] for row in rows} - {""}
        encoder = encoders.pop() if len(encoders) == 1 else ""
        if encoder:
            write_vectors(self.store / name, _stored_vectors(connection, encoder), _width(connection))
        first = 0
        with _transaction(connection):
            for source, passages, *_ in rows:
                connection.execute("UPDATE files SET first = ? WHERE source = ?", (first, source))
                first += passages
            values = {
                "format": FORMAT,
                "arrays": name,
                "passages": str(first),
                "encoder": encoder,
                "encoded": str(_count_encoded(connection)),
            }
            connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def _remove_old_arrays(self, current: str) -> None:
        """Removes the arrays of earlier updates, and of interrupted ones."""
        for folder in self.store.glob(f"{ARRAYS}-*"):
            if folder.name != current:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(store: Path, folder: Path) -> Iterator[None]:
    """Raises `InputError` D009 if another process holds the lock."""
    with (store / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                "D009", f"the index of {folder} is being updated by another process", hint="wait until it has ended"
            ) from error
        yield


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction, or a part of the one that has begun."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _meta(connection: sqlite3.Connection, key: str) -> str:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return "" if row is None else str(row[0])


def _stamp(path: Path) -> tuple[int, int]:
    """Returns the time of the last change in nanoseconds, and the size in bytes."""
    try:
        stat_result = path.stat()
    except OSError:
        return 0, 0
    return stat_result.st_mtime_ns, stat_result.st_size


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _store(
    connection: sqlite3.Connection,
    file: FoundFile,
    stamp: tuple[int, int, str],
    reader: FileReader,
    numbers: dict[str, int],
) -> None:
    """Reads a file and stores its content, or its error."""
    import numpy as np

    from orchestra.documents.postings import count_terms

    try:
        content = reader.read(file)
    except InputError as error:
        connection.execute(
            "INSERT OR REPLACE INTO files (source, time, size, digest, code, reason, hint)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (file.source, *stamp, error.code, error.message, error.hint),
        )
        return
    document = content.document
    passages = split_passages([document])
    spans = np.array([(passage.start, passage.end) for passage in passages], np.uint32)
    before = len(numbers)
    counts = count_terms([passage.text for passage in passages], numbers)
    with _transaction(connection):
        new = list(numbers.items())[before:]
        connection.executemany("INSERT OR REPLACE INTO terms VALUES (?, ?)", new)
        connection.execute(
            "INSERT OR REPLACE INTO files (source, time, size, digest, is_table, passages, characters, spans, counts,"
            " locations, tables, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                file.source,
                *stamp,
                content.is_table,
                len(passages),
                len(document.text),
                spans.tobytes(),
                counts.to_bytes(),
                json.dumps([(location.start, location.name) for location in document.locations]),
                json.dumps([table.model_dump(mode="json") for table in content.tables]),
                document.text,
            ),
        )


def _encode(connection: sqlite3.Connection, options: IndexOptions, report: UpdateReport) -> None:
    """Encodes the passages of files without vectors of this embedder, and stores those of each file at once."""
    from orchestra.documents.vectors import quantize

    embedder = options.embedder
    if embedder is None:
        return
    query = "SELECT source, passages FROM files WHERE passages > 0 AND encoder != ? ORDER BY source"
    files = connection.execute(query, (embedder.name,)).fetchall()
    total, encoded_count = sum(passages for _, passages in files), 0
    for source, _ in files:
        text, spans = connection.execute("SELECT text, spans FROM files WHERE source = ?", (source,)).fetchone()
        vectors = []
        for start, end in _spans(spans):
            vectors.append(embedder.embed(text[start:end]))
            encoded_count += 1
            if encoded_count % 100 == 0:
                options.progress(f"encoding passage {encoded_count} of {total}")
        data = quantize(vectors).tobytes()
        connection.execute("UPDATE files SET vectors = ?, encoder = ? WHERE source = ?", (data, embedder.name, source))
    report.encoded = encoded_count


def _count_encoded(connection: sqlite3.Connection) -> int:
    """Returns how many passages have a vector."""
    row = connection.execute("SELECT coalesce(sum(passages), 0) FROM files WHERE encoder != ''").fetchone()
    return int(row[0])


def _stored_vectors(connection: sqlite3.Connection, encoder: str) -> Iterator[NDArray[numpy.int8]]:
    import numpy as np

    width = _width(connection)
    rows = connection.execute("SELECT passages, vectors, encoder FROM files WHERE passages > 0 ORDER BY source")
    for passages, data, name in rows:
        if name == encoder:
            yield np.frombuffer(data, np.int8).reshape(passages, width)
        else:
            yield np.zeros((passages, width), np.int8)


def _width(connection: sqlite3.Connection) -> int:
    query = "SELECT length(vectors) / passages FROM files WHERE encoder != '' AND passages > 0 LIMIT 1"
    row = connection.execute(query).fetchone()
    return 0 if row is None else int(row[0])


def _spans(data: bytes) -> list[tuple[int, int]]:
    import numpy as np

    return [(int(start), int(end)) for start, end in np.frombuffer(data, np.uint32).reshape(-1, 2)]


def _passages(connection: sqlite3.Connection, ranked_passages: Sequence[tuple[int, float]]) -> list[Passage]:
    """Returns the passages of these numbers with their scores."""
    passages: list[Passage] = []
    files: dict[str, tuple[Any, ...]] = {}
    for at, score in ranked_passages:
        source, first = connection.execute(
            "SELECT source, first FROM files WHERE first <= ? AND passages > 0 ORDER BY first DESC LIMIT 1", (at,)
        ).fetchone()
        if source not in files:
            query = "SELECT spans, locations FROM files WHERE source = ?"
            spans, locations = connection.execute(query, (source,)).fetchone()
            files[source] = (_spans(spans), _locations(locations))
        known_spans, known_locations = files[source]
        start, end = known_spans[at - first]
        text = connection.execute(
            "SELECT substr(text, ?, ?) FROM files WHERE source = ?", (start + 1, end - start, source)
        ).fetchone()[0]
        passages.append(
            Passage(
                source=source,
                text=text,
                start=start,
                end=end,
                score=round(score, 6),
                locations=locations_in(known_locations, start, end),
            )
        )
    return passages


def _locations(text: str) -> list[Location]:
    return [Location(start=start, name=name) for start, name in json.loads(text)]


def _tables(text: str) -> tuple[Table, ...]:
    return tuple(Table.model_validate(table) for table in json.loads(text))
