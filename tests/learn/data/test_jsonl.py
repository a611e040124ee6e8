"""Files that are read back have values of their type, or an error with a location, for any bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents.card import Card
from orchestra.agents.inference.calibration import Calibration
from orchestra.core.errors import InputError
from orchestra.fleet.weights import weights
from orchestra.learn.certification.labelled_answers import Predictions
from orchestra.learn.data.dataset import Dataset, DatasetRow, check_overwrite
from orchestra.learn.evaluation.rows import read_evaluation_set
from orchestra.learn.promotion.promotion import LOG_FILE, AdapterStore
from orchestra.schema.strict_json import JsonDecodingError, decode_json

BAD = {
    "no JSON": b"{",
    "of another type": b"[]",
    "no UTF-8": b'{"id": "\xff", "format": "\xff", "at": "\xff", "licence": "\xff"}',
    "nested too deep": b'{"id": "1", "input": {"a": '
    + b"[" * 200_000
    + b"]" * 200_000
    + b'}, "at": '
    + b"[" * 5000
    + b"]" * 5000
    + b"}",
}


@pytest.fixture(params=BAD)
def bad(request: pytest.FixtureRequest) -> bytes:
    return BAD[request.param]


def test_read_files_arbitrary_bytes_raise_input_error(bad: bytes) -> None:
    with pytest.raises(JsonDecodingError):
        decode_json(bad, DatasetRow)


@pytest.mark.parametrize(("read", "code"), [(read_evaluation_set, "N001"), (Predictions.read, "V006")])
def test_parse_lines_invalid_line_has_location(
    tmp_path: Path, bad: bytes, read: Callable[[Path], Any], code: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n" + bad + b"\n")
    with pytest.raises(InputError, match="a line is not a ") as caught:
        read(path)
    assert caught.value.location is not None
    assert (caught.value.code, caught.value.location.line) == (code, 2)


def test_load_dataset_arbitrary_bytes_raise_input_error(tmp_path: Path, bad: bytes) -> None:
    made = Dataset.build("d", "a", "", "CC0", [], {"train": [DatasetRow("1", {}, "x", "1")]})
    made.write(tmp_path)
    (tmp_path / "tune.jsonl").write_bytes(bad)
    with pytest.raises(InputError, match="N001"):
        Dataset.load(tmp_path)
    made.write(tmp_path)
    (tmp_path / "manifest.json").write_bytes(bad)
    with pytest.raises(InputError, match="N001"):
        Dataset.load(tmp_path)
    with pytest.raises(InputError, match="N016"):
        check_overwrite(tmp_path)


def test_promotion_log_arbitrary_bytes_raise_input_error(tmp_path: Path, bad: bytes) -> None:
    card = Card.declare("a", input={"type": "object", "properties": {}}, output={"type": "string"}, prompt="x")
    (tmp_path / LOG_FILE).write_bytes(bad)
    with pytest.raises(InputError, match="N303"):
        AdapterStore(card, tmp_path, tmp_path).promotions()
    with pytest.raises(InputError, match="A014"):
        Calibration.read(bad, ())


def test_weights_manifest_damaged_is_ignored(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / weights.MANIFEST).write_bytes(bad)
    assert weights.quick_digest(tmp_path) == ""
