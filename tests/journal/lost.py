"""Journals of killed processes, damaged in their log, their database or both: `python -m tests.journal.lost [CASES]`.

Nothing that was durable may be missing without an error code, and no `once` call may be made again unasked: not when
the runs are resumed, and not after the loss was accepted.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from orchestra import Orchestra
from orchestra.core.errors import OrchestraError
from orchestra.core.settings import Settings
from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite.commit_loss import accept_loss
from orchestra.journal.sqlite.commit_mark import CommitMark, mark_path
from orchestra.journal.sqlite.database import read_commit_count
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.journal.sqlite.reader import SqliteReader
from tests.journal import lost_child

SEED = 20_264
CHILD = Path(lost_child.__file__)
FILE = "journal.db"
MODULE = lost_child.__name__
Answers: TypeAlias = dict[str, Any]
Part: TypeAlias = Literal["log", "database", "both"]
KINDS = ("flip", "flips", "zeros", "cut", "half", "gone")


@dataclass(frozen=True, slots=True)
class Scene:
    """The folder of a killed process, its two runs without an end, and the results of its journal."""

    name: str
    folder: Path
    unfinished: Sequence[str]
    answers: Answers
    calls: Counter[str]


@dataclass(slots=True)
class Told:
    """Results of the cases: number reported, number unchanged, and errors."""

    reported: Counter[str] = field(default_factory=Counter)
    harmless: int = 0
    wrong: list[str] = field(default_factory=list)


def child(folder: Path, runs: int, size: int, how: str) -> Sequence[str]:
    """Runs a process on the folder's journal; one that does not end is killed. Returns its runs without an end."""
    environ = {
        **os.environ,
        lost_child.CALLS: str(folder / "calls"),
        lost_child.WAITS: "yes",
        "XDG_STATE_HOME": str(folder / "state"),
    }
    entry = f"from {MODULE} import begin; begin()"
    command = [sys.executable, "-c", entry, str(folder / FILE), str(runs), str(size), how]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        said = sorted(process.stdout.readline() for _ in range(2)) if how != "ends" else []
        if how != "ends":
            process.send_signal(signal.SIGKILL)
        process.wait()
    found: list[str] = json.loads(said[0]) if how != "ends" else []
    return found


async def scenes(folder: Path) -> list[Scene]:
    """Yields journals of killed processes: everything is in the log; the runs, and the beginning of the last two, are
    in the database; several checkpoints were made; and the process ended during a checkpoint.
    """
    made: list[tuple[str, Sequence[str]]] = []
    for name, before, runs, size, how in [
        ("log", 0, 3, 10, "stays"),
        ("database", 3, 2, 10, "parted"),
        ("long", 1, 12, 500_000, "stays"),
    ]:
        place = folder / name
        place.mkdir()
        if before:
            child(place, before, 10, "ends")
            (place / "calls").unlink()
        made.append((name, child(place, runs, size, how)))
    for number, part in enumerate((0.2, 0.5, 0.9)):
        name = f"checkpoint {number}"
        cut_checkpoint(folder / "database", folder / name, part)
        made.append((name, made[1][1]))
    return [await scene(folder / name, unfinished) for name, unfinished in made]


def cut_checkpoint(source: Path, target: Path, part: float) -> None:
    """Returns the same journal with a part of its log written back, as by a process that was killed meanwhile."""
    shutil.copytree(source, target)
    file, after = target / FILE, target / "after"
    shutil.copytree(source, after)
    with closing(SqliteReader(after / FILE)) as reading:
        reading.truncate_log()
        mark = CommitMark(mark_path(file))
        mark.checkpoint(read_commit_count(reading.sql).journal_id).__enter__()  # never left
        mark.close()
    whole, old = (after / FILE).read_bytes(), file.read_bytes()
    pages = int(part * len(whole) / 4096) * 4096
    file.write_bytes(whole[:pages] + old[pages:])
    shutil.rmtree(after)


async def scene(folder: Path, unfinished: Sequence[str]) -> Scene:
    """Returns the results of the journal before any damage, from a copy."""
    with tempfile.TemporaryDirectory() as copy:
        place = Path(copy) / "copy"
        shutil.copytree(folder, place)
        answers = await answered(place / FILE)
    assert not [answer for answer in answers.values() if isinstance(answer, str)], answers
    calls = Counter((folder / "calls").read_text().splitlines())
    return Scene(folder.name, folder, unfinished, answers, calls)


