"""Strict parsing of rows, and results resumed after a crash at any byte."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.cli.output import check_replaceable
from orchestra.cli.run.batch_rows import MAX_ERRORS, ResultFile, RowResult, check_files, read_rows, scan_rows
from orchestra.core.errors import InputError, InputErrors, OrchestraError


def written(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_extra_keys_are_not_read(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", '{"id": "a", "input": {"q": 1}, "expected": {"answer": 42}}')
    assert [(row.id, row.input, row.line) for row in read_rows(path)] == [("a", {"q": 1}, 1)]


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": "a", "input": {}}\n'))
    assert [row.id for row in read_rows(path)] == ["a"]


def test_a_small_file_of_empty_lines_is_not_read_for_minutes(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n" * 200_000))
    with pytest.raises(InputError, match="more than 100,000 blank lines") as refused:
        list(read_rows(path))
    assert refused.value.code == "C020"


def test_results_are_for_their_owner_only(tmp_path: Path) -> None:
    results = ResultFile(tmp_path / "out.jsonl", {})
    results.close()
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o600


def _other_checksum(data: bytes) -> bytes:
    return data[:-8] + bytes(4) + data[-4:]


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (lambda data: data[:10] + b"\xff" * 20, "invalid block type"),
        (_other_checksum, "CRC check failed"),
        (lambda data: data[:-9], "end-of-stream"),
        (lambda data: b"no gzip", "Not a gzipped file"),
    ],
    ids=["block", "checksum", "cut", "other"],
)
def test_a_damaged_compressed_file_is_refused_with_the_reason(
    tmp_path: Path, damaged: Callable[[bytes], bytes], reason: str
) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(damaged(gzip.compress(b'{"id": "a", "input": {}}\n')))
    with pytest.raises(InputError, match=reason) as caught:
        list(read_rows(path))
    assert caught.value.code == "C014"


def test_empty_lines_count_but_are_no_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", "", '{"id": "a", "input": {}}', "  ")
    assert [(row.id, row.line) for row in read_rows(path)] == [("a", 2)]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "null",
        '{"input": {}}',
        '{"id": 3, "input": {}}',
        '{"id": "", "input": {}}',
        '{"id": "x"}',
        '{"id": "x", "input": []}',
        '{"id": "x", "id": "y", "input": {}}',
        '{"id": "x", "input": {"n": NaN}}',
        '{"id": "x", "input": {"long": "' + "y" * (1 << 20) + '"}}',
    ],
    ids=lambda line: line[:30],
)
def test_a_bad_row_is_located(tmp_path: Path, line: str) -> None:
    path = written(tmp_path / "rows.jsonl", '{"id": "a", "input": {}}', line)
    with pytest.raises(InputError) as caught:
        list(read_rows(path))
    assert caught.value.code == "C020"
    assert str(caught.value.location) == f"{path}:2:1"
    assert caught.value.hint


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", *(f'{{"id": "{name}", "input": {{}}}}' for name in "aba"))
    with pytest.raises(InputErrors) as caught:
        scan_rows(path, lambda _: None)
    (error,) = caught.value.errors
    assert (error.code, error.location and error.location.line, "line 1" in error.hint) == ("C021", 3, True)


def test_inputs_of_the_wrong_type_are_told_together_up_to_a_limit(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", *(f'{{"id": "{n}", "input": {{}}}}' for n in range(MAX_ERRORS + 5)))
    with pytest.raises(InputErrors) as caught:
        scan_rows(path, lambda _: "the field 'q' is missing")
    assert [error.location and error.location.line for error in caught.value.errors] == list(range(1, MAX_ERRORS + 1))


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        scan_rows(tmp_path / "absent.jsonl", lambda _: None)
    assert caught.value.code == "C014"


IDS = {"a": "1", "b": "2", "c": "3"}


def write_all(path: Path, ids: list[str]) -> ResultFile:
    results = ResultFile(path, IDS)
    for name in ids:
        if name not in results.done:
            results.write(RowResult(id=name, output={"text": f"über {name}"}))
    results.close()
    return results


@settings(deadline=None)
@given(cut=st.integers(min_value=0, max_value=400))
def test_a_file_cut_at_any_byte_is_repaired(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("results") / "out.jsonl"
    write_all(path, list(IDS))
    whole = path.read_bytes()
    torn = whole[: min(cut, len(whole))]
    path.write_bytes(torn)
    results = write_all(path, list(IDS))
    assert path.read_bytes() == whole
    assert results.repaired == (bool(torn) and not torn.endswith(b"\n"))


def test_a_result_has_all_its_keys(tmp_path: Path) -> None:
    write_all(tmp_path / "out.jsonl", ["a"])
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert list(json.loads(line)) == [
        "id",
        "output",
        "abstained",
        "score",
        "evidence",
        "usage",
        "error",
        "waiting",
        "inputs",
    ]


@pytest.mark.parametrize(
    "text", ["hello\n", '{"id": "a", "input": {}}\n', "\x00\n", '{"id": "d"}\n', '{"id": "d"}\n{"id": "a']
)
def test_a_file_with_other_things_is_never_touched(tmp_path: Path, text: str) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        ResultFile(path, IDS)
    assert (caught.value.code, path.read_text()) == ("C022", text)


def test_results_belong_to_one_batch_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    first = ResultFile(path, IDS)
    first.write(RowResult(id="a"))
    with path.open("ab") as file:
        file.write(b'{"id": "b", "out')  # the part of the first one's line that is on disk
    before = path.read_bytes()
    with pytest.raises(OrchestraError, match="another batch is writing") as caught:
        ResultFile(path, IDS)
    assert (caught.value.code, path.read_bytes()) == ("C023", before)
    first.close()
    second = ResultFile(path, IDS)
    second.close()
    assert (second.done, second.repaired) == ({"a"}, True)


def test_a_refused_file_is_let_go_of(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", "hello")
    with pytest.raises(InputError):
        ResultFile(path, IDS)
    path.write_text("")
    ResultFile(path, IDS).close()


@pytest.mark.parametrize(("number", "refused"), [(errno.ENOLCK, False), (errno.EWOULDBLOCK, True)])
def test_a_file_system_without_locks_is_no_reason_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, refused: bool
) -> None:
    def hold(descriptor: int) -> None:
        raise OSError(number, "said by the file system")

    monkeypatch.setattr("orchestra.cli.run.batch_rows.lock_file", hold)
    with pytest.raises(OrchestraError) if refused else contextlib.nullcontext():
        ResultFile(tmp_path / "out.jsonl", IDS).close()


def test_a_row_with_two_results_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", '{"id": "a"}', '{"id": "b"}', '{"id": "a"}')
    before = path.read_bytes()
    with pytest.raises(InputError, match="a second result for 'a'") as caught:
        ResultFile(path, IDS)
    assert (caught.value.code, caught.value.location and caught.value.location.line, path.read_bytes()) == (
        "C022",
        3,
        before,
    )


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match="cannot be written") as caught:
        ResultFile(tmp_path / "file" / "out.jsonl", IDS)
    assert getattr(caught.value, "code", "") == "C023"


@pytest.mark.parametrize(("name", "code"), [("folder", "C023"), ("n" * 300, "C023"), ("closed", "C014")])
def test_results_that_cannot_be_taken_up_are_told_before_anything_starts(
    tmp_path: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    rows, opened = written(tmp_path / "rows.jsonl", '{"id": "a", "input": {}}'), Path.open

    def guarded(path: Path, *arguments: Any, **named: Any) -> IO[Any]:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        file: IO[Any] = opened(path, *arguments, **named)
        return file

    monkeypatch.setattr(Path, "open", guarded)
    for take_up in (lambda: check_files(rows, tmp_path / name), lambda: ResultFile(tmp_path / name, IDS)):
        with pytest.raises(OrchestraError) as caught:
            take_up()
        assert caught.value.code == code


@pytest.mark.parametrize(("rows", "code"), [("absent.jsonl", "C014"), ("bad.jsonl", "C020")])
def test_a_look_at_rows_that_are_none_is_enough(tmp_path: Path, rows: str, code: str) -> None:
    written(tmp_path / "bad.jsonl", "{")
    with pytest.raises(InputError) as caught:
        check_files(tmp_path / rows, tmp_path / "out.jsonl")
    assert caught.value.code == code
    assert not (tmp_path / "out.jsonl").exists()


def test_result_file_replaced_by_another_batch_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / "out.jsonl", tmp_path / "other.jsonl"
    other.touch()
    monkeypatch.setattr(
        "orchestra.cli.run.batch_rows.lock_file", lambda descriptor: other.replace(path)
    )  # between opening and locking
    with pytest.raises(OrchestraError) as caught:
        ResultFile(path, IDS)
    assert (caught.value.code, "another batch" in caught.value.message) == ("C023", True)


def test_a_file_is_replaced_where_its_folder_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "certificate.json"
    file.touch()
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != file)
    check_replaceable(file, "--out")
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    for target in (file, tmp_path):
        with pytest.raises(OrchestraError) as caught:
            check_replaceable(target, "--out")
        assert caught.value.code == "C023"
