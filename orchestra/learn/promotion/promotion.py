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

from orchestra.agents.card import CARD_FILE, Card
from orchestra.agents.inference.array_files import staged_name
from orchestra.core.atomic_files import replace_folder, write_file
from orchestra.core.errors import InputError
from orchestra.fleet.adapters import adapter_digest
from orchestra.fleet.weights.adapter_checks import CONFIG, WEIGHTS
from orchestra.fleet.weights.download import file_sha256
from orchestra.learn.evaluation.bootstrap import PairedDifference, paired_difference
from orchestra.learn.evaluation.evaluation import Arm
from orchestra.learn.evaluation.metrics import Metric
from orchestra.learn.evaluation.rows import EvaluationSet
from orchestra.schema.strict_json import JsonDecodingError, decode_json
from orchestra.verification.certificates.row_fingerprints import SAMPLE_SIZE, RowFingerprints, RowSet

ADAPTER_FOLDER = "adapter"
"""The folder of an agent's adapter, and the name that its card gives it."""
LOG_FILE = "promotions.jsonl"
TRY = "try"
"""What a line of the log is where a candidate was judged and not taken."""
PROVENANCE_FILE = "learnt_from.json"
"""The record of what an agent has learnt from, beside what it has learnt (`orchestra.learn.data.provenance`)."""
TRAINING_FILE, CURVE_FILE = "training.json", "loss.svg"
"""What an encoder's training was, and the picture of its loss (`orchestra.learn.encoders.record`)."""
RECORD_FILES = (PROVENANCE_FILE, TRAINING_FILE, CURVE_FILE)
"""What is said beside what an agent has learnt."""
MAX_BYTES = 10_000_000
"""Bytes of an adapter's weights at most: it is kept in version control."""
ADAPTER_KEY = "adapter"
_ADAPTER_LINE = re.compile(r"^adapter:.*\n?", re.MULTILINE)
"""The key of a card that names its adapter, and its line."""
_DIGEST_SUFFIX = r"\.[0-9a-f]{16}"
"""What the name of a file that is aside ends in (`aside`), and of one that is being written (`write_file`)."""
FAMILY_ERROR_RATE = 0.05
"""The chance that any of the candidates which are tried on the same rows is taken, where none is better: at most, however many they are."""


class PromotionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log."""

    at: str
    """UTC, ISO 8601."""
    verb: str
    """`promote`, `rollback`, or `try` for a candidate that was not taken."""
    new_digest: str
    """Digest of the adapter that the agent has from then on; empty for none. Of a try that of the candidate."""
    previous_digest: str
    """Digest of those that it had; empty for none. Of a try what it keeps."""
    test: str = ""
    test_digest: str = ""
    fingerprints: RowFingerprints | msgspec.UnsetType = msgspec.UNSET
    """Of the inputs of the rows, a sample: by which they are known again. Not there in lines of before."""
    metric: str = ""
    figures: dict[str, float] = {}
    difference: str = ""
    p_value: float | None = None
    seed: int = 0
    """By which answers were exchanged, and rows drawn."""
    tries: int = 0
    """How many candidates these rows have seen by then, with this one; 0 where nobody counted."""
    training_overlap: tuple[str, ...] = ()
    """What is to be said of rows of the test that either was trained on."""
    previous_fleet_adapter: str = ""
    """The adapter of the fleet that its card named before; empty for one in the agent's folder, and for none."""

    def repeats(self, other: PromotionRecord) -> bool:
        """Whether another judgement on the same rows is no other chance to be lucky: it is of the same two, and came to the same, or the
        candidate was taken here because it was better, and not by force."""
        if not self.tries or (self.new_digest, self.previous_digest, self.metric) != (
            other.new_digest,
            other.previous_digest,
            other.metric,
        ):
            return False
        if (self.test, self.seed, self.figures) == (other.test, other.seed, other.figures):
            return True
        return self.verb != TRY and self.p_value is not None and self.p_value < significance_level(self.tries)


@dataclass(frozen=True, slots=True)
class CandidateComparison:
    """Whether a candidate is better than what is there."""

    metric: str
    differences: Sequence[tuple[str, PairedDifference]]
    """By metric; the first one decides."""
    seed: int = 0
    tries: int = 1
    """How many candidates these rows have seen, with this one."""

    @property
    def is_better(self) -> bool:
        """Whether it surely is."""
        return self.differences[0][1].p_value < significance_level(self.tries)

    def __str__(self) -> str:
        first = self.differences[0][1]
        verdict = "surely better" if self.is_better else "not surely better"
        asked = f"less than {significance_level(self.tries):.3g} is asked of candidate {self.tries:,} on these rows"
        return f"{verdict}: {self.metric} {first}, p = {first.p_value:.3g} ({asked})"


