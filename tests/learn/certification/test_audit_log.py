"""The audit log: concurrent writers, an interrupted writer, and a disk that cannot be written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestra.core.errors import InputError, OrchestraError
from orchestra.learn.certification.audit_log import AuditLogFile, replace_file
from orchestra.verification.certificates.audits import FILE_NAME, SampledOutput
from orchestra.verification.certificates.file import Certificate
from tests.verification.samples import certified

OUTPUTS = [SampledOutput(f"run{number}", "reading", f"{number:032x}", 0.9) for number in range(20)]


def book(folder: Path) -> AuditLogFile:
    return AuditLogFile(folder / "reader" / FILE_NAME, certified())


def test_record_sample_concurrent_same_outputs_once(tmp_path: Path) -> None:
    book(tmp_path).record_sample(OUTPUTS[:5], 20, 0, ("", ""))
    watch = book(tmp_path).record_sample(OUTPUTS[3:8], 20, 0, ("", ""))
    assert [output.run for output in watch.pending] == [f"run{number}" for number in range(8)]
    assert len(book(tmp_path).log().entries) == 2


def test_audit_log_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    book(tmp_path).record_sample(OUTPUTS, 20, 0, ("", ""))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda output: book(tmp_path).record_verdicts([(output, "right")], "ada"), OUTPUTS))
    watch = book(tmp_path).audit_state()
    assert (watch.drift.audited, watch.pending) == (20, [])


def test_record_verdicts_keeps_concurrent_verdict(tmp_path: Path) -> None:
    book(tmp_path).record_sample(OUTPUTS[:1], 1, 0, ("", ""))
    book(tmp_path).record_verdicts([(OUTPUTS[0], "right")], "ada")
    watch = book(tmp_path).record_verdicts([(OUTPUTS[0], "wrong")], "bob")
    assert (watch.drift.wrong, watch.audits[OUTPUTS[0].key].by) == (0, "ada")


def test_audit_log_append_after_torn_line_is_separate(tmp_path: Path) -> None:
    one = book(tmp_path)
    one.record_sample(OUTPUTS[:2], 2, 0, ("", ""))
    one.path.write_bytes(one.path.read_bytes() + b'{"kind":"audited","certif')
    assert one.record_verdicts([(OUTPUTS[0], "right")], "ada").drift.audited == 1
    assert len(one.log().entries) == 2


def test_void_certificate_repeated_keeps_reason(tmp_path: Path) -> None:
    one, file = book(tmp_path), tmp_path / "reader" / "certificate.json"
    one.record_sample(OUTPUTS[:4], 4, 0, ("", ""))
    assert one.void_certificate(file) == ""
    assert not file.exists()
    one.record_verdicts([(output, "wrong") for output in OUTPUTS[:4]], "ada")
    why = one.void_certificate(file)
    found = Certificate.from_bytes(file.read_bytes())
    assert found.void_reason == why == one.audit_state().violation != ""
    written = file.read_bytes()
    AuditLogFile(one.path, found).void_certificate(file)
    assert file.read_bytes() == written
    assert AuditLogFile(one.path, found).audit_state().drift.wrong == 4


def test_void_certificate_replaced_is_unchanged(tmp_path: Path) -> None:
    watched, made = certified(), certified(threshold=0.95)
    one, file = book(tmp_path), tmp_path / "reader" / "certificate.json"
    one.record_sample(OUTPUTS, 20, 0, ("", ""))
    one.record_verdicts([(output, "wrong") for output in OUTPUTS], "ada")
    replace_file(file, made.to_bytes())
    assert one.void_certificate(file) == one.audit_state().violation != ""
    assert file.read_bytes() == made.to_bytes()
    assert one.is_replaced(file)
    replace_file(file, watched.to_bytes())
    assert one.void_certificate(file) == Certificate.from_bytes(file.read_bytes()).void_reason


def test_replace_file_concurrent_leaves_one_complete(tmp_path: Path) -> None:
    file, all_ = tmp_path / "certificate.json", [bytes([number]) * 100_000 for number in range(65, 81)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda data: replace_file(file, data), all_))
    assert file.read_bytes() in all_
    assert list(tmp_path.iterdir()) == [file]


def test_void_certificate_unwritable_raises_c023(tmp_path: Path) -> None:
    (tmp_path / "certificate.json").mkdir()
    (tmp_path / "certificate.json" / "inside").write_text("")
    with pytest.raises(OrchestraError) as error:
        replace_file(tmp_path / "certificate.json", b"{}")
    assert error.value.code == "C023"
    assert [path.name for path in tmp_path.iterdir()] == ["certificate.json"]


def test_audit_log_unusable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "reader").write_text("a file where a folder should be")
    with pytest.raises(InputError, match="cannot be used") as error:
        book(tmp_path).record_sample(OUTPUTS[:1], 1, 0, ("", ""))
    assert error.value.code == "V020"
