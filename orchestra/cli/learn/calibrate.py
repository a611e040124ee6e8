"""What `orchestra learn calibrate` does: ask the agent about held-back rows, and fit what its probabilities are worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestra.agents.inference.calibration import Calibration
from orchestra.cli.context import Opener, serving
from orchestra.cli.learn.evaluate import metered_arm, refuse_learnt
from orchestra.cli.output_files import check_writable, writing
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings
from orchestra.learn.calibration import fitted, judged, without, written
from orchestra.learn.compatibility import check_contract, learning
from orchestra.learn.data.dataset import DataSet
from orchestra.learn.evaluation.rows import Question, Test, as_record
from orchestra.workflows.python.steps import Agent

if TYPE_CHECKING:
    from orchestra.cli.learn.evaluate_commands import Calibrating


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What came of it."""

    file: Path
    calibration: Calibration
    asked: int


async def calibrated(open_: Opener, chosen: Settings, asked: Calibrating) -> Calibrated:
    """Asks, fits, and writes the file that the card names. Raises `InputError` N160, N161, N008, N205."""
    agent, words, out = asked.agent, asked.pair, asked.out
    if out is not None:
        check_writable(out, "--out")
    held_back = DataSet.load(asked.data)
    rows = [row for part in asked.parts for row in held_back.rows[part]]
    async with serving(open_, chosen) as orchestra:
        card = learning(orchestra.registry.card(agent))
        judged(card, [], [])
        check_contract(card, held_back.manifest)
        strange = next((name for name in words or () if name not in card.input_schema.get("properties", {})), None)
        if strange is not None:
            raise InputError("N011", f"{agent} has no input {strange!r}", hint=f"inputs: {', '.join(card.input_schema['properties'])}")
        questions = [Question(row.id, row.input, as_record(row.output)) for row in rows]
        test = Test(held_back.manifest.name, held_back.manifest.digest, questions, label=held_back.manifest.label)
        refuse_learnt(card, test, asked.data, ("train",))
        arm = await metered_arm(orchestra, agent, Agent.carded(without(card)), test, chosen.concurrency)
    made = fitted(card, held_back, judged(card, rows, arm.cases), words)
    if out is None and card.folder is None:
        raise InputError("A004", f"the agent {agent!r} has no folder", hint="--out FILE")
    file = out if out is not None else Path(str(card.folder)) / str(card.calibration)
    with writing(file, "--out"):
        file.write_bytes(written(made))
    return Calibrated(file, made, len(rows))
