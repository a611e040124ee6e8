"""Candidates for promotion: folders that are checked before any row is evaluated."""

from __future__ import annotations

import os
from pathlib import Path
from typing import assert_never

from orchestra.agents.card import Card
from orchestra.agents.encoder_tasks import TASK_CONFIGS, TASK_FORMATS, encoder_task
from orchestra.agents.inference.array_files import array_errors
from orchestra.agents.inference.linear import LinearClassifier, LinearRegressor, predicts_number
from orchestra.core.errors import FleetError, InputError
from orchestra.fleet.config import FleetConfig, LocalServer, Server
from orchestra.fleet.weights.adapter_checks import (
    WEIGHTS,
    AdapterManifestSummary,
    check_adapter,
    check_base,
    mismatch_error,
    read_manifest,
)
from orchestra.fleet.weights.safetensors import check_folder
from orchestra.fleet.weights.weights import MANIFEST, ModelStore, find_weights, quick_digest
from orchestra.learn.compatibility import skill_digest
from orchestra.learn.promotion.promotion import MAX_BYTES, learnt_files, read_model_config, weights_digest
from orchestra.schema.types import Validator, subschema

SLOT_FORMATS = ("orchestra/tagger/v1", TASK_FORMATS["slots"])
"""Formats whose labels are parts of slots and do not occur in outputs."""


def check_candidate(card: Card, folder: Path) -> str:
    """Checks a candidate's folder and returns the digest of its weights.

    Raises:
        InputError: N301 if files are missing or too large.
        FleetError: As `check_compatible`.
    """
    for path in _candidate_files(card, folder):
        if (size := path.stat().st_size) > MAX_BYTES:
            hint = "train with a lower --rank, or fewer --targets" if card.kind == "model" else ""
            raise InputError("N301", f"{path} has {size / 1e6:.1f} MB; at most {MAX_BYTES / 1e6:.0f}", hint=hint)
    check_compatible(card, folder)
    return weights_digest(card, folder)


def check_compatible(card: Card, folder: Path) -> None:
    """Checks that an agent can be called with the weights of a folder.

    Raises:
        FleetError: F007 if an adapter could run code; F222 if it is not what its manifest states.
        InputError: N301 if files are missing; A-codes if arrays do not fit.
    """
    _candidate_files(card, folder)
    if card.kind == "model":
        check_folder(folder)
        check_adapter(folder)
    else:
        _check_arrays(card, folder)


def check_servable(card: Card, folder: Path, fleet: FleetConfig, store: ModelStore) -> list[str]:
    """Checks that a server of the card's model can apply an adapter.

    Returns:
        Differences between its manifest and this project that may be intended: it was trained for another agent, or on
        other weights under the name of the base.

    Raises:
        FleetError: F222 if the adapter cannot be applied.
    """
    manifest, faults, other_servable, fits = read_manifest(folder), [], [], False
    for name in fleet.servers_for(card.model):
        try:
            other_servable += _check_server(folder, manifest, name, fleet.servers[name], store)
            fits = True
        except FleetError as error:
            faults.append(error)
    if faults and not fits:
        raise faults[0]
    if manifest.agent not in ("", card.name) and manifest.skill != skill_digest(card):
        other_servable.append(
            f"it was trained for the agent {manifest.agent!r}, "
            f"with other types or another prompt than {card.name!r} has"
        )
    return other_servable


def _check_server(
    folder: Path, manifest: AdapterManifestSummary, name: str, server: Server, store: ModelStore
) -> list[str]:
    """Returns the differences between an adapter's manifest and the weights of a server. Raises `FleetError` F222 if
    they do not fit.
    """
    if manifest.base not in ("", server.model):
        raise mismatch_error(
            folder, f"it is for the base {manifest.base!r}, and the server {name!r} has {server.model!r}"
        )
    if not isinstance(server, LocalServer) or (base := find_weights(server.weights, ModelStore(store.folders))) is None:
        return []
    check_base(folder, base)
    mark = quick_digest(base) if (base / MANIFEST).is_file() else ""
    if not mark or not manifest.bases or mark in manifest.bases:
        return []
    return [
        (
            f"it was trained on weights of {server.model!r} with the digest {manifest.bases[0]}, "
            f"and those of the server {name!r} have {mark}"
        )
    ]


def _candidate_files(card: Card, folder: Path) -> list[Path]:
    """Returns the files of a candidate. Raises `InputError` N301 if one is missing."""
    paths = [folder / name for name in learnt_files(card, folder) or (WEIGHTS if card.kind == "model" else card.data,)]
    if (missing := next((path for path in paths if not os.path.isfile(path)), None)) is not None:
        hint = f"orchestra learn train {card.name} --data DATA"
        raise InputError("N301", f"{folder} has nothing for {card.name}: there is no {missing.name}", hint=hint)
    return paths


def _check_arrays(card: Card, folder: Path) -> None:
    """Checks the arrays of a candidate. Raises `InputError` A011 if they cannot be read, belong to another kind of
    agent, have other inputs or outputs, or have labels that the card does not have.
    """
    layout = read_model_config(card, folder, card.data)
    expected_format, inputs, outputs = (
        _expected_format(card),
        card.input_schema.get("properties", {}),
        card.output_schema.get("properties", {}),
    )
    faults = [f"its format is {layout.format}, and not {expected_format}"] if layout.format != expected_format else []
    faults += [f"it reads {name!r}" for name in (layout.input, layout.beside) if name and name not in inputs]
    if layout.output and layout.output not in outputs:
        faults.append(f"it writes {layout.output!r}")
    elif layout.output and layout.format not in SLOT_FORMATS:
        label = Validator(subschema(card.output_schema, outputs[layout.output]))
        faults += [f"it gives {row_label!r}" for row_label in layout.labels if label.check(row_label)]
    if faults:
        takes = f"{card.name} takes {', '.join(inputs)} and gives {', '.join(outputs)}"
        hint = f"orchestra learn train {card.name} --data DATA"
        raise InputError("A011", f"{folder} does not fit {card.name}: {faults[0]}; {takes}", hint=hint)
    _load_arrays(card.with_settings(folder=folder.resolve()))


def _load_arrays(card: Card) -> None:
    """Loads a card's arrays as a call does; those of an encoder without its base, so their shapes are only compared
    later. Raises `InputError` A011.
    """
    match card.kind:
        case "sklearn":
            LinearRegressor.load(card) if predicts_number(card) else LinearClassifier.load(card)
        case "tagger":
            from orchestra.agents.inference.crf_tagger import CrfTagger

            CrfTagger.load(card)
        case "encoder":
            with array_errors(card):
                TASK_CONFIGS[encoder_task(card)].read(card)
            if (linear := read_model_config(card, card.folder or Path(), card.data).linear) is not None:
                LinearClassifier.load(card, linear.file, linear.sha256)
        case "model" | "ensemble" | "python":
            raise AssertionError(f"{card.kind} has no arrays")
        case _:
            assert_never(card.kind)


def _expected_format(card: Card) -> str:
    """Returns the format that the agent's arrays must have, by its outputs."""
    match card.kind:
        case "encoder":
            return TASK_FORMATS[encoder_task(card)]
        case "tagger":
            return "orchestra/tagger/v1"
        case _:
            return f"orchestra/linear-{'number' if predicts_number(card) else 'text'}/v1"