async def answered(file: Path) -> Answers:
    """Returns the results of a journal, or error codes, for each query; only the code if it cannot be opened."""
    answers: Answers = {}
    try:
        async with SqliteJournal.open(file, busy_timeout=1.0) as journal:
            runs = await coded(journal.list_runs(1000))
            answers["runs"] = runs if isinstance(runs, str) else {one.run: one for one in runs}
            answers["outbox"] = await coded(journal.outbox())
            for run in () if isinstance(runs, str) else [one.run for one in runs]:
                answers[f"events of {run}"] = await coded(journal.read(run))
                answers[f"letters of {run}"] = await coded(journal.inbox(run))
    except JournalError as error:
        return {"opening": code_of(error)}
    return answers


async def coded(question: Any) -> Any:
    """Returns the result, or the code of the error."""
    try:
        return await question
    except JournalError as error:
        return code_of(error)


def code_of(error: OrchestraError) -> str:
    """Returns the error's code and checks that it has a hint."""
    assert error.hint, error
    return error.code


def damage(file: Path, kind: str, chance: random.Random) -> None:
    """Damages a file."""
    data = bytearray(file.read_bytes()) if file.exists() else bytearray()
    match kind:
        case _ if not data:
            return
        case "gone":
            file.unlink()
            return
        case "cut" | "half":
            del data[chance.randrange(len(data)) if kind == "cut" else len(data) // 2 :]
        case "zeros":
            start = chance.randrange(len(data))
            end = min(len(data), start + chance.choice((1, 64, 4096)))
            data[start:end] = bytes(end - start)
        case _:
            for _ in range(1 if kind == "flip" else 4):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


async def check(found: Scene, part: Part, chance: random.Random, told: Told) -> None:
    """Damages a copy of the journal, reads and resumes it, accepts the loss, and resumes again."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "copy"
        shutil.copytree(found.folder, place)
        file, case = place / FILE, found.name
        for suffix in {"log": ("-wal",), "database": ("",), "both": ("", "-wal")}[part]:
            kind = chance.choice(KINDS)
            case += f", {suffix or 'database'}: {kind}"
            damage(file.with_name(FILE + suffix), kind, chance)
        codes = set[str]()
        answers = await answered(file)
        if "opening" in answers:
            codes.add(answers["opening"])
        else:
            for question, right in found.answers.items():
                answer = answers.get(question)
                if isinstance(answer, str):
                    codes.add(answer)
                elif answer != right and "runs" in answers and not isinstance(answers["runs"], str):
                    told.wrong.append(f"{case}: {question} without a word")
        codes |= await resumed(found, place)
        if "J025" in codes:
            await accepted(found, place, case, told)
        calls = Counter((place / "calls").read_text().splitlines())
        if calls != found.calls:
            told.wrong.append(f"{case}: called again unasked: {calls - found.calls}")
        told.reported.update(codes)
        told.harmless += not codes


async def accepted(found: Scene, place: Path, case: str, told: Told) -> None:
    """After the loss is accepted the journal opens, or has other damage, and no open run continues by itself."""
    try:
        assert accept_loss(place / FILE) is not None
    except JournalError as error:
        told.reported[f"accepting: {code_of(error)}"] += 1
        return
    codes = await resumed(found, place)
    told.reported.update(f"after accepting: {code}" for code in codes)
    if not codes <= {"J013", "J026", "E019", "E020"} or not codes:
        told.wrong.append(f"{case}: resumed after the loss: {codes}")


async def resumed(found: Scene, place: Path) -> set[str]:
    """Resumes the runs without an end; returns the codes of errors."""
    os.environ[lost_child.CALLS] = str(place / "calls")
    codes = set[str]()
    try:
        async with Orchestra.open(
            Settings.load({"journal": str(place / FILE), "modules": [MODULE]}), fleet="none"
        ) as orchestra:
            for run in found.unfinished:
                try:
                    await (await orchestra.resume(run)).wait_until_blocked()
                except OrchestraError as error:
                    codes.add(code_of(error))
    except JournalError as error:
        codes.add(code_of(error))
    return codes


async def check_all(cases: int, seed: int = SEED) -> Told:
    """Runs a number of cases, the same ones for the same seed."""
    chance, told = random.Random(seed), Told()
    parts: Sequence[Part] = ("log", "log", "database", "both")
    with tempfile.TemporaryDirectory() as folder:
        made = await scenes(Path(folder))
        for number in range(cases):
            await check(made[number % len(made)], parts[number // len(made) % len(parts)], chance, told)
    return told


def main() -> None:
    """Prints the results of the cases."""
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    told = asyncio.run(check_all(cases))
    for wrong in told.wrong:
        print(wrong)
    codes = ", ".join(f"{code}: {count}" for code, count in sorted(told.reported.items()))
    print(f"{cases} cases of seed {SEED}: {told.harmless} harmless; {codes}; {len(told.wrong)} wrong")
    sys.exit(bool(told.wrong))


if __name__ == "__main__":
    main()
