"""Digests of models: the stored form stays the same for the same files."""

from __future__ import annotations

from pathlib import Path

from orchestra.agents.card import Card
from orchestra.fleet.adapters import adapter_digest
from orchestra.fleet.model_digests import ModelDigests
from orchestra.fleet.weights.adapter_checks import CONFIG, WEIGHTS
from orchestra.fleet.weights.weights import ModelStore

from .calling import ANSWER, TEXT
from .conftest import local_config

KEPT = "625617a432f5820520484afe4037adff"
"""The digest in memos and certificates of the adapter below."""
NAMED = "b8949a402b56c29460c07f0144dd7144"
"""The digest in names on servers and in data sets."""


def test_unchanged_adapter_keeps_stored_digests(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(bytes(64))
    (tmp_path / CONFIG).write_text('{"r": 4}')
    server = local_config("m", max_loras=1, adapters={"skill": str(tmp_path)}).local_servers["m"]
    card = Card.declare("writer", input=TEXT, output=ANSWER, prompt="{{ text }}", adapter="skill")
    assert (
        ModelDigests(ModelStore.from_environment(hub=None)).adapter_digest("m", server, card),
        adapter_digest(tmp_path),
    ) == (
        KEPT,
        NAMED,
    )