def significance_level(tries: int) -> float:
    """The chance under which a candidate is taken that is the so-manyth on the same rows. These sum to `FAMILY_ERROR_RATE` over however many, and so, by
    the union bound, that any is taken which is no better has no greater chance, whatever they have in common."""
    return FAMILY_ERROR_RATE / (tries * (tries + 1))


def compare_candidate(metrics: Sequence[Metric], incumbent: Arm, candidate: Arm, seed: int = 0, tries: int = 1) -> CandidateComparison:
    """A candidate's answers held against the incumbent's, case by case."""
    wanted = significance_level(tries)
    return CandidateComparison(
        metrics[0].name,
        [
            (one.name, paired_difference(one, incumbent.cases, candidate.cases, seed=seed, level=FAMILY_ERROR_RATE if at else wanted))
            for at, one in enumerate(metrics)
        ],
        seed,
        tries,
    )


def learnt_files(card: Card, folder: Path) -> tuple[str, ...]:
    """The files of a folder that hold what an agent has learnt; the one that names the others comes last. None where there are none."""
    if card.kind == "model":
        return (WEIGHTS, CONFIG)
    if not os.path.isfile(folder / card.data):
        return ()
    layout = read_model_config(card, folder, card.data)
    if layout.linear is None:
        return (layout.arrays, card.data)
    linear = read_model_config(card, folder, _check_file_name(layout.linear.file))
    return (linear.arrays, layout.linear.file, layout.arrays, card.data)


def read_model_config(card: Card, folder: Path, name: str) -> SavedModelConfig:
    """What one of a folder's layouts says. Raises `InputError` A003 or A011."""
    try:
        layout = decode_json((folder / name).read_bytes(), SavedModelConfig)
    except (OSError, JsonDecodingError) as error:
        raise InputError("A011", f"{card.name}: {name}: {error}", hint="orchestra learn train") from error
    _check_file_name(layout.arrays)
    return layout


def _check_file_name(name: str) -> str:
    """A file's name. Raises `InputError` A003 for a path."""
    if Path(name).name != name:
        raise InputError("A003", f"{name!r} leads out of the card's folder", hint="put the file beside agent.yaml")
    return name


def weights_digest(card: Card, folder: Path) -> str:
    """The digest of what an agent has learnt, as a folder has it; empty where it has nothing."""
    names = learnt_files(card, folder)
    if not names or not all((folder / name).is_file() for name in names):
        return ""
    return adapter_digest(folder) if card.kind == "model" else file_sha256(folder / card.data)  # which names the digest of its arrays


class SavedModelConfig(msgspec.Struct):
    """What of `model.json_rule`, and of the classifier in a committee, is read here."""

    arrays: str
    linear: _LinearFile | None = None
    format: str = ""
    sha256: str = ""
    input: str = ""
    beside: str = ""
    output: str = ""
    labels: tuple[Any, ...] = ()


