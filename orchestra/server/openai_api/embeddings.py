"""`/v1/embeddings`: the packaged sentence encoder, in the process of the server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from orchestra.agents.inference.model_file import BaseEncoder
from orchestra.core.errors import FleetError
from orchestra.fleet.weights.encoders import KNOWN_ENCODERS, EncoderStore
from orchestra.server.endpoints import Call, RouteTable
from orchestra.server.openai_api.errors import unsupported
from orchestra.server.problems import RequestError

if TYPE_CHECKING:
    from orchestra.agents.inference.encoder import Encoder

ROUTES = RouteTable()
MAX_TOKENS: Final = 256
"""Tokens of a text that the encoder reads; the rest is cut, as by its authors."""
MAX_TEXTS: Final = 2048


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The request for embeddings. Texts only: tokens of another tokenizer have no meaning here."""

    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """The vector of a text, of length 1; in base64 as 32-bit floats."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, frozen=True, kw_only=True):
    """Embeddings in the order of the texts."""

    data: tuple[Embedding, ...]
    model: str
    usage: EmbeddingUsage
    object: Literal["list"] = "list"


@ROUTES.route("POST", "/v1/embeddings", "run", EmbeddingList, body=EmbeddingRequest, while_draining=False)
async def create_embeddings(call: Call[EmbeddingRequest]) -> EmbeddingList:
    """Compute the vectors of texts with a packaged sentence encoder: `minilm` (384 dimensions) or `mpnet` (768)."""
    body = call.body
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not texts or len(texts) > MAX_TEXTS or not all(texts):
        raise unsupported(f"the input is empty, or has more than {MAX_TEXTS} texts", "/input", "send texts")
    encoder = await _encoder(call, body.model)
    if body.dimensions not in (None, encoder.shape.hidden_size):
        raise unsupported(
            f"{body.model} has {encoder.shape.hidden_size} dimensions", "/dimensions", "leave it out"
        )  # fmt: skip
    vectors, tokens = await asyncio.to_thread(_embed, encoder, texts, body.encoding_format == "base64")
    return EmbeddingList(
        data=tuple(Embedding(index=index, embedding=vector) for index, vector in enumerate(vectors)),
        model=body.model,
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
    )


async def _encoder(call: Call[Any, Any], name: str) -> Encoder:
    if name not in KNOWN_ENCODERS:
        raise RequestError("S009", f"there is no encoder {name[:100]!r}", hint=", ".join(KNOWN_ENCODERS),
                           pointer="/model")  # fmt: skip
    state = call.request.app.state
    if not hasattr(state, "encoders"):
        state.encoders = EncoderStore()
    store: EncoderStore = state.encoders
    try:
        return await store.encoder(name, BaseEncoder(licence=KNOWN_ENCODERS[name].licence, sha256={}))
    except FleetError as error:
        raise RequestError("S032", f"the encoder {name!r} is not available: {error.message}", hint=error.hint,
                           pointer="/model", status=501) from error  # fmt: skip


def _embed(encoder: Encoder, texts: Sequence[str], as_base64: bool) -> tuple[list[list[float] | str], int]:
    """Returns the vectors of texts, and the number of tokens."""
    import numpy

    embeddings, count = list[list[float] | str](), 0
    for text in texts:
        tokens = encoder.tokenize(text, MAX_TOKENS)
        count += len(tokens)
        (vector,) = encoder.embed(tokens, {})
        unit = (vector / numpy.linalg.norm(vector)).astype("<f4")
        embeddings.append(base64.b64encode(unit.tobytes()).decode() if as_base64 else unit.tolist())
    return embeddings, count
