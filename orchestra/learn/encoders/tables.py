"""Training of table readers: from questions, tables and answers to the files of a card of kind `encoder`.

The base is frozen except for adapters on the linear layers of its blocks, and has a head for tables
(`orchestra.agents.inference.tables.reader`). A row has the answer, and not always its position: if several positions
have the same text, the loss is the negative log of their total probability (marginal likelihood). The tune split
determines the settings of `SEARCH_GRID` and the confidence, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestra.agents.card import Card
from orchestra.agents.inference.tables.encoding import PoolingMatrices, TableEncoding, count_header_rows
from orchestra.agents.inference.tables.filters import FILTERABLE_OPERATIONS, choice_logits, condition_locations
from orchestra.agents.inference.tables.head import OUTPUT_NAMES, TableLogits, table_logits
from orchestra.agents.inference.tables.operations import CELLS, MEAN, OPERATIONS, PAIR_OPERATIONS, SCALES, SUM, TEXT
from orchestra.agents.inference.tables.reader import FORMAT, TableReader, TableReaderConfig, answer_fields, reads_tables
from orchestra.agents.inference.tables.scales import UNIT_SIGNS, UNITS, UnitWeights, unit_signs
from orchestra.core.errors import InputError
from orchestra.learn.compatibility import check_contract
from orchestra.learn.data.dataset import DatasetRow
from orchestra.learn.encoders.table_targets import TableTarget, answers_match, build_target
from orchestra.learn.encoders.training import (
    BATCH_TOKENS,
    PROBABILITY_POWERS,
    HeadTraining,
    TrainedEncoder,
    TrainingExamples,
    maximize_likelihood,
    member_arrays,
)
from orchestra.learn.encoders.training import MIN_TUNE_ROWS as LEAST_ROWS

if TYPE_CHECKING:
    from torch import Tensor

    from orchestra.agents.inference.encoder import Encoder
    from orchestra.learn.encoders.member import TrainingStep
    from orchestra.learn.encoders.tuned import FrozenEncoder, TokenHeadEncoder
    from orchestra.learn.encoders.warm_start import WarmStart

ARRAYS_FILE = "tables.npz"
MAX_NEWTON_STEPS: Final = 50
"""Maximal number of Newton steps; a handful suffices, because the loss is convex and the weights are few."""
L2_PENALTY: Final = 1.0
"""Weight of half the squared weights relative to the loss of a row."""
NEWTON_TOLERANCE: Final = 1e-6
"""The last step is the one whose largest component is below this."""
EPOCHS = 3
"""Default number of epochs."""
TOKENS = 512
"""Tokens of a window."""
MAX_TRAINING_WINDOWS = 4
"""Maximal number of windows of a training row: one with more takes as long as ten others."""
LOGIT_SHIFTS: Final = tuple(step / 2 for step in range(-6, 7))
"""Candidate biases that are added to the logits of locations and rows."""
SEARCH_GRID: Final[Mapping[str, Sequence[float]]] = {
    **dict.fromkeys(("cells", "rows", "held"), LOGIT_SHIFTS),
    "groups": range(7),
    "apart": range(5),
    "regard": (0, 0.1, 0.2, 0.3, 0.5),
}
"""Settings that the tune split determines one after the other, and their candidates
(`orchestra.agents.inference.tables.reader.TableReaderConfig`).
"""


@dataclass(frozen=True, slots=True)
class TableExample:
    """An encoded table, and the target of its question."""

    encoding: TableEncoding
    target: TableTarget


def run(training: HeadTraining, on_step: Callable[[TrainingStep], None], *, fresh: bool = False) -> TrainedEncoder:
    """Trains, or resumes a killed training from its last checkpoint.

    Raises:
        InputError: N103 if the data set has other types; N104 if it has no usable rows; N147 if the card has other
        fields; N140 if a checkpoint belongs to another training.
    """
    card, rows = training.card, training.data.rows
    check_contract(card, training.data.manifest)
    reader, frozen_encoder = training.load_base(fresh=fresh)
    warm_start = None if training.warm_start is None else training.warm_start.with_outputs(OUTPUT_NAMES)
    units = _fit_units(rows["train"], input_names(card)).model_dump()
    layout = training.base_config(FORMAT, ARRAYS_FILE, {"outputs": OUTPUT_NAMES, **input_names(card), "units": units})
    draft = TableReaderConfig.model_validate({**layout, "sha256": "0" * 64})
    examples = training.build_examples(lambda row: _build_example(row, reader, draft))
    arrays = member_arrays(_train_member(training, frozen_encoder, examples, warm_start, on_step))
    fitted_settings, figures = _tune_settings(TableReader(draft, arrays, reader, card), rows["tune"])
    return training.build_files(layout | fitted_settings, arrays, figures)


def _fit_units(rows: Sequence[DatasetRow], inputs: Mapping[str, str]) -> UnitWeights:
    """Fits the weights of unit signs on the rows whose answers have a unit."""
    unit_rows = []
    for row in rows:
        table = row.input[inputs["table"]]
        if (scale := str(row.output["scale"])) in UNITS:
            top = count_header_rows(table)
            unit_rows.append(
                (
                    unit_signs(
                        str(row.input[inputs["question"]]), table[:top], table[top:], row.input[inputs["paragraphs"]]
                    ),
                    scale,
                )
            )
    return fit_units(unit_rows)


def input_names(card: Card) -> dict[str, str]:
    """Returns the names of a card's inputs by role.

    Raises:
        InputError: N147 if the card has other fields.
    """
    inputs: Mapping[str, Any] = card.input_schema.get("properties", {})
    depths = {name: _list_depth(schema) for name, schema in inputs.items()}
    if reads_tables(card) and sorted(depths.values()) == [0, 1, 2]:
        of = {depth: name for name, depth in depths.items()}
        return {"question": of[0], "table": of[2], "paragraphs": of[1]}
    hint = "input: {question: str, table: list[list[str]], paragraphs: list[str]}; the output as that of table_reader"
    raise InputError("N147", f"{card.name} is not a table reader", hint=hint)


def _list_depth(schema: Mapping[str, Any]) -> int:
    """Returns the nesting depth of lists in a type."""
    return 1 + _list_depth(schema.get("items", {})) if schema.get("type") == "array" else 0


def _build_example(row: DatasetRow, encoder: Encoder, config: TableReaderConfig) -> TableExample | None:
    inputs = row.input
    encoding = TableEncoding(
        encoder, str(inputs[config.question]), inputs[config.table], inputs[config.paragraphs], config.tokens
    )
    target = build_target(row.output, encoding) if len(encoding.windows) <= MAX_TRAINING_WINDOWS else None
    return None if target is None else TableExample(encoding, target)


def _train_member(
    training: HeadTraining,
    base: FrozenEncoder,
    examples: Sequence[TableExample],
    warm_start: WarmStart | None,
    on_step: Callable[[TrainingStep], None],
) -> TokenHeadEncoder:
    """Trains a reader on the examples, from `warm_start` if it is given."""
    from orchestra.learn.encoders.tuned import TokenHeadEncoder

    member = TokenHeadEncoder(base, training.hyperparameters(base), len(OUTPUT_NAMES))

    def batch_loss(batch: Sequence[int]) -> Tensor:
        import torch

        batch_examples = [examples[at] for at in batch]
        batch_states = _head_outputs(member, [example.encoding for example in batch_examples])
        logits = [
            table_logits(states, _tensor_frame(example.encoding), _log_sum)
            for states, example in zip(batch_states, batch_examples, strict=True)
        ]
        return torch.stack(
            [loss(example_logits, example) for example_logits, example in zip(logits, batch_examples, strict=True)]
        ).mean()

    lengths = [len(example.encoding.windows) * max(map(len, example.encoding.windows)) for example in examples]
    facts = (
        FORMAT,
        member.hyperparameters,
        BATCH_TOKENS,
        [(example.encoding.windows, example.target) for example in examples],
    )
    return training.train_member(member, TrainingExamples(batch_loss, lengths, facts), warm_start, on_step)


def _head_outputs(member: TokenHeadEncoder, encodings: Sequence[TableEncoding]) -> list[Tensor]:
    """Returns the head's outputs for each table, (tokens, outputs)."""
    import torch

    from orchestra.learn.encoders.tuned import pad_tokens

    windows = [window for encoding in encodings for window in encoding.windows]
    tokens, mask = pad_tokens(windows)
    all_states = member.logits(member.base.embed_tokens(tokens), mask)
    outputs, at = [], 0
    for encoding in encodings:
        outputs.append(
            torch.cat([all_states[at + number, : len(window)] for number, window in enumerate(encoding.windows)])
        )
        at += len(encoding.windows)
    return outputs