class _LinearFile(msgspec.Struct, frozen=True):
    file: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class AdapterStore:
    """Where adapters of one agent are: the one in use in its folder, earlier ones on a shelf, by their digests."""

    card: Card
    folder: Path
    """The agent's."""
    archive: Path

    @classmethod
    def for_agent(cls, card: Card, archive: Path) -> AdapterStore:
        """The shelf of an agent. Raises `InputError` N302 for an agent that has no folder of its own, or one that cannot be changed."""
        if card.folder is None:
            raise InputError("N302", f"{card.name} is declared in Python, and has no folder", hint="write it as a folder under agents/")
        if not os.access(card.folder, os.W_OK):
            hint = f"copy it into your project: cp -r {card.folder} agents/"
            raise InputError("N302", f"{card.folder} cannot be changed", hint=hint)
        return cls(card, card.folder, archive)

    @property
    def current_folder(self) -> Path:
        """The folder of what it has learnt: its adapter's, or its own."""
        if self.card.kind != "model":
            return self.folder
        return self.folder / (ADAPTER_FOLDER if self.fleet_adapter else self.card.adapter or ADAPTER_FOLDER)

    @property
    def fleet_adapter(self) -> str:
        """The adapter that its card names, where that is one of the fleet's; empty for one in the agent's folder, and for none."""
        name = self.card.adapter or ""
        own = (self.folder / name).resolve()
        return "" if own.is_dir() and own.is_relative_to(self.folder.resolve()) else name

    @property
    def current_digest(self) -> str:
        """Digest of what it has learnt; empty for nothing."""
        return weights_digest(self.card, self.current_folder)

    def promotions(self) -> list[PromotionRecord]:
        """The promotions so far, the oldest first. Raises `InputError` N303 for a log that cannot be read."""
        path = self.folder / LOG_FILE
        try:
            return [decode_json(line, PromotionRecord) for line in path.read_bytes().splitlines()] if path.exists() else []
        except JsonDecodingError as error:
            raise InputError("N303", f"{path} cannot be read: {error}", hint="restore it from version control") from error

    def count_candidates(self, rows: RowSet) -> int:
        """How many candidates have been judged on these rows, a sample of them or many of them among others; one that was judged again
        counts once. Raises `InputError` N303 for a log that cannot be read."""
        return len({(line.new_digest, line.previous_digest, line.tries or -at) for at, line in enumerate(self._promotions_on(rows), 1)})

    def earlier_number(self, line: PromotionRecord, rows: RowSet) -> int:
        """Which of the candidates on these rows it was, where this is no new judgement; 0 where it is one. Raises `InputError` N303."""
        return next((one.tries for one in self._promotions_on(rows) if one.repeats(line)), 0)

    def _promotions_on(self, rows: RowSet) -> list[PromotionRecord]:
        return [line for line in self.promotions() if rows.overlaps((line.test_digest,), line.fingerprints)]

    def record_try(self, line: PromotionRecord) -> None:
        """Writes down that a candidate was judged and not taken."""
        self._append_record(line)

    def promote(self, candidate: Path, line: PromotionRecord) -> None:
        """Puts what was there onto the shelf, a line into the log, and a candidate into the agent's folder: in this order, so that one that
        is broken off can be rolled back."""
        self._finish_interrupted()
        self._archive_current()
        self._append_record(line)
        self._install(candidate)

    def roll_back(self, at: str) -> PromotionRecord:
        """Gives the agent back what it had before the last promotion that was not rolled back. Raises `InputError` N303 where there is
        none."""
        log = self.promotions()
        if (undone := last_promotion(log)) is None:
            reason = (
                f"every promotion of {self.card.name} is rolled back"
                if any(line.verb != TRY for line in log)
                else f"{self.card.name} was never promoted"
            )
            raise InputError("N303", reason, hint="orchestra learn promote")
        wanted = undone.previous_digest
        if wanted and not (self.archive / wanted).is_dir():
            raise InputError("N303", f"{wanted[:12]} is not in {self.archive} any more", hint="restore it from version control")
        self._finish_interrupted()
        line = PromotionRecord(
            at=at, verb="rollback", new_digest=wanted, previous_digest=self.current_digest, previous_fleet_adapter=self.fleet_adapter
        )
        self._archive_current()
        if wanted:
            self._install(self.archive / wanted)
        else:
            self._remove_learnt(undone.previous_fleet_adapter)
        self._append_record(line)
        return line

    def _archive_current(self) -> None:
        """Copies what is in use onto the shelf: of an adapter all that its folder has. The fleet keeps adapters there too, without what is
        said of them."""
        if not (found := self.current_digest):
            return
        names = _with_record_files(learnt_files(self.card, self.current_folder), self.current_folder)
        if self.card.kind == "model":
            names = tuple(path.name for path in self.current_folder.iterdir() if path.is_file())
        kept = self.archive / found
        partial = kept if kept.is_dir() else self.archive / f".{found}"
        partial.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not (partial / name).is_file():
                write_file(partial / name, (self.current_folder / name).read_bytes())
        if partial != kept:
            os.replace(partial, kept)

    def _install(self, source: Path) -> None:
        if self.card.kind == "model":
            self._replace_adapter_folder(source)
            self._ensure_adapter_key()
            return
        *others, layout = learnt_files(self.card, source)
        for name in others:
            place = self.folder / (staged_name(name, file_sha256(source / name)) if (self.folder / name).exists() else name)
            write_file(place, (source / name).read_bytes())
        for name in _with_record_files((layout,), source):
            write_file(self.folder / name, (source / name).read_bytes())
        for name in RECORD_FILES:
            if not (source / name).is_file():  # of what was there before, which the shelf has with it
                (self.folder / name).unlink(missing_ok=True)
        self._finish_interrupted()

    def _finish_interrupted(self) -> None:
        """Moves what lies aside into its place, where the layout that is there names it, and takes the rest away: what was put there by
        somebody who was killed. Other files whose names begin so, such as an editor's, are somebody's own."""
        if self.card.kind == "model" or not (self.folder / self.card.data).is_file():
            return
        layout = read_model_config(self.card, self.folder, self.card.data)
        self._move_into_place(layout.arrays, layout.sha256)
        if layout.linear is not None:
            self._move_into_place(layout.linear.file, layout.linear.sha256)
            linear = read_model_config(self.card, self.folder, layout.linear.file)
            self._move_into_place(linear.arrays, linear.sha256)
        names = "|".join(re.escape(name) for name in (*learnt_files(self.card, self.folder), *RECORD_FILES))
        ours = re.compile(rf"\.({names}){_DIGEST_SUFFIX}|\.\.({names}){_DIGEST_SUFFIX}{_DIGEST_SUFFIX}")
        for left in list(self.folder.iterdir()):
            if ours.fullmatch(left.name) and left.is_file() and not left.is_symlink():
                left.unlink()

    def _move_into_place(self, name: str, sha256: str) -> None:
        if (new := self.folder / staged_name(_check_file_name(name), sha256)).is_file():
            os.replace(new, self.folder / name)

    def _replace_adapter_folder(self, source: Path) -> None:
        """Puts an adapter's folder in the place of the one that is there."""
        place = self.current_folder
        new = place.with_name(f".{place.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(source, new)
        replace_folder(new, place)

    def _ensure_adapter_key(self) -> None:
        """Makes the card name its adapter, where it does not yet."""
        if self.fleet_adapter or not self.card.adapter:
            self._write_adapter_line(f"{ADAPTER_KEY}: {ADAPTER_FOLDER}\n")

    def _write_adapter_line(self, line: str) -> None:
        """Puts a line in the place of the one of the card that names its adapter."""
        path = self.folder / CARD_FILE
        text = path.read_text("utf-8")
        told = _ADAPTER_LINE.sub(line, text, count=1) if _ADAPTER_LINE.search(text) else f"{text.rstrip()}\n{line}"
        write_file(path, told.rstrip("\n").encode() + b"\n")

    def _remove_learnt(self, named: str) -> None:
        """Takes the adapter away, and its line out of the card, or gives it the name that it had; arrays all of them, so that the agent is
        not trained."""
        if self.card.kind != "model":
            for name in reversed(
                _with_record_files(learnt_files(self.card, self.folder), self.folder)
            ):  # first the one that names the others
                (self.folder / name).unlink(missing_ok=True)
            return
        place = self.current_folder
        self._write_adapter_line(f"{ADAPTER_KEY}: {named}\n" if named else "")
        shutil.rmtree(place, ignore_errors=True)

    def _append_record(self, line: PromotionRecord) -> None:
        with (self.folder / LOG_FILE).open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())


