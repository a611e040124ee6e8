"""Rows of a batch: reads and validates the input with locations, and writes results in order so that a batch can be
resumed.
"""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, cast

import msgspec

from orchestra.cli.output import print_note
from orchestra.cli.signals import interruptible
from orchestra.core.errors import InputError, InputErrors, OrchestraError, SourceLocation
from orchestra.core.events import NO_USAGE, Usage
from orchestra.core.file_locks import lock_file
from orchestra.core.outcomes import Evidence
from orchestra.core.suggestions import closest_match
from orchestra.learn.data.sources import is_table, parse_cell, read_lines
from orchestra.schema.strict_json import (
    MAX_BYTES,
    JsonDecodingError,
    StrictJsonError,
    canonical,
    decode_json,
    digest,
    parse_untrusted,
)
from orchestra.workflows.program import InputField
from orchestra.workflows.python.checks import AcceptThreshold

LOCKING_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""Errors of file systems without locks."""

MAX_ERRORS = 20
"""The maximum number of reported errors of a file."""
MAX_BLANK_LINES = 100_000
"""The maximum number of blank lines: a small compressed file may contain more than can be read in reasonable time."""


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One line of the input. Keys other than `id` and `input`, such as `expected`, are never read."""

    id: str
    input: dict[str, Any]
    line: int
    accept: AcceptThreshold | None = None
    """The acceptance of its whole output; None for that of the workflow."""
    cells: Mapping[str, str] | None = None
    """The cells of a row of a table, also of columns that are no inputs."""

    @property
    def digest(self) -> str:
        """The digest of the input and of its acceptance."""
        return digest(canonical(self.input if self.accept is None else [self.input, self.accept]))


class RowResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the output. `error` is null, or the reason for the missing output."""

    id: str
    output: Any = None
    abstained: bool = False
    score: float | None = None
    evidence: tuple[Evidence, ...] = ()
    usage: Usage = NO_USAGE
    error: dict[str, str] | None = None
    waiting: str | None = None
    """The run that waits for an answer of a person: `orchestra runs answer RUN`."""
    inputs: str | None = None
    """The digest of the row's input; null in older files."""

    @property
    def failed(self) -> bool:
        """True without an output, unless it was withheld or waits for a person."""
        return self.error is not None and not self.abstained and self.waiting is None

    @property
    def status(self) -> str:
        """One word for it: `done`, `abstained`, `failed` or `waiting`."""
        return (
            "waiting"
            if self.waiting is not None
            else "abstained"
            if self.abstained
            else "failed"
            if self.failed
            else "done"
        )


@contextmanager
def rereadable_file(path: Path) -> Iterator[Path]:
    """Yields a file that can be read several times: `path` itself, or a copy of a pipe.

    Raises `InputError` C014 if a pipe cannot be read to its end or copied.
    """
    under_dev = path.parts[:2] == (
        "/",
        "dev",
    )  # some systems continue /dev/stdin where the last read stopped, for any file
    if os.path.isdir(path) or not os.path.exists(path) or (os.path.isfile(path) and not under_dev):  # these never raise
        yield path
        return
    with TemporaryDirectory(prefix="orchestra-") as folder:
        copy = Path(folder) / path.name
        try:
            with interruptible(), path.open("rb") as pipe, copy.open("wb") as file:
                shutil.copyfileobj(pipe, file)
        except OSError as error:
            hint = "rows are read several times: save them to a file, and pass that"
            raise InputError("C014", f"{path} cannot be read: {error.strerror or error}", hint=hint) from error
        yield copy