def _tensor_frame(encoding: TableEncoding) -> PoolingMatrices[Tensor]:
    import torch

    pooling_matrices = encoding.pooling()
    return PoolingMatrices(
        *(torch.from_numpy(getattr(pooling_matrices, name)) for name in PoolingMatrices.__dataclass_fields__)
    )


def _log_sum(logits: Tensor) -> Tensor:
    return logits.logsumexp(0)


def loss(logits: TableLogits[Tensor], example: TableExample) -> Tensor:
    """Returns the negative log-likelihood of the target: the operation, the scale, and the locations that the operation
    takes.
    """
    import torch
    from torch.nn import functional

    encoding, target = example.encoding, example.target
    units = {SCALES.index(unit) for unit in UNITS}  # words determine the unit better than an encoder
    total = _any_of_loss(logits.operations, {target.operation}) + _any_of_loss(
        logits.scales, units if target.scale in units else {target.scale}
    )
    way = OPERATIONS[target.operation]
    if way in FILTERABLE_OPERATIONS and not target.may_have_condition:
        total = total + _condition_loss(logits, example)
    if way in PAIR_OPERATIONS:
        fit = [spot.figure is not None for spot in encoding.locations]
        return (
            total
            + _any_of_loss(_mask_logits(logits.first, fit), target.first)
            + _any_of_loss(_mask_logits(logits.second, fit), target.second)
        )
    if way == TEXT:
        prose = encoding.prose_mask().tolist()
        begins, ends = ({span[side] for span in target.spans} for side in (0, 1))
        return (
            total
            + _any_of_loss(_mask_logits(logits.begin, prose), begins)
            + _any_of_loss(_mask_logits(logits.end, prose), ends)
        )
    if way in (CELLS, SUM, MEAN) and target.condition is None:
        fit = [
            spot.question_figure is None and (spot.row >= 0 if way == CELLS else spot.figure is not None)
            for spot in encoding.locations
        ]
        free_cells = torch.tensor(
            [at for at, is_allowed in enumerate(fit) if is_allowed and at not in target.equivalent_cells]
        )
        right = torch.tensor([float(int(at) in target.cells) for at in free_cells])
        cell_loss = functional.binary_cross_entropy_with_logits(logits.cells[free_cells], right, reduction="sum") / len(
            target.cells
        )
        return total + cell_loss + _any_of_loss(_mask_logits(logits.cells, fit), target.cells | target.equivalent_cells)
    matching_rows = [at for at in range(encoding.header_rows, len(encoding.table)) if target.satisfies_conditions(at)]
    if matching_rows:  # there is no loss for rows without a condition
        free_cells = torch.tensor([float(at in target.rows) for at in matching_rows])
        total = (
            total
            + functional.binary_cross_entropy_with_logits(logits.rows[matching_rows], free_cells, reduction="sum") / 2
        )
    if target.ranking_column is not None:
        total = total + _any_of_loss(logits.order_columns, {target.ranking_column})
    return total + _any_of_loss(logits.answer_columns, target.answer_columns) if target.answer_columns else total


