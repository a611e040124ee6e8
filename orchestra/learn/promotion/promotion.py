"""Promotion: a candidate replaces what an agent has learnt if it is significantly better; one command undoes it.

Earlier weights stay in the store of adapters by digest. `promotions.jsonl` in the agent's folder records promotions
with their figures, and rejected candidates: the more candidates were compared on the same rows, the stricter the test
for the next one.

Arrays are stored under their digests, and the file that names them is renamed into place: this single step makes the
agent use the new arrays, and only then they replace the old ones. A killed promotion leaves either the old or the new
weights. A reader that combines the old file with new arrays gets error A011 and reads again.
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
"""The folder of an agent's adapter, and its name in the card."""
LOG_FILE = "promotions.jsonl"
TRY = "try"
"""The verb of a log line for a candidate that was rejected."""
PROVENANCE_FILE = "learnt_from.json"
"""The provenance record of an agent's training (`orchestra.learn.data.provenance`)."""
TRAINING_FILE, CURVE_FILE = "training.json", "loss.svg"
"""The training record of an encoder and its loss curve (`orchestra.learn.encoders.record`)."""
RECORD_FILES = (PROVENANCE_FILE, TRAINING_FILE, CURVE_FILE)
"""Files of records beside the weights."""
MAX_BYTES = 10_000_000
"""Maximal size of an adapter's weights in bytes: they are kept in version control."""
ADAPTER_KEY = "adapter"
_ADAPTER_LINE = re.compile(r"^adapter:.*\n?", re.MULTILINE)
"""The line of a card that names its adapter."""
_DIGEST_SUFFIX = r"\.[0-9a-f]{16}"
"""The suffix of an archived file (`staged_name`), and of one that is being written (`write_file`)."""
FAMILY_ERROR_RATE = 0.05
"""Maximal probability that any of the candidates compared on the same rows is promoted although none is better."""


class PromotionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log."""

    at: str
    """UTC, ISO 8601."""
    verb: str
    """`promote`, `rollback`, or `try` for a rejected candidate."""
    new_digest: str
    """Digest of the new weights; empty for none. For a try, that of the candidate."""
    previous_digest: str
    """Digest of the previous weights; empty for none. For a try, that of the kept weights."""
    test: str = ""
    test_digest: str = ""
    fingerprints: RowFingerprints | msgspec.UnsetType = msgspec.UNSET
    """A sample of the fingerprints of the rows, which identifies them. Missing in lines of earlier versions."""
    metric: str = ""
    figures: dict[str, float] = {}
    difference: str = ""
    p_value: float | None = None
    seed: int = 0
    """Seed of the permutations and of the sample of rows."""
    tries: int = 0
    """Number of candidates compared on these rows so far, including this one; 0 if not counted."""
    training_overlap: tuple[str, ...] = ()
    """Remarks on evaluation rows that either arm was trained on."""
    previous_fleet_adapter: str = ""
    """The fleet adapter that the card named before; empty if it named none, or one in the agent's folder."""

    def repeats(self, other: PromotionRecord) -> bool:
        """Returns whether another comparison on the same rows adds no further chance: it compares the same weights with
        the same result, or the candidate was promoted by this comparison and not by `--force`.
        """
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
    """The comparison of a candidate with the current weights."""

    metric: str
    differences: Sequence[tuple[str, PairedDifference]]
    """Differences by metric; the first one decides."""
    seed: int = 0
    tries: int = 1
    """Number of candidates compared on these rows, including this one."""

    @property
    def is_better(self) -> bool:
        """Returns whether the candidate is significantly better."""
        return self.differences[0][1].p_value < significance_level(self.tries)

    def __str__(self) -> str:
        first = self.differences[0][1]
        verdict = "significantly better" if self.is_better else "not significantly better"
        requirement = f"candidate {self.tries:,} on these rows needs less than {significance_level(self.tries):.3g}"
        return f"{verdict}: {self.metric} {first}, p = {first.p_value:.3g} ({requirement})"


def significance_level(tries: int) -> float:
    """Returns the significance level for the n-th candidate on the same rows. The levels sum to `FAMILY_ERROR_RATE`. By
    the union bound this limits the probability that any candidate is promoted without being better, under any
    dependence.
    """
    return FAMILY_ERROR_RATE / (tries * (tries + 1))


def compare_candidate(
    metrics: Sequence[Metric], incumbent: Arm, candidate: Arm, seed: int = 0, tries: int = 1
) -> CandidateComparison:
    """Compares a candidate's answers with the incumbent's, case by case."""
    level = significance_level(tries)
    return CandidateComparison(
        metrics[0].name,
        [
            (
                metric.name,
                paired_difference(
                    metric, incumbent.cases, candidate.cases, seed=seed, level=FAMILY_ERROR_RATE if at else level
                ),
            )
            for at, metric in enumerate(metrics)
        ],
        seed,
        tries,
    )


