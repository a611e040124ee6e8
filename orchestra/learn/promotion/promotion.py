"""Promotion: a candidate takes the place of what an agent has learnt where it is surely better, and can be sent back by one command.

What an agent had before stays in the folder of adapters, by its digest; `promotions.jsonl` in the agent's folder says who
was promoted when, and on which figures, and who was tried and not taken: the more candidates the same rows have seen, the surer the next
one must be. Arrays are put aside under their digests, and the file that names them by these is renamed into its
place: with that one step the agent has the new ones, and only then they take the places of the old. So one that is killed leaves the old or
the new; who reads the old layout, and then new arrays, is told that they do not fit (A011), and reads again.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from orchestra.agents.card import FILE, Card
from orchestra.agents.inference.array_files import aside
from orchestra.core.atomic_files import swap_folder, write_file
from orchestra.core.errors import InputError
from orchestra.fleet.adapters import mark_of
from orchestra.fleet.weights.adapter_checks import CONFIG, WEIGHTS
from orchestra.fleet.weights.download import sha256
from orchestra.learn.evaluation.bootstrap import Difference, difference
from orchestra.learn.evaluation.evaluation import Arm
from orchestra.learn.evaluation.metrics import Metric
from orchestra.learn.evaluation.rows import Test
from orchestra.schema.strict_json import NotDecodable, decoded
from orchestra.verification.certificates.row_fingerprints import SKETCH, Marks, Rows

ADAPTER = "adapter"
"""The folder of an agent's adapter, and the name that its card gives it."""
LOG = "promotions.jsonl"
TRY = "try"
"""What a line of the log is where a candidate was judged and not taken."""
LEARNT_FROM = "learnt_from.json"
"""The record of what an agent has learnt from, beside what it has learnt (`orchestra.learn.data.provenance`)."""
TRAINING, CURVE = "training.json", "loss.svg"
"""What an encoder's training was, and the picture of its loss (`orchestra.learn.encoders.record`)."""
SAID = (LEARNT_FROM, TRAINING, CURVE)
"""What is said beside what an agent has learnt."""
MAX_BYTES = 10_000_000
"""Bytes of an adapter's weights at most: it is kept in version control."""
FIELD = "adapter"
_LINE = re.compile(r"^adapter:.*\n?", re.MULTILINE)
"""The key of a card that names its adapter, and its line."""
_MARK = r"\.[0-9a-f]{16}"
"""What the name of a file that is aside ends in (`aside`), and of one that is being written (`write_file`)."""
SURE = 0.05
"""The chance that any of the candidates which are tried on the same rows is taken, where none is better: at most, however many they are."""


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log."""

    at: str
    """UTC, ISO 8601."""
    verb: str
    """`promote`, `rollback`, or `try` for a candidate that was not taken."""
    taken: str
    """Digest of the adapter that the agent has from then on; empty for none. Of a try that of the candidate."""
    given_up: str
    """Digest of those that it had; empty for none. Of a try what it keeps."""
    test: str = ""
    test_digest: str = ""
    marks: Marks | msgspec.UnsetType = msgspec.UNSET
    """Of the inputs of the rows, a sample: by which they are known again. Not there in lines of before."""
    metric: str = ""
    figures: dict[str, float] = {}
    difference: str = ""
    chance: float | None = None
    seed: int = 0
    """By which answers were exchanged, and rows drawn."""
    tries: int = 0
    """How many candidates these rows have seen by then, with this one; 0 where nobody counted."""
    known: tuple[str, ...] = ()
    """What is to be said of rows of the test that either was trained on."""
    named: str = ""
    """The adapter of the fleet that its card named before; empty for one in the agent's folder, and for none."""

    def again(self, other: Promotion) -> bool:
        """Whether another judgement on the same rows is no other chance to be lucky: it is of the same two, and came to the same, or the
        candidate was taken here because it was better, and not by force."""
        if not self.tries or (self.taken, self.given_up, self.metric) != (other.taken, other.given_up, other.metric):
            return False
        if (self.test, self.seed, self.figures) == (other.test, other.seed, other.figures):
            return True
        return self.verb != TRY and self.chance is not None and self.chance < level(self.tries)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a candidate is better than what is there."""

    metric: str
    differences: Sequence[tuple[str, Difference]]
    """By metric; the first one decides."""
    seed: int = 0
    tries: int = 1
    """How many candidates these rows have seen, with this one."""

    @property
    def better(self) -> bool:
        """Whether it surely is."""
        return self.differences[0][1].chance < level(self.tries)

    def __str__(self) -> str:
        first = self.differences[0][1]
        verdict = "surely better" if self.better else "not surely better"
        asked = f"less than {level(self.tries):.3g} is asked of candidate {self.tries:,} on these rows"
        return f"{verdict}: {self.metric} {first}, p = {first.chance:.3g} ({asked})"


def level(tries: int) -> float:
    """The chance under which a candidate is taken that is the so-manyth on the same rows. These sum to `SURE` over however many, and so, by
    the union bound, that any is taken which is no better has no greater chance, whatever they have in common."""
    return SURE / (tries * (tries + 1))


def judged(metrics: Sequence[Metric], old: Arm, new: Arm, seed: int = 0, tries: int = 1) -> Judgement:
    """A candidate's answers held against the incumbent's, case by case."""
    wanted = level(tries)
    return Judgement(
        metrics[0].name,
        [(one.name, difference(one, old.cases, new.cases, seed=seed, level=SURE if at else wanted)) for at, one in enumerate(metrics)],
        seed,
        tries,
    )


def learnt(card: Card, folder: Path) -> tuple[str, ...]:
    """The files of a folder that hold what an agent has learnt; the one that names the others comes last. None where there are none."""
    if card.kind == "model":
        return (WEIGHTS, CONFIG)
    if not os.path.isfile(folder / card.data):
        return ()
    layout = layout_of(card, folder, card.data)
    if layout.linear is None:
        return (layout.arrays, card.data)
    linear = layout_of(card, folder, _inside(layout.linear.file))
    return (linear.arrays, layout.linear.file, layout.arrays, card.data)


def layout_of(card: Card, folder: Path, name: str) -> Layout:
    """What one of a folder's layouts says. Raises `InputError` A003 or A011."""
    try:
        layout = decoded((folder / name).read_bytes(), Layout)
    except (OSError, NotDecodable) as error:
        raise InputError("A011", f"{card.name}: {name}: {error}", hint="orchestra learn train") from error
    _inside(layout.arrays)
    return layout