def read_rows(
    path: Path,
    name: str = "",
    fields: Mapping[str, InputField] | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Iterator[BatchRow]:
    """Reads the rows of a `.jsonl` or `.jsonl.gz` file, or of a table with the columns `fields`, one by one.

    `name` is the name for the user, if it is not the path. `warn` is called for ignored columns that resemble an input.
    Raises `InputError` C014 for an unreadable file, N010 for an unreadable table, and C020 with the location of a bad
    row.
    """
    name = name or str(path)
    try:
        with _open_rows(path) as file:
            if is_table(path):
                yield from _read_table(path, name, fields or {}, warn)
                return
            number = blank = 0
            while raw := file.readline(MAX_BYTES + 2):
                number += 1
                if raw.strip():
                    yield _parse_row(name, number, raw)
                elif (blank := blank + 1) > MAX_BLANK_LINES:
                    hint = "remove the blank lines: grep -v '^ *$'"
                    raise InputError(
                        "C020",
                        f"more than {MAX_BLANK_LINES:,} blank lines",
                        location=SourceLocation(name, number),
                        hint=hint,
                    )
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError("C014", f"{name} cannot be read: {reason}") from error


def _read_table(
    path: Path, name: str, fields: Mapping[str, InputField], warn: Callable[[str], None]
) -> Iterator[BatchRow]:
    """Reads the rows of a table. Its columns are inputs, and cells are parsed by type; an empty cell omits an optional
    input. Ids come from the column `id`, otherwise they are row numbers.
    """
    for number, line in enumerate(
        read_lines(path, Path(name), lambda columns: _check_columns(columns, name, fields, warn)), 1
    ):
        cells = {field: line.values[field] for field in fields if field in line.values}
        values = {
            field: parse_cell(cell, fields[field].schema)
            for field, cell in cells.items()
            if cell or fields[field].required
        }
        yield BatchRow(line.values.get("id") or str(number), values, line.number, cells=line.values)


def _check_columns(
    columns: Sequence[str], name: str, fields: Mapping[str, InputField], warn: Callable[[str], None]
) -> None:
    """Warns about a column that resembles an optional input. Raises `InputError` C020 for a required one."""
    unknown_columns = [column for column in columns if column not in fields and column != "id"]
    for field in (field for field in fields if field not in columns):
        near = closest_match(field, unknown_columns)
        if fields[field].required:
            hint = f"did you mean {near!r}? call it {field}" if near else f"columns: {', '.join(list(columns)[:12])}"
            raise InputError(
                "C020",
                f"there is no column {field!r} for the input {field!r}",
                location=SourceLocation(name, 1),
                hint=hint,
            )
        if near:
            warn(f"{name}: the column {near!r} is ignored; rename it for the input {field!r}")


def scan_rows(
    path: Path,
    check: Callable[[dict[str, Any]], str | None],
    name: str = "",
    fields: Mapping[str, InputField] | None = None,
    accept: AcceptThreshold | None = None,
) -> Mapping[str, str]:
    """Checks all rows before anything starts. Returns their ids in order, with digests of their inputs and of `accept`.

    `check` returns the error of an input, or None. Raises `InputErrors`: C020 for a bad row, C021 for a duplicate id.
    """
    name = name or str(path)
    line_numbers: dict[str, int] = {}
    digests: dict[str, str] = {}
    errors: list[InputError] = []
    for row in read_rows(path, name, fields, print_note):
        location = SourceLocation(name, row.line)
        if row.id in line_numbers:
            hint = f"it is also in line {line_numbers[row.id]}; ids must be unique"
            errors.append(InputError("C021", f"the id {row.id!r} is not unique", location=location, hint=hint))
        elif problem := check(row.input):
            hint = f"the inputs are {_describe_inputs(fields)}" if fields else "correct the row"
            errors.append(InputError("C020", f"row {row.id!r}: {problem}", location=location, hint=hint))
        line_numbers.setdefault(row.id, row.line)
        digests[row.id] = replace(row, accept=accept).digest
        if len(errors) >= MAX_ERRORS:
            break
    if errors:
        raise InputErrors(errors)
    return digests


def _describe_inputs(fields: Mapping[str, InputField]) -> str:
    return ", ".join(name if field.required else f"{name} (optional)" for name, field in list(fields.items())[:12])


def reread_rows(
    path: Path,
    ids: Collection[str],
    name: str = "",
    fields: Mapping[str, InputField] | None = None,
    accept: AcceptThreshold | None = None,
) -> Iterator[BatchRow]:
    """Reads the rows again after a scan. Raises the errors of `read_rows`, and `InputError` C014 if the rows have
    changed.
    """
    expected = iter(ids)
    for row in read_rows(path, name, fields):
        if row.id != next(expected, None):
            raise _rows_changed_error(name or str(path))
        yield replace(row, accept=accept)
    if next(expected, None) is not None:
        raise _rows_changed_error(name or str(path))


def _rows_changed_error(name: str) -> InputError:
    hint = "written results are kept; repeat the command when the file no longer changes"
    return InputError("C014", f"{name} has changed since the start", hint=hint)


def _open_rows(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _parse_row(name: str, number: int, raw: bytes) -> BatchRow:
    location = SourceLocation(name, number)
    hint = 'a row is {"id": "…", "input": {…}}'
    if len(raw) > MAX_BYTES:
        raise InputError("C020", "a row of more than 1 MiB", location=location, hint="split it into several rows")
    try:
        value = parse_untrusted(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
    except (StrictJsonError, UnicodeDecodeError) as error:
        raise InputError("C020", f"a row that is not JSON: {error}", location=location, hint=hint) from error
    if not isinstance(value, dict):
        raise InputError("C020", "a row that is not a JSON object", location=location, hint=hint)
    if not isinstance(value.get("id"), str) or not value["id"]:
        raise InputError("C020", "a row without an id, which must be a text", location=location, hint=hint)
    if not isinstance(value.get("input"), dict):
        raise InputError(
            "C020", f"row {value['id']!r} without an input, which must be an object", location=location, hint=hint
        )
    return BatchRow(value["id"], value["input"], number)


class ResultFile:
    """The output file. Existing results are kept; an incomplete last line, left by a crash, is removed.

    It is locked until `close`: two batches would run every row twice.

    Raises:
        InputError: C022 if the file contains anything but one result for each of the rows `ids` with the current input;
        C014 if it cannot be
            read. The file is not changed then.
        OrchestraError: C023 if it cannot be written, or another batch has locked it.
    """

    def __init__(self, path: Path, ids: Mapping[str, str]) -> None:
        self.path = path
        self.done: set[str] = set()
        self.waiting: dict[str, RowResult] = {}
        """Written rows whose runs waited for a person."""
        self.failed: set[str] = set()
        """Written rows that failed."""
        self._ids = ids
        self.repaired = False
        self.changed = False
        """Whether results were written since it was opened."""
        with _open_existing(path):
            pass
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "a+b")
        except OSError as error:
            raise unwritable_error(path, error) from error
        try:
            self._lock_and_load()
        except BaseException:
            self._file.close()
            raise

    def _lock_and_load(self) -> None:
        """Locks the file before reading it: its last line may be one that another batch is writing."""
        try:
            lock_file(self._file.fileno())
            is_same_file = os.path.samestat(
                os.fstat(self._file.fileno()), self.path.stat()
            )  # otherwise another batch has replaced the file
        except OSError as error:
            is_same_file = error.errno in LOCKING_UNSUPPORTED
        if not is_same_file:
            hint = "wait until it has ended, or choose another file with --output"
            raise OrchestraError("C023", f"another batch is writing {self.path}", hint=hint)
        end = self._load_existing()
        try:
            self.repaired = self._file.seek(0, os.SEEK_END) > end
            if self.repaired:  # otherwise the time of its last change stays
                self._file.truncate(end)
        except OSError as error:
            raise unwritable_error(self.path, error) from error

    def _load_existing(self) -> int:
        """Collects the ids; returns the length of all complete lines in bytes."""
        end, errors = 0, list[InputError]()
        try:
            self._file.seek(0)
            for number, raw in enumerate(self._file, 1):
                if not raw.endswith(b"\n"):
                    break
                result = self._parse_result(raw, number)
                if result.inputs is not None and result.inputs != self._ids[result.id]:
                    errors.append(self._input_changed_error(result.id, number))
                self._add(result)
                end += len(raw)
        except OSError as error:
            raise _unreadable_error(self.path, error) from error
        if errors:
            raise InputErrors(errors[:MAX_ERRORS])
        return end

    def _input_changed_error(self, row: str, number: int) -> InputError:
        message = f"the result of {row!r} belongs to another input of the row, or to another --accept"
        hint = "remove this line to run the row again, or choose another file with --output"
        return InputError("C022", message, location=SourceLocation(str(self.path), number), hint=hint)

    def _add(self, result: RowResult) -> None:
        self.done.add(result.id)
        if result.waiting is not None:
            self.waiting[result.id] = result
        elif result.failed:
            self.failed.add(result.id)

    def _parse_result(self, raw: bytes, number: int) -> RowResult:
        location, hint = SourceLocation(str(self.path), number), "choose another file with --output, or move this one"
        try:
            result = decode_json(raw, RowResult)
        except JsonDecodingError as error:
            raise InputError("C022", f"a line that is not a result: {error}", location=location, hint=hint) from error
        if result.id not in self._ids:
            raise InputError(
                "C022", f"a result for {result.id!r}, which is not a row of the input", location=location, hint=hint
            )
        if result.id in self.done:
            hint = "keep one of its lines, or choose another file with --output"
            raise InputError("C022", f"a second result for {result.id!r}", location=location, hint=hint)
        return result

    def write(self, result: RowResult) -> None:
        """Appends a result with one write."""
        self.changed = True
        try:
            self._file.write(_encode(result) + b"\n")
            self._file.flush()
        except OSError as error:
            raise unwritable_error(self.path, error) from error

    def index(self) -> Callable[[str], RowResult | None]:
        """Returns a function that reads the result of a row by its id; None if it has none.

        Only offsets are kept in memory. The function is valid until the next write.
        """
        offsets: dict[str, int] = {}
        end = 0
        self._file.seek(0)
        for raw in self._file:
            offsets[_decode(raw).id] = end
            end += len(raw)

        def read(row: str) -> RowResult | None:
            if (offset := offsets.get(row)) is None:
                return None
            self._file.seek(offset)
            return _decode(self._file.readline())

        return read

    def sync(self) -> None:
        """Syncs written results to disk. Raises `OrchestraError` C023."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise unwritable_error(self.path, error) from error

    def replace(self, results: Mapping[str, RowResult]) -> None:
        """Replaces results of existing rows atomically: a crash leaves the old file.

        Raises `OrchestraError` C023 if the folder does not allow it; the file is unchanged then.
        """
        self.changed = True
        path = self.path.resolve()
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b") as file:
                self._file.seek(0)
                for raw in self._file:
                    result = results.get(_decode(raw).id)
                    file.write(raw if result is None else _encode(result) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            shutil.copymode(path, partial)
            fresh = partial.open("a+b")
            with suppress(OSError):  # without locks, the first one was not acquired either
                lock_file(fresh.fileno())
            partial.replace(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise unwritable_error(self.path, error) from error
        self._file.close()
        self._file = fresh

    def close(self) -> None:
        """Syncs everything to disk and closes the file."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise unwritable_error(self.path, error) from error


def check_files(source: Path, target: Path, name: str = "") -> None:
    """Checks both files before a fleet is started: the first row, and whether results can be appended.

    Raises `InputError` C014 and C020, and `OrchestraError` C023.
    """
    next(read_rows(source, name), None)
    with _open_existing(target):
        pass


def _open_existing(path: Path) -> IO[bytes]:
    """Opens existing results for reading; empty without a file."""
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return BytesIO()
    except PermissionError as error:
        raise _unreadable_error(path, error) from error
    except OSError as error:
        raise unwritable_error(path, error) from error


def _unreadable_error(path: Path, error: OSError) -> InputError:
    hint = "results are appended to existing ones: choose another file with --output"
    return InputError("C014", f"{path} cannot be read: {error.strerror or error}", hint=hint)


def unwritable_error(path: Path, error: OSError) -> OrchestraError:
    """The error C023 for an output that cannot be written."""
    hint = "free some disk space, or choose another --output; then repeat the command, which resumes the batch"
    return OrchestraError("C023", f"{path} cannot be written: {error.strerror or error}", hint=hint)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(RowResult).decode
