"""Data sets: reading, deduplication, splits, errors, and versions."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.card import Card
from orchestra.core.errors import InputError, InputErrors
from orchestra.learn.data.dataset import Dataset, DatasetRow, SplitShares, assign_split, deduplicate, is_empty, split
from orchestra.learn.data.sources import ColumnMapping, read_numbered_rows, read_source
from tests.learn.conftest import CARD, make_card

PLAIN = ColumnMapping({})


def row(text: str = "a", output: Any = "x", group: str = "g", id: str = "1") -> DatasetRow:
    return DatasetRow(id, {"text": text}, output, group)


def made(rows: dict[Any, Any], licence: str = "CC0") -> Dataset:
    return Dataset.build("set", "agent", "c", licence, (), rows)


def file(tmp_path: Path, text: str, name: str = "rows.jsonl") -> Path:
    (tmp_path / name).write_text(text, "utf-8")
    return tmp_path / name


def refused(path: Path, card: Card, columns: ColumnMapping = PLAIN) -> InputError:
    with pytest.raises(InputError) as caught:
        read_source(path, card, columns)
    return caught.value


def test_dataset_round_trip_version_is_digest_of_rows(tmp_path: Path) -> None:
    one = made({"train": [row(), row("b", id="2")], "test": [row("c", group="h", id="3")]})
    one.write(tmp_path / "set")
    assert Dataset.load(tmp_path / "set") == one
    assert one.manifest.splits["train"].rows == 2
    other = made({"train": [row(), row("b!", id="2")], "test": [row("c", group="h", id="3")]})
    assert other.manifest.digest != one.manifest.digest


def test_load_changed_rows_refused(tmp_path: Path) -> None:
    made({"train": [row()]}).write(tmp_path)
    path = tmp_path / "train.jsonl"
    path.write_text(path.read_text().replace('"x"', '"y"'))
    with pytest.raises(InputError, match="its manifest has") as caught:
        Dataset.load(tmp_path)
    assert caught.value.code == "N001"
    path.write_text("{}\n")
    with pytest.raises(InputError) as caught:
        Dataset.load(tmp_path)
    assert str(caught.value.location).endswith("train.jsonl:1:1")


def test_load_without_folder_or_manifest_refused(tmp_path: Path) -> None:
    for text in (None, "{}", "no json"):
        if text is not None:
            (tmp_path / "manifest.json").write_text(text)
            for part in ("train", "tune", "test"):
                (tmp_path / f"{part}.jsonl").write_text("")
        with pytest.raises(InputError) as caught:
            Dataset.load(tmp_path)
        assert caught.value.code == "N001"


@pytest.mark.parametrize(
    ("rows", "licence", "code"),
    [
        ({"train": [row()], "test": [row("b", id="2")]}, "CC0", "N003"),
        ({"train": [row(), row("b")]}, "CC0", "N004"),
        ({"train": [row()]}, "  ", "N002"),
    ],
)
def test_build_leaks_duplicate_ids_no_licence_refused(rows: dict[Any, Any], licence: str, code: str) -> None:
    with pytest.raises(InputError) as caught:
        made(rows, licence)
    assert caught.value.code == code


def test_load_leaking_group_refused(tmp_path: Path) -> None:
    made({"train": [row()], "test": [row("b", group="h", id="2")]}).write(tmp_path)
    (tmp_path / "test.jsonl").write_bytes(msgspec.json.encode(row("b", group="g", id="2")) + b"\n")
    with pytest.raises(InputError) as caught:
        Dataset.load(tmp_path)
    assert caught.value.code == "N003"


def test_build_test_input_in_other_split_refused() -> None:
    rows = {"train": [row("Is it on time?", id="a")], "test": [row("is it  on time", group="h", id="b")]}
    with pytest.raises(InputError, match="'b' of the test split of set has the input of 'a' in train") as caught:
        made(rows)
    assert caught.value.code == "N003"


@given(st.text(max_size=20), st.floats(0, 0.5), st.floats(0, 0.4))
def test_assign_split_is_stable(group: str, tune: float, test: float) -> None:
    shares = SplitShares(tune, test)
    assert assign_split(group, shares) == assign_split(group, shares)
    assert assign_split(group, SplitShares(0, 0)) == "train"
    if assign_split(group, shares) == "test":
        assert assign_split(group, SplitShares(tune, min(0.5, test + 0.05))) == "test"


def test_split_shares_are_approximate() -> None:
    parts = split([row(group=str(at), id=str(at)) for at in range(2000)], SplitShares(0.2, 0.1))
    assert 340 < len(parts["tune"]) < 460
    assert 150 < len(parts["test"]) < 250
    assert sum(map(len, parts.values())) == 2000


@pytest.mark.parametrize(("tune", "test"), [(0.5, 0.5), (-0.1, 0.1), (1.0, 0.0), (float("nan"), 0.1)])
def test_split_shares_without_training_rows_refused(tune: float, test: float) -> None:
    with pytest.raises(InputError) as caught:
        SplitShares(tune, test)
    assert caught.value.code == "N005"


def test_deduplicate_counts_kinds_of_duplicates() -> None:
    rows = [
        row("Where is it?"),
        row("Where is it?"),
        row("where  is it"),
        row("WHERE is it!", "other"),
        row("Where was it?"),
        row("?"),
    ]
    found = deduplicate(rows)
    assert [one.input["text"] for one in found.rows] == ["Where is it?", "Where was it?", "?"]
    assert (found.exact_duplicates, found.near_duplicates, len(found.contradictions)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("inputs", "nothing"),
    [
        ({"text": ""}, True),
        ({"text": " \t"}, True),
        ({"a": "", "b": [None]}, True),
        ({"text": "?"}, False),
        ({"a": "", "b": 0}, False),
    ],
)
def test_is_empty_ignores_blanks(inputs: dict[str, Any], nothing: bool) -> None:
    assert is_empty(inputs) is nothing


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is 7 - 3?", "What is 7 + 3?", False),
        ("What is 6 / 3?", "What is 6 * 3?", False),
        ("-5 degrees", "5 degrees", False),
        ("(2 + 3) * 4", "2 + 3 * 4", False),
        ("It is 1.5", "It is 1 5", False),
        ("I write C++", "I write C#", False),
        ("कि", "की", False),
        ("में", "मैं", False),
        ("ที่", "ที", False),
        ("cafe\u0301", "café", True),
        ("In 1889.", "in 1889", True),
        ("well-known", "well known", True),
        ("He said “no” (twice)", "he said 'no', twice!", True),
        ("co\u00adoperate", "cooperate", True),
    ],
)
def test_fingerprint_keeps_symbols_ignores_punctuation(one: str, other: str, same: bool) -> None:
    assert (len(deduplicate([row(one), row(other)]).rows) == 1) is same


ROWS = [
    {"question": "Who?", "context": "Ada.", "answer": "Ada"},
    {"question": "When?", "context": "Ada.", "answer": None, "id": "own"},
]


def test_read_source_json_lines_equal_csv(tmp_path: Path, card: Card) -> None:
    lines = read_source(file(tmp_path, "\n".join(map(json.dumps, ROWS))), card, PLAIN)
    cells = read_source(
        file(tmp_path, 'question,context,answer,id\n"Who?",Ada.,Ada,\nWhen?,Ada.,,own\n', "rows.csv"), card, PLAIN
    )
    assert [(one.input, one.output, one.group) for one in lines] == [
        (one.input, one.output, one.group) for one in cells
    ]
    assert lines[1].id == cells[1].id == "own"
    assert lines[0].group == lines[1].group, "questions about one passage belong together"


def test_read_source_column_paths(tmp_path: Path, card: Card) -> None:
    told = {
        "id": "1",
        "input": {"question": "Who?", "context": "Ada."},
        "expected": {"answers": [{"text": "Ada", "start": 0}]},
        "topic": 7,
    }
    silent = {**told, "id": "2", "expected": {"answers": []}}
    path = file(tmp_path, f"{json.dumps(told)}\n{json.dumps(silent)}\n")
    rows = read_source(path, card, ColumnMapping.parse(["answer=expected.answers.0.text"], "topic"))
    assert [one.output for one in rows] == [{"answer": "Ada"}, {"answer": None}]
    assert {one.group for one in rows} == {"7"}


def test_read_source_maps_values(tmp_path: Path) -> None:
    types = "types: {Verdict: {type: string, enum: [supported, not stated]}}\n"
    text = "schema: orchestra/v1\nname: judge\ninput: {claim: str}\noutput: {label: Verdict, p: float}\n" + types
    card = make_card(tmp_path / "judge", text, "{{ claim }}\n")
    rows = [
        {"input": {"claim": said}, "expected": {"label": label}}
        for said, label in (("a", "yes"), ("b", "no"), ("c", "some"))
    ]
    path = file(tmp_path, "\n".join(map(json.dumps, rows)))
    label = ["label:yes=supported", "label:*=not stated"]
    assert "--column p=NAME; columns: expected.label" in refused(path, card, ColumnMapping.parse([], means=label)).hint
    means = [*label, "p:yes=1", "p:*=0.5"]
    found = read_source(path, card, ColumnMapping.parse(["p=expected.label"], means=means))
    assert [row.output for row in found] == [{"label": "supported", "p": 1}] + 2 * [{"label": "not stated", "p": 0.5}]
    with pytest.raises(InputErrors) as caught:
        read_source(path, card, ColumnMapping.parse(["p=expected.label"], means=["p:*=1"]))
    assert "--means 'label:yes=ONE OF THESE'" in caught.value.errors[0].hint
    for wrong in ("label", "label:yes", ":yes=no", "lable:yes=no"):
        with pytest.raises(InputError) as refusal:
            read_source(path, card, ColumnMapping.parse(["p=expected.label"], means=[wrong]))
        assert refusal.value.code == "N011"


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_read_source_reads_expected_rows(tmp_path: Path, card: Card, name: str) -> None:
    told = {"id": "1", "input": {"question": "Who?", "context": "Ada."}, "expected": {"answer": "Ada", "source": "x"}}
    path = tmp_path / name
    path.write_bytes(gzip.compress(msgspec.json.encode(told)) if name.endswith(".gz") else msgspec.json.encode(told))
    assert [(one.input, one.output) for one in read_source(path, card, PLAIN)] == [(told["input"], {"answer": "Ada"})]


def test_read_source_invalid_gzip_refused(tmp_path: Path, card: Card) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00broken")
    with pytest.raises(InputError) as caught:
        read_source(path, card, PLAIN)
    assert caught.value.code == "N010"


def test_group_of_ignores_spelling_and_empty_cells(tmp_path: Path, card: Card) -> None:
    cells = "".join(f"Who?,{number},,{who}\n" for number, who in enumerate(["Ada", "ada", " Ada", "ADA ", "", " "]))
    path = file(tmp_path, f"question,context,answer,customer\n{cells}", "rows.csv")
    rows = read_source(path, card, ColumnMapping.parse([], "customer"))
    assert [one.group for one in rows[:4]] == ["ada"] * 4
    assert len({one.group for one in rows[4:]}) == 2, "each by its own passage"


def test_read_source_plain_output_is_one_column(tmp_path: Path) -> None:
    card = make_card(tmp_path, CARD.replace("output: {answer: Quote | null}", "output: int"))
    path = file(tmp_path, "question,context,output\nWho?,Ada.,3\n", "rows.csv")
    assert read_source(path, card, PLAIN)[0].output == 3


def test_read_source_wrong_type_has_location(tmp_path: Path, card: Card) -> None:
    bad = [
        '{"question": "Who?", "context": "Ada.", "answer": "Ada"}',
        '{"question": 3, "context": "Ada.", "answer": ["Ada"]}',
    ]
    error = refused(file(tmp_path, "\n".join(bad)), card)
    assert error.code == "N012"
    assert error.location is not None
    assert (error.location.line, error.location.column) == (2, 14)
    assert "question" in error.message


def test_read_source_reports_all_errors_at_once(tmp_path: Path, card: Card) -> None:
    wrong = [json.dumps({"question": number, "context": "Ada.", "answer": None}) for number in range(50)]
    error = refused(file(tmp_path, "\n".join(wrong)), card)
    assert isinstance(error, InputErrors)
    assert len(error.errors) == 21
    assert error.errors[-1].message == "30 more rows have other errors"
    missing = refused(file(tmp_path, "\n".join(['{"question": "?", "contxt": "x", "answer": null}'] * 9)), card)
    assert missing.code == "N011"
    assert "--column context=contxt" in missing.hint


def test_read_source_counts_equal_errors(tmp_path: Path, card: Card) -> None:
    rows = ["3", "4"] + ["3"] * 298
    text = "\n".join(json.dumps({"question": int(one), "context": "Ada.", "answer": None}) for one in rows)
    error = refused(file(tmp_path, text), card)
    assert isinstance(error, InputErrors)
    assert [(one.message.partition(":")[0], one.location and one.location.line) for one in error.errors] == [
        ("299 rows", 1),
        ("question", 2),
    ]
    alone = refused(file(tmp_path, text.splitlines()[0]), card)
    assert alone.message.startswith("question:")


@pytest.mark.parametrize(
    "text",
    [
        '\ufeffquestion;"context, all of it";answer\nWho, and when?;Ada.;Ada\n',
        'question\t"context, all of it"\tanswer\nWho, and when?\tAda.\tAda\n',
        'question,"context, all of it",answer\n"Who, and when?",Ada.,Ada\n',
        'question,"context, all; of; it;",answer\n"Who, and when?",Ada.,Ada\n',
    ],
)
def test_read_source_detects_separator_from_header(tmp_path: Path, card: Card, text: str) -> None:
    named = next(name for name in ("context, all of it", "context, all; of; it;") if name in text)
    rows = read_source(file(tmp_path, text, "rows.csv"), card, ColumnMapping({"context": named}))
    assert [(one.input, one.output) for one in rows] == [
        ({"question": "Who, and when?", "context": "Ada."}, {"answer": "Ada"})
    ]


def test_read_source_extra_columns_hint_quoting(tmp_path: Path, card: Card) -> None:
    error = refused(file(tmp_path, "question;context;answer\nWho;and when?;Ada.;Ada\n", "rows.csv"), card)
    assert (error.code, error.hint) == ("N010", "quote cells with semicolons")


@pytest.mark.parametrize(("coding", "name", "at"), [("cp1252", "WINDOWS-1252", (3, 3)), ("utf-16", "UTF-16", (1, 1))])
def test_read_source_other_encoding_has_location_and_hint(
    tmp_path: Path, card: Card, coding: str, name: str, at: tuple[int, int]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("question,context,answer\r\nWho?,Ada.,Ada\r\nGröße?,Ada.,Ada\r\n".encode(coding))
    error = refused(path, card)
    assert error.code == "N010"
    assert f"iconv -f {name} -t UTF-8" in error.hint
    assert error.location is not None
    assert (error.location.line, error.location.column) == at


def test_read_source_bad_byte_after_bom_has_location(tmp_path: Path, card: Card) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "question,context,answer\nGröße?,Ada.,".encode() + b"Ren\xe9\n")
    error = refused(path, card)
    assert "0xe9" in error.message
    assert error.location is not None
    assert (error.location.line, error.location.column) == (2, 16)


@pytest.mark.parametrize(
    "text",
    [
        "question,context,answer,note (a; b; c; d)\nWho?,Ada.,Ada,\n",
        "question;context;answer;note, or none, or both, or neither\nWho?;Ada.;Ada;\n",
        "question\tcontext\tanswer\tnote, or; none\nWho?\tAda.\tAda\t\n",
    ],
)
def test_read_source_separator_fits_rows(tmp_path: Path, card: Card, text: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    (row,) = read_source(path, card, ColumnMapping({}))
    assert (row.input, row.output) == ({"question": "Who?", "context": "Ada."}, {"answer": "Ada"})


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("rows.jsonl", '{"a": 1}\n{"a": \n', 2),
        ("rows.jsonl", "\n[1]\n", 2),
        ("rows.jsonl", '{"a": NaN}', 1),
        ("rows.jsonl", '[\n{"question": "Who?"}]', 1),
        ("rows.csv", "question,context,answer\nWho?,A\0da.,x\n", 2),
        ("rows.csv", "sep=;\nquestion;context;answer\nWho?;Ada.\n", 3),
        ("rows.csv", "question,context,answer\nWho?,Ada.\n", 2),
        ("rows.csv", "question,context,answer\nWho?,Ada.,x,y\n", 2),
        ("rows.csv", 'question,context,answer\n"Who?,Ada.,x\n', 2),
        ("rows.csv", "question,context,answer\n\n\nWho?,Ada.\n", 4),
        ("rows.csv", "question,context,answer\nWho?,A\u2028da.,x\nWho?,Ada.\n", 3),
        ("rows.csv", "question,context,question\nWho?,Ada.,When?\n", 1),
    ],
)
def test_read_source_invalid_row_has_line(tmp_path: Path, card: Card, name: str, text: str, line: int) -> None:
    good = json.dumps(ROWS[0])
    error = refused(file(tmp_path, text.replace('{"a": 1}', good), name), card)
    assert error.code == "N010"
    assert error.location is not None
    assert error.location.line == line


def test_read_source_suffix_ignores_case(tmp_path: Path, card: Card) -> None:
    assert read_source(file(tmp_path, "question,context,answer\nWho?,Ada.,Ada\n", "ROWS.CSV"), card, PLAIN)[
        0
    ].output == {"answer": "Ada"}


def test_read_source_sep_line(tmp_path: Path, card: Card) -> None:
    rows = read_numbered_rows(
        file(tmp_path, "sep=;\nquestion;context;answer\nWho?;Ada, Byron;Ada\n", "rows.csv"), card, PLAIN
    )
    assert [(number, row.input["context"]) for number, row in rows] == [(3, "Ada, Byron")]


def test_read_source_spreadsheet_refused(tmp_path: Path, card: Card) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"PK\x03\x04\x14\x00")
    error = refused(tmp_path / "rows.xlsx", card)
    assert (error.code, "CSV UTF-8" in error.hint) == ("N010", True)


def test_read_source_input_with_answer_refused(tmp_path: Path, card: Card) -> None:
    path = file(tmp_path, "question,context,answer\nWho?,Ada.,Ada\n", "rows.csv")
    error = refused(path, card, ColumnMapping({"question": "answer"}))
    assert (error.code, "both mapped to the column 'answer'" in error.message) == ("N011", True)
    assert read_source(path, card, ColumnMapping({"question": "answer"}), answered=False)[0].output is None


TWICE = "schema: orchestra/v1\nname: up\ndescription: Translates.\ninput: {text: str}\noutput: {text: str}\n"
ALONE = "schema: orchestra/v1\nname: up\ndescription: Judges.\ninput: {output: str}\noutput: str\n"


@pytest.mark.parametrize(
    ("agent", "name", "text"),
    [
        (TWICE, "rows.csv", "id,text\n1,hello\n"),
        (TWICE, "rows.jsonl", '{"id": "1", "text": "hello"}'),
        (ALONE, "rows.csv", "id,output\n1,hello\n"),
        (ALONE, "rows.jsonl", '{"id": "1", "output": "hello"}'),
    ],
)
def test_read_source_shared_column_refused(tmp_path: Path, agent: str, name: str, text: str) -> None:
    error = refused(file(tmp_path, text, name), make_card(tmp_path, agent, "Say it.\n"))
    assert (error.code, "the input would contain the answer" in error.message) == ("N011", True)


@pytest.mark.parametrize(
    ("agent", "text"),
    [
        (TWICE, '{"input": {"text": "a"}, "output": {"text": "b"}}'),
        (TWICE, '{"text": "a", "output": {"text": "b"}}'),
        (TWICE, '{"input": {"text": "a"}, "text": "b"}'),
        (ALONE, '{"input": {"output": "a"}, "output": "b"}'),
    ],
)
def test_read_source_json_distinguishes_shared_names(tmp_path: Path, agent: str, text: str) -> None:
    (found,) = read_source(file(tmp_path, text), make_card(tmp_path, agent, "Say it.\n"), PLAIN)
    assert (list(found.input.values()), found.output) == (["a"], "b" if agent == ALONE else {"text": "b"})


def test_read_source_long_cell_refused(tmp_path: Path, card: Card) -> None:
    error = refused(file(tmp_path, f"question,context,answer\nWho?,{'Ada ' * 40_000},Ada\n", "rows.csv"), card)
    assert (error.code, "JSON lines" in error.hint) == ("N010", True)


def test_read_source_empty_missing_binary_refused(tmp_path: Path, card: Card) -> None:
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    for path in (
        file(tmp_path, ""),
        tmp_path / "nowhere.jsonl",
        tmp_path / "binary.jsonl",
        file(tmp_path, "", "rows.csv"),
    ):
        assert refused(path, card).code == "N010"


def test_read_source_unknown_names_get_suggestion(tmp_path: Path, card: Card) -> None:
    path = file(tmp_path, json.dumps(ROWS[0]))
    assert "did you mean 'context'?" in refused(path, card, ColumnMapping({"contxt": "context"})).hint
    assert "--group context" in refused(path, card, ColumnMapping({}, "contxt")).hint
    with pytest.raises(InputError, match="is not FIELD=COLUMN"):
        ColumnMapping.parse(["context"])