def _inside(name: str) -> str:
    """A file's name. Raises `InputError` A003 for a path."""
    if Path(name).name != name:
        raise InputError("A003", f"{name!r} leads out of the card's folder", hint="put the file beside agent.yaml")
    return name


def mark(card: Card, folder: Path) -> str:
    """The digest of what an agent has learnt, as a folder has it; empty where it has nothing."""
    names = learnt(card, folder)
    if not names or not all((folder / name).is_file() for name in names):
        return ""
    return mark_of(folder) if card.kind == "model" else sha256(folder / card.data)  # which names the digest of its arrays


class Layout(msgspec.Struct):
    """What of `model.json`, and of the classifier in a committee, is read here."""

    arrays: str
    linear: _Linear | None = None
    format: str = ""
    sha256: str = ""
    input: str = ""
    beside: str = ""
    output: str = ""
    labels: tuple[Any, ...] = ()


class _Linear(msgspec.Struct, frozen=True):
    file: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where adapters of one agent are: the one in use in its folder, earlier ones on a shelf, by their digests."""

    card: Card
    folder: Path
    """The agent's."""
    shelf: Path

    @classmethod
    def of(cls, card: Card, shelf: Path) -> Shelf:
        """The shelf of an agent. Raises `InputError` N302 for an agent that has no folder of its own, or one that cannot be changed."""
        if card.folder is None:
            raise InputError("N302", f"{card.name} is declared in Python, and has no folder", hint="write it as a folder under agents/")
        if not os.access(card.folder, os.W_OK):
            hint = f"copy it into your project: cp -r {card.folder} agents/"
            raise InputError("N302", f"{card.folder} cannot be changed", hint=hint)
        return cls(card, card.folder, shelf)

    @property
    def place(self) -> Path:
        """The folder of what it has learnt: its adapter's, or its own."""
        if self.card.kind != "model":
            return self.folder
        return self.folder / (ADAPTER if self.named else self.card.adapter or ADAPTER)

    @property
    def named(self) -> str:
        """The adapter that its card names, where that is one of the fleet's; empty for one in the agent's folder, and for none."""
        name = self.card.adapter or ""
        own = (self.folder / name).resolve()
        return "" if own.is_dir() and own.is_relative_to(self.folder.resolve()) else name

    @property
    def current(self) -> str:
        """Digest of what it has learnt; empty for nothing."""
        return mark(self.card, self.place)

    def log(self) -> list[Promotion]:
        """The promotions so far, the oldest first. Raises `InputError` N303 for a log that cannot be read."""
        path = self.folder / LOG
        try:
            return [decoded(line, Promotion) for line in path.read_bytes().splitlines()] if path.exists() else []
        except NotDecodable as error:
            raise InputError("N303", f"{path} cannot be read: {error}", hint="restore it from version control") from error

    def tries(self, rows: Rows) -> int:
        """How many candidates have been judged on these rows, a sample of them or many of them among others; one that was judged again
        counts once. Raises `InputError` N303 for a log that cannot be read."""
        return len({(line.taken, line.given_up, line.tries or -at) for at, line in enumerate(self._on(rows), 1)})

    def before(self, line: Promotion, rows: Rows) -> int:
        """Which of the candidates on these rows it was, where this is no new judgement; 0 where it is one. Raises `InputError` N303."""
        return next((one.tries for one in self._on(rows) if one.again(line)), 0)

    def _on(self, rows: Rows) -> list[Promotion]:
        return [line for line in self.log() if rows.share((line.test_digest,), line.marks)]

    def tried(self, line: Promotion) -> None:
        """Writes down that a candidate was judged and not taken."""
        self._write(line)

    def take(self, candidate: Path, line: Promotion) -> None:
        """Puts what was there onto the shelf, a line into the log, and a candidate into the agent's folder: in this order, so that one that
        is broken off can be rolled back."""
        self._settle()
        self._keep()
        self._write(line)
        self._put(candidate)

    def back(self, at: str) -> Promotion:
        """Gives the agent back what it had before the last promotion that was not rolled back. Raises `InputError` N303 where there is
        none."""
        log = self.log()
        if (undone := standing(log)) is None:
            reason = (
                f"every promotion of {self.card.name} is rolled back"
                if any(line.verb != TRY for line in log)
                else f"{self.card.name} was never promoted"
            )
            raise InputError("N303", reason, hint="orchestra learn promote")
        wanted = undone.given_up
        if wanted and not (self.shelf / wanted).is_dir():
            raise InputError("N303", f"{wanted[:12]} is not in {self.shelf} any more", hint="restore it from version control")
        self._settle()
        line = Promotion(at=at, verb="rollback", taken=wanted, given_up=self.current, named=self.named)
        self._keep()
        if wanted:
            self._put(self.shelf / wanted)
        else:
            self._forget(undone.named)
        self._write(line)
        return line

    def _keep(self) -> None:
        """Copies what is in use onto the shelf: of an adapter all that its folder has. The fleet keeps adapters there too, without what is
        said of them."""
        if not (found := self.current):
            return
        names = _with_record(learnt(self.card, self.place), self.place)
        if self.card.kind == "model":
            names = tuple(path.name for path in self.place.iterdir() if path.is_file())
        kept = self.shelf / found
        partial = kept if kept.is_dir() else self.shelf / f".{found}"
        partial.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not (partial / name).is_file():
                write_file(partial / name, (self.place / name).read_bytes())
        if partial != kept:
            os.replace(partial, kept)

    def _put(self, source: Path) -> None:
        if self.card.kind == "model":
            self._place(source)
            self._name_it()
            return
        *others, layout = learnt(self.card, source)
        for name in others:
            place = self.folder / (aside(name, sha256(source / name)) if (self.folder / name).exists() else name)
            write_file(place, (source / name).read_bytes())
        for name in _with_record((layout,), source):
            write_file(self.folder / name, (source / name).read_bytes())
        for name in SAID:
            if not (source / name).is_file():  # of what was there before, which the shelf has with it
                (self.folder / name).unlink(missing_ok=True)
        self._settle()

    def _settle(self) -> None:
        """Moves what lies aside into its place, where the layout that is there names it, and takes the rest away: what was put there by
        somebody who was killed. Other files whose names begin so, such as an editor's, are somebody's own."""
        if self.card.kind == "model" or not (self.folder / self.card.data).is_file():
            return
        layout = layout_of(self.card, self.folder, self.card.data)
        self._move(layout.arrays, layout.sha256)
        if layout.linear is not None:
            self._move(layout.linear.file, layout.linear.sha256)
            linear = layout_of(self.card, self.folder, layout.linear.file)
            self._move(linear.arrays, linear.sha256)
        names = "|".join(re.escape(name) for name in (*learnt(self.card, self.folder), *SAID))
        ours = re.compile(rf"\.({names}){_MARK}|\.\.({names}){_MARK}{_MARK}")
        for left in list(self.folder.iterdir()):
            if ours.fullmatch(left.name) and left.is_file() and not left.is_symlink():
                left.unlink()

    def _move(self, name: str, sha256: str) -> None:
        if (new := self.folder / aside(_inside(name), sha256)).is_file():
            os.replace(new, self.folder / name)

    def _place(self, source: Path) -> None:
        """Puts an adapter's folder in the place of the one that is there."""
        place = self.place
        new = place.with_name(f".{place.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(source, new)
        swap_folder(new, place)

    def _name_it(self) -> None:
        """Makes the card name its adapter, where it does not yet."""
        if self.named or not self.card.adapter:
            self._say(f"{FIELD}: {ADAPTER}\n")

    def _say(self, line: str) -> None:
        """Puts a line in the place of the one of the card that names its adapter."""
        path = self.folder / FILE
        text = path.read_text("utf-8")
        told = _LINE.sub(line, text, count=1) if _LINE.search(text) else f"{text.rstrip()}\n{line}"
        write_file(path, told.rstrip("\n").encode() + b"\n")

    def _forget(self, named: str) -> None:
        """Takes the adapter away, and its line out of the card, or gives it the name that it had; arrays all of them, so that the agent is
        not trained."""
        if self.card.kind != "model":
            for name in reversed(_with_record(learnt(self.card, self.folder), self.folder)):  # first the one that names the others
                (self.folder / name).unlink(missing_ok=True)
            return
        place = self.place
        self._say(f"{FIELD}: {named}\n" if named else "")
        shutil.rmtree(place, ignore_errors=True)

    def _write(self, line: Promotion) -> None:
        with (self.folder / LOG).open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())


