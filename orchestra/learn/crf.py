"""Training of taggers: a conditional random field by CRFsuite (Okazaki 2007,
https://www.chokkan.org/software/crfsuite), stored as plain arrays.

Training takes seconds on one core for thousands of texts. It is L-BFGS with L1 and L2 penalties and deterministic: the
same rows give the same arrays. The file that CRFsuite writes is parsed once and deleted; the shipped files are arrays
for `orchestra.agents.inference.crf_tagger`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import pack_arrays
from orchestra.agents.inference.crf_tagger import OUTSIDE, TaggerFeatures, slot_labels, split_words
from orchestra.core.errors import InputError
from orchestra.schema.strict_yaml import load_yaml

ARRAYS_FILE = "weights.npz"
WORDS_FILE = "words.yaml"
"""A file in the folder of an agent: lists of words by class name."""


class TaggedRow(Protocol):
    """A text with its slots."""

    @property
    def input(self) -> Mapping[str, Any]:
        """The inputs of the agent by name."""

    @property
    def output(self) -> Any:
        """The expected output."""


@dataclass(frozen=True, slots=True)
class CrfHyperparameters:
    """Hyperparameters of a tagger, chosen by cross-validation on the training split of Restaurant8k."""

    l1: float = 0.05
    l2: float = 0.05
    iterations: int = 100


@dataclass(frozen=True, slots=True)
class TaggerFields:
    """The fields that a tagger reads and writes, and its word classes."""

    input: str
    output: str
    hint: str = ""
    words: Mapping[str, Sequence[str]] | None = None
    """Words by class name."""

    @classmethod
    def from_card(cls, card: Card) -> TaggerFields:
        """Returns the fields of a card of kind `tagger`: the first text input, the first list input, the first output
        field, and `words.yaml`.

        Raises:
            InputError: N151 if the card has no text input or no output field; L-codes if `words.yaml` is invalid.
        """
        fields: Mapping[str, Any] = card.input_schema.get("properties", {})
        text = next((name for name, schema in fields.items() if schema.get("type") == "string"), None)
        output = next(iter(card.output_schema.get("properties", {})), None)
        if text is None or output is None:
            hint = "input: {text: str}, output: {slots: 'dict[str, Span]'}"
            raise InputError(
                "N151",
                f"{card.name} is not a tagger: a tagger has a text input and an output field for slots",
                hint=hint,
            )
        hint = next((name for name, schema in fields.items() if schema.get("type") == "array"), "")
        path = card.folder / WORDS_FILE if card.folder is not None else None
        words = load_yaml(path.read_bytes(), str(path)).value if path is not None and path.is_file() else {}
        return cls(text, output, hint, words)

    @property
    def word_classes(self) -> dict[str, tuple[str, ...]]:
        """Returns the class names of each word."""
        word_classes: dict[str, tuple[str, ...]] = {}
        for name, words in sorted((self.words or {}).items()):
            for word in words:
                word_classes[word.lower()] = (*word_classes.get(word.lower(), ()), name)
        return word_classes


@dataclass(frozen=True, slots=True)
class TrainedTagger:
    """A tagger as the contents of its two files, and the number of rows that were used."""

    config_json: str
    arrays: bytes
    rows: int
    left_out: int
    """Number of rows with a slot that begins or ends inside a word."""
    features: int


def train(
    rows: Sequence[TaggedRow], fields: TaggerFields, hyperparameters: CrfHyperparameters = CrfHyperparameters()
) -> TrainedTagger:
    """Trains a tagger.

    Raises:
        InputError: N101 if CRFsuite is not installed; N150 if no row has a slot.
    """
    try:
        import pycrfsuite
    except ImportError as error:
        raise InputError(
            "N101", "training a tagger needs python-crfsuite", hint="pip install 'orchestra-slm[learn]'"
        ) from error
    features, trainer, used_rows = TaggerFeatures(fields.word_classes), pycrfsuite.Trainer(verbose=False), 0
    known_labels = {OUTSIDE}
    for row in rows:
        words = split_words(str(row.input[fields.input]))
        labels = slot_labels(words, row.output[fields.output])
        if words and labels is not None:
            trainer.append(features.extract(words, row.input.get(fields.hint) or () if fields.hint else ()), labels)
            used_rows += 1
            known_labels.update(labels)
    if len(known_labels) == 1:
        raise InputError(
            "N150",
            "no row has a slot",
            hint='{"input": {"text": "for 8"}, "output": {"slots": {"people": {...}}}}',
        )
    trainer.set_params(
        {
            "c1": hyperparameters.l1,
            "c2": hyperparameters.l2,
            "max_iterations": hyperparameters.iterations,
            "feature.possible_transitions": True,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "chain.crfsuite")
        trainer.train(path)
        tagger = pycrfsuite.Tagger()
        with tagger.open(path):
            info = tagger.info()
    return _pack_model(info, fields, sorted(known_labels), used_rows, len(rows))


def _pack_model(info: Any, places: TaggerFields, labels: list[str], used_rows: int, rows: int) -> TrainedTagger:
    import numpy

    number = {label: at for at, label in enumerate(labels)}
    names = sorted({name for name, _ in info.state_features})
    row_of = {name: at for at, name in enumerate(names)}
    weights = numpy.zeros((len(names), len(labels)), dtype=numpy.float32)
    for (name, label), weight in info.state_features.items():
        weights[row_of[name], number[label]] = weight
    transitions = numpy.zeros((len(labels), len(labels)), dtype=numpy.float32)
    for (before, after), weight in info.transitions.items():
        transitions[number[before], number[after]] = weight
    arrays: dict[str, Any] = {
        "vocabulary": numpy.frombuffer("\n".join(names).encode(), dtype=numpy.uint8),
        "weights": weights,
        "transitions": transitions,
    }
    layout = {
        "format": "orchestra/tagger/v1",
        "input": places.input,
        "hint": places.hint,
        "output": places.output,
        "words": places.word_classes,
        "labels": labels,
        "arrays": ARRAYS_FILE,
    }
    text, data = pack_arrays(layout, arrays)
    return TrainedTagger(text, data, used_rows, rows - used_rows, len(names))
