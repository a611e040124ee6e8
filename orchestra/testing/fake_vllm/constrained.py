"""Constrained text: a seeded text that keeps vLLM's `structured_outputs` of a request, as a model that knows nothing would write it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random
from typing import Any

from orchestra.testing.schema_samples import InstanceError, make_instance

_PREFERRED_BYTES = frozenset(range(ord("a"), ord("z") + 1)) | {ord(" "), ord('"')}
_MAX_BYTES = 4096


def constraint_of(body: Mapping[str, Any]) -> tuple[str, Any] | None:
    """A request's constraint: `json` with a schema, `regex`, `choice` or `grammar`; or None. Reads OpenAI's `response_format` too."""
    stated = body.get("structured_outputs")
    if isinstance(stated, Mapping):
        return next(((kind, stated[kind]) for kind in ("json", "regex", "choice", "grammar") if stated.get(kind) is not None), None)
    form = body.get("response_format")
    if isinstance(form, Mapping):
        match form.get("type"):
            case "json_schema":
                return "json", form["json_schema"]["schema"]
            case "json_object":
                return "json", {"type": "object"}
            case _:
                return None
    return None


def constrained_text(constraint: tuple[str, Any], random: Random, sources: tuple[str, ...] = ()) -> str:
    """A text that keeps the constraint. Grammars and regular expressions need the package llguidance, which comes with vLLM.

    Raises `InstanceError` where it cannot make one.
    """
    kind, content = constraint
    match kind:
        case "json":
            schema = json.loads(content) if isinstance(content, str) else content
            return json.dumps(make_instance(schema, random, sources), ensure_ascii=False)
        case "choice":
            return str(random.choice(content))
        case "regex":
            return _random_walk(_import_llguidance().LLMatcher.grammar_from_regex(content), random)
        case _:
            return _random_walk(content, random)


def _import_llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise InstanceError("grammars are simulated with llguidance: pip install llguidance, or give the simulation an `answer`") from error
    return llguidance


def _random_walk(grammar: str, random: Random) -> str:
    """A random walk through a grammar, byte by byte: letters where they may stand, and out as soon as it may end."""
    guidance = _import_llguidance()
    tokenizer = guidance.LLTokenizer("byte")
    matcher = guidance.LLMatcher(tokenizer, grammar)
    found = bytearray()
    while not matcher.is_stopped() and len(found) < _MAX_BYTES:
        mask = matcher.compute_bitmask()
        allowed = [token for token in range(tokenizer.vocab_size) if mask[token >> 3] >> (token & 7) & 1]
        if tokenizer.eos_token in allowed or not allowed:
            break
        chosen = random.choice([token for token in allowed if token in _PREFERRED_BYTES] or allowed)
        matcher.consume_token(chosen)
        found.append(chosen)
    if matcher.is_error():
        raise InstanceError(f"the grammar is refused: {matcher.get_error()}")
    return found.decode("utf-8", "replace")