def standing(log: Sequence[Promotion]) -> Promotion | None:
    """The last promotion that is not undone: one is undone by a rollback to what it gave up. Rollbacks of before, which brought back what
    had just been rolled back, count as promotions."""
    stack: list[Promotion] = []
    for line in log:
        if line.verb == TRY:
            continue
        if line.verb == "rollback" and stack and stack[-1].given_up == line.taken:
            stack.pop()
        else:
            stack.append(line)
    return stack[-1] if stack else None


def _with_record(names: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """Files, and before them what is said of the training, and of what was learnt from, where that is there."""
    return (*(name for name in SAID if (folder / name).is_file()), *names)


def promotion(
    shelf: Shelf,
    taken: str,
    at: str,
    judgement: Judgement,
    arms: Sequence[tuple[str, float]],
    test: Test,
    rows: Rows,
    *,
    known: tuple[str, ...] = (),
) -> Promotion:
    """The line of a promotion."""
    first = judgement.differences[0][1]
    return Promotion(
        at=at,
        verb="promote",
        taken=taken,
        given_up=shelf.current,
        test=test.name,
        test_digest=test.digest,
        marks=Marks.of(rows.marks, SKETCH) if rows.marks else msgspec.UNSET,
        metric=judgement.metric,
        figures=dict(arms),
        difference=str(first),
        chance=first.chance,
        seed=judgement.seed,
        tries=judgement.tries,
        known=known,
        named=shelf.named,
    )
