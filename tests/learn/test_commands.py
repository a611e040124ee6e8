"""`orchestra learn`: from a CSV file to an adapter, on the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from orchestra.cli.learn.train import TrainingReporter, format_tick
from orchestra.learn.lora.checkpoint import TrainingPoint
from orchestra.learn.lora.loop import TrainingProgress
from tests.cli.shell import Shell
from tests.learn.conftest import make_card

FLEET = """\
schema: orchestra/fleet/v1
name: tiny
servers:
  it:
    model: tiny
    device: cpu
    max_model_len: 512
    max_loras: 2
    weights: {licence: CC0, sources: [{folder: FOLDER}]}
models: {base: it}
"""
CSV = "passage,question,answer\n" + "".join(f"passage {at} Ada,who?,{'Ada' if at % 2 else ''}\n" for at in range(30))


@pytest.fixture
def project(shell: Shell) -> Path:
    """A project with an agent and a CSV, in the current folder."""
    make_card(Path())
    Path("rows.csv").write_text(CSV)
    return Path()


MAPPED = ("--column", "context=passage", "--tune", "0.3")


def test_data_csv_to_dataset(shell: Shell, project: Path) -> None:
    said = shell("learn", "data", "finder", "rows.csv", "--out", "set", "--licence", "CC BY 4.0", *MAPPED)
    assert said.code == 0, said.err
    manifest = json.loads(Path("set/manifest.json").read_text())
    assert manifest["digest"] in said.out
    assert (manifest["name"], manifest["agent"], manifest["licence"]) == ("set", "finder", "CC BY 4.0")
    assert sum(part["rows"] for part in manifest["splits"].values()) == 30
    again = shell(
        "learn", "data", "finder", "rows.csv", "--out", "set2", "--name", "set", "--licence", "CC BY 4.0", *MAPPED
    )
    assert again.code == 0
    assert json.loads(Path("set2/manifest.json").read_text()) == manifest


def test_data_does_not_overwrite_dataset(shell: Shell, project: Path) -> None:
    made = ("learn", "data", "finder", "rows.csv", "--out", "set", "--licence", "own", *MAPPED)
    assert shell(*made).code == 0
    trained = Path("set/finder-adapter")
    trained.mkdir()
    manifest = Path("set/manifest.json").read_bytes()
    assert shell(*made).code == 0, "the same one"
    said = shell(*made, "--test", "0.5")
    assert (said.code, "N016" in said.err, "--replace" in said.err) == (2, True, True)
    assert Path("set/manifest.json").read_bytes() == manifest
    assert shell(*made, "--test", "0.5", "--replace").code == 0
    assert trained.is_dir()
    Path("set/manifest.json").write_text("{}")
    assert shell(*made).err.startswith("N016")


def test_data_excludes_test_rows_of_other_dataset(shell: Shell, project: Path) -> None:
    made = ("learn", "data", "finder", "rows.csv", "--licence", "own", *MAPPED, "--out")
    assert shell(*made, "set", "--test", "0.3").code == 0
    tested = len(Path("set/test.jsonl").read_text().splitlines())
    said = shell(*made, "more", "--test", "0", "--without", "set")
    assert said.code == 0, said.err
    assert f"left out: {tested:,} rows, of the test part of set\n    rows.csv:" in said.out
    assert (
        sum(part["rows"] for part in json.loads(Path("more/manifest.json").read_text())["splits"].values())
        == 30 - tested
    )


def test_data_reports_contradictions_and_empty_rows(shell: Shell, project: Path) -> None:
    Path("rows.csv").write_text("question,context,answer\nwho?,Ada,Ada\nWho,ada,\n , ,Ada\nwho?,Bob,Bob\n")
    said = shell(
        "learn", "data", "finder", "rows.csv", "--out", "set", "--licence", "own", "--tune", "0", "--test", "0"
    )
    assert said.code == 0, said.err
    assert "left out: 1 rows, with empty inputs\n    rows.csv:4\n" in said.out
    assert (
        'equal inputs with another output\n    rows.csv:3 says {"answer":null}, and rows.csv:2 {"answer":"Ada"}\n'
        in said.out
    )


def test_data_without_licence_refused_first(shell: Shell, project: Path) -> None:
    said = shell("learn", "data", "finder", "rows.csv", "--out", "set", *MAPPED)
    assert said.code == 2
    assert "N002" in said.err
    assert "--licence" in said.err
    assert not Path("set").exists()


def test_data_missing_column_reported(shell: Shell, project: Path) -> None:
    said = shell("learn", "data", "finder", "rows.csv", "--out", "set", "--licence", "own")
    assert said.code == 2
    assert "N011" in said.err
    assert "rows.csv:2" in said.err


def test_data_files_with_equal_ids_merge(shell: Shell, project: Path) -> None:
    for name in ("one", "two"):
        lines = ({"id": at, "context": f"{name} {at}", "question": "who?", "answer": None} for at in range(3))
        Path(f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = shell(
        "learn",
        "data",
        "finder",
        "one.jsonl",
        "two.jsonl",
        "-o",
        "set",
        "--licence",
        "own",
        "--tune",
        "0",
        "--test",
        "0",
    )
    assert said.code == 0, said.err
    assert sorted(json.loads(line)["id"] for line in Path("set/train.jsonl").read_text().splitlines()) == [
        *("0", "1", "2"),
        *("two-0", "two-1", "two-2"),
    ]


def test_data_files_of_equal_name_merge(shell: Shell, project: Path) -> None:
    files = [Path(folder) / "rows.jsonl" for folder in "abcd"]
    for path in files:
        path.parent.mkdir()
        path.write_text(json.dumps({"id": "1", "context": f"{path} says", "question": "who?", "answer": None}) + "\n")
    said = shell(
        "learn", "data", "finder", *map(str, files), "-o", "set", "--licence", "own", "--tune", "0", "--test", "0"
    )
    assert said.code == 0, said.err
    ids = sorted(json.loads(line)["id"] for line in Path("set/train.jsonl").read_text().splitlines())
    assert ids == ["1", "rows-1", "rows-2-1", "rows-3-1"]


def test_data_csv_integer_labels(shell: Shell, project: Path) -> None:
    Path("agents/judge").mkdir()
    types = "{Stars: {type: integer, enum: [1, 2, 3]}, Word: {enum: [a, b]}}"
    card = (
        "name: judge\nkind: sklearn\ninput: {text: str}\noutput: {stars: Stars, word: Word | null}\n"
        f"types: {types}\n"
    )
    Path("agents/judge/agent.yaml").write_text(card)
    Path("judged.csv").write_text("text,stars,word\ngood,3,a\nbad,1,\n")
    said = shell("learn", "data", "judge", "judged.csv", "-o", "set", "--licence", "own", "--tune", "0", "--test", "0")
    assert said.code == 0, said.err
    found = [json.loads(line)["output"] for line in Path("set/train.jsonl").read_text().splitlines()]
    assert sorted(map(str, found)) == ["{'stars': 1, 'word': None}", "{'stars': 3, 'word': 'a'}"]


def test_data_unwritable_out_refused_first(shell: Shell, project: Path) -> None:
    Path("afile").write_text("mine")
    for command in (
        ("data", "finder", "rows.csv", "--licence", "own", *MAPPED),
        ("train", "finder", "--data", "nowhere"),
    ):
        said = shell("learn", *command, "--out", "afile")
        assert said.err.startswith("C023: afile cannot be written: "), said.err
    assert Path("afile").read_text() == "mine"


@pytest.mark.parametrize("inside", ["agents/finder", "."])
def test_train_out_with_other_files_refused(
    shell: Shell, project: Path, tiny: Path, inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = shell("learn", "train", "finder", "--data", "nowhere", "--out", inside)
    assert said.err.startswith(f"N107: --out cannot be {inside}: it has ")
    assert Path("agents/finder/agent.yaml").is_file()


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--targets", "all"), "all-linear"),
        (("--decay", "fast"), "cosine"),
        (("--device", "tpu"), "cuda"),
        (("--minutes", "1", "--epochs", "1"), "one of them"),
    ],
)
def test_train_options_checked_first(shell: Shell, project: Path, options: tuple[str, ...], hint: str) -> None:
    said = shell("learn", "train", "finder", "--data", "nowhere", *options)
    assert said.code == 2
    assert "N107" in said.err
    assert hint in said.err


def test_train_agent_second_time_uses_checkpoint(
    shell: Shell, project: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("configs").mkdir()
    Path("configs/tiny.yaml").write_text(FLEET.replace("FOLDER", str(tiny)))
    Path("orchestra.toml").write_text('fleet = "tiny"\n')
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").absolute()))
    assert shell("learn", "data", "finder", "rows.csv", "--out", "set", "--licence", "own", *MAPPED).code == 0
    options = ("--epochs", "1", "--rank", "2", "--batch", "200", "--device", "cpu", "--out", "adapter")
    said = shell("learn", "train", "finder", "--data", "set", *options)
    assert said.code == 0, said.err
    lines = said.err.splitlines()
    phases = (
        "looking for",
        "reading the rows",
        "checking",
        "splitting",
        "rows to train on",
        "checkpoints",
        "loading",
        "training",
    )
    assert [phase in line for line, phase in zip(lines, phases, strict=False)] == [True] * len(phases), lines
    assert lines[len(phases)].startswith("step 1/")
    assert re.match(r"trained \d+ steps, 1\.00 epochs, [\d,]+ tokens in ", lines[-1])
    assert "loss on the tune part" in said.out
    assert json.loads(Path("adapter/learnt_from.json").read_text())["data"] == "set"
    made = json.loads(Path("adapter/manifest.json").read_text())
    assert (made["agent"], made["base"], made["licence"], made["rank"]) == ("finder", "tiny", "own", 2)
    assert made["command"].startswith(
        "orchestra learn train finder --data DATA --epochs 1 --rank 2 --targets all-linear --rate 0.0006"
    )
    assert any(path.is_dir() for path in Path("cache/orchestra/learn/finder").iterdir())
    again = shell("learn", "train", "finder", "--data", "set", *options)
    assert again.code == 0
    assert not any(line.startswith("step ") for line in again.err.splitlines())
    assert json.loads(Path("adapter/manifest.json").read_text())["sha256"] == made["sha256"]


def test_train_base_behind_endpoint_is_refused(shell: Shell, project: Path) -> None:
    pytest.importorskip("peft")
    Path("configs").mkdir()
    text = (
        "schema: orchestra/fleet/v1\nname: far\n"
        "servers: {it: {endpoint: http://127.0.0.1:9/v1, model: m}}\nmodels: {base: it}\n"
    )
    Path("configs/far.yaml").write_text(text)
    Path("orchestra.toml").write_text('fleet = "far"\n')
    said = shell("learn", "train", "finder", "--data", "set")
    assert said.code == 2
    assert "N106" in said.err
    assert "--fleet NAME" in said.err


def test_train_fleet_option_replaces_configured_fleet(shell: Shell, project: Path, tiny: Path) -> None:
    Path("configs").mkdir()
    Path("configs/far.yaml").write_text(
        "schema: orchestra/fleet/v1\nname: far\n"
        "servers: {it: {endpoint: http://127.0.0.1:9/v1, model: m}}\nmodels: {base: it}\n"
    )
    Path("configs/tiny.yaml").write_text(FLEET.replace("FOLDER", str(tiny)))
    Path("orchestra.toml").write_text('fleet = "far"\n')
    assert shell("learn", "data", "finder", "rows.csv", "--out", "set", "--licence", "own", *MAPPED).code == 0
    options = ("--epochs", "0.1", "--rank", "2", "--batch", "200", "--device", "cpu", "--out", "adapter")
    assert "N106" in shell("learn", "train", "finder", "--data", "set", *options).err
    said = shell("learn", "train", "finder", "--data", "set", *options, "--fleet", "tiny")
    assert said.code == 0, said.err
    assert json.loads(Path("adapter/manifest.json").read_text())["base"] == "tiny"


def test_train_progress_every_ten_seconds_and_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    teller = TrainingReporter(lambda: now)
    for step in range(1, 31):
        now += 1.0
        teller(
            TrainingProgress(
                step,
                30,
                step / 10,
                1.25,
                300.0,
                30.0 - step,
                TrainingPoint(step, 0.5, 1.25, 1.5, 0.4) if step == 15 else None,
            )
        )
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["step 1/30", "step 11/30", "step 15/30", "step 25/30"]
    assert lines[2].endswith("15 s left | tune: loss 1.5000, exact 0.400")


def test_train_progress_long_phase_is_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    reporter = TrainingReporter(lambda: now)
    reporter.repeat()
    reporter.phase("first step")
    for _ in range(25):
        now += 1.0
        reporter.repeat()
    reporter(TrainingProgress(1, 30, 0.1, 1.25, 300.0, 29.0))
    now += 12.0
    reporter.repeat()
    assert capsys.readouterr().err.splitlines() == [
        "first step",
        "first step: at work for 10 s",
        "first step: at work for 20 s",
        "step 1/30, epoch 0.10, loss 1.250, 300 tokens/s, 29 s left",
        "after step 1: the next step or an evaluation: at work for 12 s",
    ]


def test_train_progress_omits_unknown_values() -> None:
    assert (
        format_tick(TrainingProgress(3, 0, 0.1, 2.0, 310.4, float("nan")))
        == "step 3, epoch 0.10, loss 2.000, 310 tokens/s"
    )
