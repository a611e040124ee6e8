"""Reading of files and folders as documents and tables. A file that cannot be read does not stop the others."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestra.core.errors import InputError
from orchestra.documents.builder import FileContent
from orchestra.documents.errors import DocumentError
from orchestra.documents.reader_process import ProcessLimits, ReaderProcess
from orchestra.documents.readers import READERS, TEXT_READER, reader_for
from orchestra.schema.builtin_models import Document, Table

MAX_FILES = 10_000
MAX_FILE_BYTES = 256 << 20
"""Maximum bytes of a file."""


@dataclass(frozen=True, slots=True)
class FileFailure:
    """A file that could not be read: its error."""

    source: str
    code: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What some files contain."""

    contents: Sequence[FileContent] = ()
    failures: Sequence[FileFailure] = ()

    @property
    def documents(self) -> list[Document]:
        """The texts of the files, in order. Files that are only tables count if there is another file."""
        texts = [content for content in self.contents if not content.is_table]
        return [content.document for content in (self.contents if texts else ())]

    @property
    def tables(self) -> list[Table]:
        """The tables of the files, in order."""
        return [table for content in self.contents for table in content.tables]


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file, and its name in documents."""

    path: Path
    source: str


@dataclass
class FileReader:
    """Reads files one by one; those of complicated formats in a process of their own, which ends with the context."""

    limits: ProcessLimits = field(default_factory=ProcessLimits)

    def __post_init__(self) -> None:
        self._process = ReaderProcess(self.limits)

    def __enter__(self) -> FileReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def read(self, file: FoundFile) -> FileContent:
        """Reads a file.

        Raises:
            DocumentError: D001 to D007.
            InputError: C014 if it cannot be opened.
        """
        reader = reader_for(file.path)
        try:
            if file.path.is_file() and file.path.stat().st_size > MAX_FILE_BYTES:
                raise DocumentError("D005", f"{file.source} is larger than {MAX_FILE_BYTES >> 20} MiB", hint="split it")
            if reader is None:
                return _read_unknown(file)
            if reader.isolated:
                file.path.open("rb").close()
                return self._process.read(file.path, file.source)
            return reader.read(file.path, file.source)
        except OSError as error:
            raise InputError(
                "C014",
                f"{file.path} cannot be read: {error.strerror}",
                hint=f"write @@{file.path} for a text that starts with @",
            ) from error


def read_files(paths: Iterable[Path], limits: ProcessLimits | None = None) -> ReadResult:
    """Reads files and folders.

    A folder's files are read at any depth, in the order of their names, without hidden ones. A file that cannot be read
    is among the failures.

    Raises:
        InputError: C014 for a path that does not exist, a folder without a file or with too many, or a link out of it;
            the error of the file if there is no other.
    """
    path_list = list(paths)
    files = [file for path in path_list for file in find_files(path)]
    contents: list[FileContent] = []
    failures: list[FileFailure] = []
    errors: list[InputError] = []
    with FileReader(limits or ProcessLimits()) as reader:
        for file in _distinct(files):
            try:
                contents.append(reader.read(file))
            except InputError as error:
                errors.append(error)
                failures.append(FileFailure(file.source, error.code, error.message, error.hint))
    if errors and not contents:
        raise errors[0]
    return ReadResult(contents, failures)


def find_files(path: Path, limit: int = MAX_FILES) -> Iterator[FoundFile]:
    """Yields the files of a folder in order, or a file itself.

    Raises:
        InputError: C014 for a folder without a file or with too many, or a link that leads out of it.
    """
    if not os.path.isdir(path):  # also false for a name that is too long
        yield FoundFile(path, str(path) if path.parts[:2] == ("/", "dev") else path.name)
        return
    root = path.resolve()
    files = sorted(
        file
        for file in path.rglob("*")
        if not any(part.startswith(".") for part in file.relative_to(path).parts) and file.is_file()
    )
    if not any(reader_for(file) for file in files):
        kinds = ", ".join(READERS)
        raise InputError("C014", f"{path} has no file that can be read", hint=f"the formats are {kinds}")
    if len(files) > limit:
        hint = "orchestra index FOLDER" if limit == MAX_FILES else ""
        raise InputError("C014", f"{path} has {len(files)} files; the maximum is {limit}", hint=hint)
    if outside := next((file for file in files if not file.resolve().is_relative_to(root)), None):
        raise InputError("C014", f"{outside} is a link to a file outside {path}", hint="copy the file into the folder")
    yield from (FoundFile(file, file.relative_to(path).as_posix()) for file in files)


def _distinct(files: Sequence[FoundFile]) -> Iterator[FoundFile]:
    """Yields the files with names that are unique: one that is taken is replaced by the path."""
    taken_names: set[str] = set()
    for file in files:
        source = file.source if file.source not in taken_names else str(file.path)
        taken_names.add(source)
        yield FoundFile(file.path, source)


def _read_unknown(file: FoundFile) -> FileContent:
    """Reads a file without a known suffix as text, unless it is none."""
    try:
        return TEXT_READER.read(file.path, file.source)
    except DocumentError as error:
        if error.code != "D003":
            raise
        raise DocumentError(
            "D001", f"{file.source}: this format is not known", hint=f"the formats are {', '.join(READERS)}"
        ) from error