def _condition_loss(logits: TableLogits[Tensor], example: TableExample) -> Tensor:
    """Returns the negative log-likelihood of the conditions: figure, bound and column of each; or of their absence."""
    import torch

    encoding, target, after = example.encoding, example.target, -1
    total = logits.bounds.new_zeros(())
    for condition_target, columns, limits, bounds in (
        (target.condition, logits.condition_columns, logits.limits, logits.bounds),
        (target.second_condition, logits.extra_columns, logits.extra_limits, logits.extra_bounds),
    ):
        if (
            condition_target is None
            and after >= 0
            and any(at > after and _sets_bound(encoding, at) for at in condition_locations(encoding))
        ):
            break  # there may be a second condition that the row does not name
        choice = torch.stack([bounds[0], *choice_logits(encoding, limits, bounds, after)])
        total = total + _any_of_loss(
            choice, {0} if condition_target is None else {1 + at for at in condition_target.choices}
        )
        if condition_target is None:
            break
        total = total + _any_of_loss(columns, {condition_target.column})
        after = condition_target.location
    return total


def _sets_bound(encoding: TableEncoding, index: int) -> bool:
    """Returns whether words around a figure of the question set a bound."""
    question_figure = encoding.locations[index].question_figure
    return question_figure is not None and question_figure.bound is not None