def learnt_files(card: Card, folder: Path) -> tuple[str, ...]:
    """Returns the files of a folder with what an agent has learnt; the file that names the others is last. None if
    there are none.
    """
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
    """Reads a model file of a folder.

    Raises:
        InputError: A003 or A011 if it is invalid.
    """
    try:
        layout = decode_json((folder / name).read_bytes(), SavedModelConfig)
    except (OSError, JsonDecodingError) as error:
        raise InputError("A011", f"{card.name}: {name}: {error}", hint="orchestra learn train") from error
    _check_file_name(layout.arrays)
    return layout


def _check_file_name(name: str) -> str:
    """Returns a file name. Raises `InputError` A003 if it is a path."""
    if Path(name).name != name:
        raise InputError("A003", f"{name!r} is outside of the card's folder", hint="put the file beside agent.yaml")
    return name


def weights_digest(card: Card, folder: Path) -> str:
    """Returns the digest of the weights in a folder; empty if there are none."""
    names = learnt_files(card, folder)
    if not names or not all((folder / name).is_file() for name in names):
        return ""
    return (
        adapter_digest(folder) if card.kind == "model" else file_sha256(folder / card.data)
    )  # it has the digest of its arrays


class SavedModelConfig(msgspec.Struct):
    """The parts of `model.json`, and of a committee's classifier, that are read here."""

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
    """The weights of one agent: the current ones in its folder, earlier ones in the store by digest."""

    card: Card
    folder: Path
    """The agent's folder."""
    archive: Path

    @classmethod
    def for_agent(cls, card: Card, archive: Path) -> AdapterStore:
        """Returns the store of an agent.

        Raises:
            InputError: N302 if the agent has no folder of its own, or the folder is not writable.
        """
        if card.folder is None:
            raise InputError(
                "N302",
                f"{card.name} is declared in Python, and has no folder",
                hint="write it as a folder under agents/",
            )
        if not os.access(card.folder, os.W_OK):
            hint = f"copy it into your project: cp -r {card.folder} agents/"
            raise InputError("N302", f"{card.folder} is not writable", hint=hint)
        return cls(card, card.folder, archive)

    @property
    def current_folder(self) -> Path:
        """The folder of the current weights: that of its adapter, or the agent's own."""
        if self.card.kind != "model":
            return self.folder
        return self.folder / (ADAPTER_FOLDER if self.fleet_adapter else self.card.adapter or ADAPTER_FOLDER)

    @property
    def fleet_adapter(self) -> str:
        """The fleet adapter that the card names; empty if it names none, or one in the agent's folder."""
        name = self.card.adapter or ""
        path = (self.folder / name).resolve()
        return "" if path.is_dir() and path.is_relative_to(self.folder.resolve()) else name

    @property
    def current_digest(self) -> str:
        """The digest of the current weights; empty for none."""
        return weights_digest(self.card, self.current_folder)

    def promotions(self) -> list[PromotionRecord]:
        """Returns the promotions, oldest first.

        Raises:
            InputError: N303 if the log cannot be read.
        """
        path = self.folder / LOG_FILE
        try:
            return (
                [decode_json(line, PromotionRecord) for line in path.read_bytes().splitlines()] if path.exists() else []
            )
        except JsonDecodingError as error:
            raise InputError(
                "N303", f"{path} cannot be read: {error}", hint="restore it from version control"
            ) from error

    def count_candidates(self, rows: RowSet) -> int:
        """Returns the number of candidates compared on these rows, on a sample of them, or on sets with many of them. A
        repeated comparison counts once.

        Raises:
            InputError: N303 if the log cannot be read.
        """
        return len(
            {
                (line.new_digest, line.previous_digest, line.tries or -at)
                for at, line in enumerate(self._promotions_on(rows), 1)
            }
        )

    def earlier_number(self, line: PromotionRecord, rows: RowSet) -> int:
        """Returns the number of a candidate on these rows if the comparison repeats an earlier one; else 0.

        Raises:
            InputError: N303 if the log cannot be read.
        """
        return next((promotion.tries for promotion in self._promotions_on(rows) if promotion.repeats(line)), 0)

    def _promotions_on(self, rows: RowSet) -> list[PromotionRecord]:
        return [line for line in self.promotions() if rows.overlaps((line.test_digest,), line.fingerprints)]

    def record_try(self, line: PromotionRecord) -> None:
        """Records a rejected candidate."""
        self._append_record(line)

    def promote(self, candidate: Path, line: PromotionRecord) -> None:
        """Archives the current weights, adds a line to the log, and installs the candidate: in this order, so an
        interrupted promotion can be rolled back.
        """
        self._finish_interrupted()
        self._archive_current()
        self._append_record(line)
        self._install(candidate)

    def roll_back(self, at: str) -> PromotionRecord:
        """Restores the weights before the last promotion that is not rolled back.

        Raises:
            InputError: N303 if there is none.
        """
        log = self.promotions()
        if (undone := last_promotion(log)) is None:
            reason = (
                f"every promotion of {self.card.name} is rolled back"
                if any(line.verb != TRY for line in log)
                else f"{self.card.name} was never promoted"
            )
            raise InputError("N303", reason, hint="orchestra learn promote")
        previous_digest = undone.previous_digest
        if previous_digest and not (self.archive / previous_digest).is_dir():
            raise InputError(
                "N303",
                f"{previous_digest[:12]} is not in {self.archive} any more",
                hint="restore it from version control",
            )
        self._finish_interrupted()
        line = PromotionRecord(
            at=at,
            verb="rollback",
            new_digest=previous_digest,
            previous_digest=self.current_digest,
            previous_fleet_adapter=self.fleet_adapter,
        )
        self._archive_current()
        if previous_digest:
            self._install(self.archive / previous_digest)
        else:
            self._remove_learnt(undone.previous_fleet_adapter)
        self._append_record(line)
        return line

    def _archive_current(self) -> None:
        """Copies the current weights to the store: for an adapter its complete folder. The fleet keeps adapters there
        too, without records.
        """
        if not (current_digest := self.current_digest):
            return
        names = _with_record_files(learnt_files(self.card, self.current_folder), self.current_folder)
        if self.card.kind == "model":
            names = tuple(path.name for path in self.current_folder.iterdir() if path.is_file())
        archive = self.archive / current_digest
        partial = archive if archive.is_dir() else self.archive / f".{current_digest}"
        partial.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not (partial / name).is_file():
                write_file(partial / name, (self.current_folder / name).read_bytes())
        if partial != archive:
            os.replace(partial, archive)

    def _install(self, source: Path) -> None:
        if self.card.kind == "model":
            self._replace_adapter_folder(source)
            self._ensure_adapter_key()
            return
        *other_files, layout = learnt_files(self.card, source)
        for name in other_files:
            place = self.folder / (
                staged_name(name, file_sha256(source / name)) if (self.folder / name).exists() else name
            )
            write_file(place, (source / name).read_bytes())
        for name in _with_record_files((layout,), source):
            write_file(self.folder / name, (source / name).read_bytes())
        for name in RECORD_FILES:
            if not (source / name).is_file():  # an array of the previous weights, which the store has already
                (self.folder / name).unlink(missing_ok=True)
        self._finish_interrupted()

    def _finish_interrupted(self) -> None:
        """Installs staged files that the current model file names, and deletes the other staged files of a killed
        process. Other files with similar names, such as an editor's, are kept.
        """
        if self.card.kind == "model" or not (self.folder / self.card.data).is_file():
            return
        layout = read_model_config(self.card, self.folder, self.card.data)
        self._move_into_place(layout.arrays, layout.sha256)
        if layout.linear is not None:
            self._move_into_place(layout.linear.file, layout.linear.sha256)
            linear = read_model_config(self.card, self.folder, layout.linear.file)
            self._move_into_place(linear.arrays, linear.sha256)
        names = "|".join(re.escape(name) for name in (*learnt_files(self.card, self.folder), *RECORD_FILES))
        own_pattern = re.compile(rf"\.({names}){_DIGEST_SUFFIX}|\.\.({names}){_DIGEST_SUFFIX}{_DIGEST_SUFFIX}")
        for path in list(self.folder.iterdir()):
            if own_pattern.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                path.unlink()

    def _move_into_place(self, name: str, sha256: str) -> None:
        if (new := self.folder / staged_name(_check_file_name(name), sha256)).is_file():
            os.replace(new, self.folder / name)

    def _replace_adapter_folder(self, source: Path) -> None:
        """Replaces the folder of an adapter."""
        place = self.current_folder
        new = place.with_name(f".{place.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(source, new)
        replace_folder(new, place)

    def _ensure_adapter_key(self) -> None:
        """Adds the adapter to the card if it is missing."""
        if self.fleet_adapter or not self.card.adapter:
            self._write_adapter_line(f"{ADAPTER_KEY}: {ADAPTER_FOLDER}\n")

    def _write_adapter_line(self, line: str) -> None:
        """Replaces the line of the card that names its adapter."""
        path = self.folder / CARD_FILE
        text = path.read_text("utf-8")
        new_text = _ADAPTER_LINE.sub(line, text, count=1) if _ADAPTER_LINE.search(text) else f"{text.rstrip()}\n{line}"
        write_file(path, new_text.rstrip("\n").encode() + b"\n")

    def _remove_learnt(self, previous_fleet_adapter: str) -> None:
        """Removes the adapter, and removes or restores its line in the card; or removes all arrays, so the agent is not
        trained.
        """
        if self.card.kind != "model":
            for name in reversed(
                _with_record_files(learnt_files(self.card, self.folder), self.folder)
            ):  # first the file that names the others
                (self.folder / name).unlink(missing_ok=True)
            return
        place = self.current_folder
        self._write_adapter_line(f"{ADAPTER_KEY}: {previous_fleet_adapter}\n" if previous_fleet_adapter else "")
        shutil.rmtree(place, ignore_errors=True)

    def _append_record(self, line: PromotionRecord) -> None:
        with (self.folder / LOG_FILE).open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())


def last_promotion(log: Sequence[PromotionRecord]) -> PromotionRecord | None:
    """Returns the last promotion that is not undone: a rollback to its previous weights undoes it. Earlier versions had
    rollbacks that restored what had just been rolled back; these count as promotions.
    """
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
    """Returns files, preceded by the existing records of the training and its provenance."""
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
    """Builds the log line of a promotion."""
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
