"""The sentence encoder of the package as a model for search, if it is installed."""

from __future__ import annotations

from orchestra.documents.vectors import SentenceEmbedder

ENCODER = "minilm"
"""The smallest encoder of the package (`orchestra.fleet.weights.encoders`)."""


def open_embedder() -> SentenceEmbedder | None:
    """Returns the encoder; None if its files or its libraries are not on this machine. Nothing is fetched."""
    from orchestra.fleet.weights.encoders import KNOWN_ENCODERS, missing_libraries
    from orchestra.fleet.weights.weights import ModelStore, find_weights

    if missing_libraries():
        return None
    folder = find_weights(KNOWN_ENCODERS[ENCODER], ModelStore.from_environment())
    if folder is None:
        return None
    from orchestra.agents.inference.encoder import Encoder
    from orchestra.agents.inference.threads import BlasThreads

    return SentenceEmbedder(ENCODER, Encoder.load(folder, BlasThreads()))