def _any_of_loss(logits: Tensor, target_indexes: frozenset[int] | set[int]) -> Tensor:
    """Returns the negative log of the total probability of some alternatives."""
    return logits.logsumexp(0) - logits[sorted(target_indexes)].logsumexp(0)


def _mask_logits(logits: Tensor, allowed_mask: Sequence[bool]) -> Tensor:
    import torch

    return logits.masked_fill(~torch.tensor(allowed_mask, dtype=torch.bool), -1e4)


def _tune_settings(reader: TableReader, rows: Sequence[DatasetRow]) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the settings of `SEARCH_GRID` with most correct rows, the exponent with the best likelihood of the
    confidence, and the share of correct rows; empty for few rows.
    """
    if len(rows) < LEAST_ROWS:
        return {}, {}
    readings = [
        (encoding, reader.logits(encoding), row.output)
        for row in rows
        for encoding in (reader.encode_inputs(row.input),)
    ]
    plain = reader.config

    def predict(**options: float) -> list[tuple[bool, float]]:
        reader.config = plain.model_copy(update=options)
        decoded_readings = [
            (reader.decode(encoding, logits), encoding, expected) for encoding, logits, expected in readings
        ]
        return [
            (answers_match(answer_fields(table_answer, scale, encoding), expected), table_answer.probability)
            for (table_answer, scale), encoding, expected in decoded_readings
        ]

    def count(**options: float) -> tuple[int, float]:
        return sum(is_right for is_right, _ in predict(**options)), -sum(map(abs, options.values()))

    fitted_settings: dict[str, float] = {}
    for name, values in SEARCH_GRID.items():
        fitted_settings[name] = float(max(values, key=lambda value: count(**fitted_settings, **{name: value})))
    predictions = predict(**fitted_settings)
    fitted_settings["sharpen"] = maximize_likelihood(
        PROBABILITY_POWERS, lambda power: [(is_right, sure**power) for is_right, sure in predictions]
    )
    return fitted_settings, {"exact": sum(is_right for is_right, _ in predictions) / len(predictions)}


def fit_units(rows: Sequence[tuple[Sequence[Sequence[bool]], str]]) -> UnitWeights:
    """Fits the weights of unit signs by a conditional logit (McFadden 1974).

    A sign has one weight for all units, so what is learnt from “in millions” applies to “in billions”, which is rare in
    tables.
    """
    import numpy as np

    if not rows:
        return UnitWeights(signs=(0.0,) * len(UNIT_SIGNS), usual=(0.0,) * len(UNITS))
    count = len(UNITS)
    sign_matrix = np.array([signs for signs, _ in rows], dtype=float)
    features = np.concatenate([sign_matrix, np.broadcast_to(np.eye(count), (len(rows), count, count))], axis=2)
    right = np.eye(count)[[UNITS.index(unit) for _, unit in rows]]
    weights = np.zeros(features.shape[2])
    for _ in range(MAX_NEWTON_STEPS):
        scores = features @ weights
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances = powers / powers.sum(axis=1, keepdims=True)
        means = np.einsum("ru,ruk->rk", chances, features)
        slope = np.einsum("ru,ruk->k", chances - right, features) + L2_PENALTY * weights
        bend = (
            np.einsum("ru,ruk,rul->kl", chances, features, features)
            - means.T @ means
            + L2_PENALTY * np.eye(len(weights))
        )
        step = np.linalg.solve(bend, slope)
        weights = weights - step
        if abs(step).max() < NEWTON_TOLERANCE:
            break
    weight_list = [round(float(weight), 4) for weight in weights]
    return UnitWeights(signs=tuple(weight_list[: len(UNIT_SIGNS)]), usual=tuple(weight_list[len(UNIT_SIGNS) :]))