def last_promotion(log: Sequence[PromotionRecord]) -> PromotionRecord | None:
    """The last promotion that is not undone: one is undone by a rollback to what it gave up. Rollbacks of before, which brought back what
    had just been rolled back, count as promotions."""
    stack: list[PromotionRecord] = []
    for line in log:
        if line.verb == TRY:
            continue
        if line.verb == "rollback" and stack and stack[-1].previous_digest == line.new_digest:
            stack.pop()
        else:
            stack.append(line)
    return stack[-1] if stack else None


def _with_record_files(names: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """Files, and before them what is said of the training, and of what was learnt from, where that is there."""
    return (*(name for name in RECORD_FILES if (folder / name).is_file()), *names)


def promotion_record(
    store: AdapterStore,
    taken: str,
    at: str,
    judgement: CandidateComparison,
    arms: Sequence[tuple[str, float]],
    test: EvaluationSet,
    rows: RowSet,
    *,
    training_overlap: tuple[str, ...] = (),
) -> PromotionRecord:
    """The line of a promotion."""
    first = judgement.differences[0][1]
    return PromotionRecord(
        at=at,
        verb="promote",
        new_digest=taken,
        previous_digest=store.current_digest,
        test=test.name,
        test_digest=test.digest,
        fingerprints=RowFingerprints.of(rows.fingerprints, SAMPLE_SIZE) if rows.fingerprints else msgspec.UNSET,
        metric=judgement.metric,
        figures=dict(arms),
        difference=str(first),
        p_value=first.p_value,
        seed=judgement.seed,
        tries=judgement.tries,
        training_overlap=training_overlap,
        previous_fleet_adapter=store.fleet_adapter,
    )
