"""What `orchestra learn calibrate` does: ask the agent about held-back rows, and fit what its probabilities are worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestra.agents.inference.calibration import Calibration
from orchestra.cli.context import Opener, open_orchestra
from orchestra.cli.learn.evaluate import ask_arm, refuse_training_rows
from orchestra.cli.output_files import check_writable, writing_output
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings
from orchestra.learn.calibration import calibration_rows, encode_calibration, fit_calibration, without_calibration
from orchestra.learn.compatibility import check_contract, check_trainable
from orchestra.learn.data.dataset import Dataset
from orchestra.learn.evaluation.rows import EvaluationRow, EvaluationSet, as_record
from orchestra.workflows.python.steps import Agent

if TYPE_CHECKING:
    from orchestra.cli.learn.evaluate_commands import CalibrateArguments


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """What came of it."""

    file: Path
    calibration: Calibration
    rows_asked: int


async def run_calibration(open_: Opener, settings: Settings, arguments: CalibrateArguments) -> CalibrationResult:
    """Asks, fits, and writes the file that the card names. Raises `InputError` N160, N161, N008, N205."""
    agent, words, out = arguments.agent, arguments.overlap_inputs, arguments.out
    if out is not None:
        check_writable(out, "--out")
    held_back = Dataset.load(arguments.data)
    rows = [row for part in arguments.parts for row in held_back.rows[part]]
    async with open_orchestra(open_, settings) as orchestra:
        card = check_trainable(orchestra.registry.card(agent))
        calibration_rows(card, [], [])
        check_contract(card, held_back.manifest)
        strange = next((name for name in words or () if name not in card.input_schema.get("properties", {})), None)
        if strange is not None:
            raise InputError(
                "N011",
                f"{agent} has no input {strange!r}",
                hint=f"inputs: {', '.join(card.input_schema['properties'])}",
            )
        questions = [EvaluationRow(row.id, row.input, as_record(row.output)) for row in rows]
        test = EvaluationSet(
            held_back.manifest.name, held_back.manifest.digest, questions, label=held_back.manifest.label
        )
        refuse_training_rows(card, test, arguments.data, ("train",))
        arm = await ask_arm(orchestra, agent, Agent.from_card(without_calibration(card)), test, settings.concurrency)
    made = fit_calibration(card, held_back, calibration_rows(card, rows, arm.cases), words)
    if out is None and card.folder is None:
        raise InputError("A004", f"the agent {agent!r} has no folder", hint="--out FILE")
    file = out if out is not None else Path(str(card.folder)) / str(card.calibration)
    with writing_output(file, "--out"):
        file.write_bytes(encode_calibration(made))
    return CalibrationResult(file, made, len(rows))
