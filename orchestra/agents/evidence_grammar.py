r"""Evidence-compiled decoding: one grammar for an output type, in which every `Quote` is a substring of the call's
evidence.

The grammar is Lark as llguidance reads it (https://github.com/guidance-ai/llguidance, docs/syntax.md). It writes JSON
with `, ` and `: ` as separators. A quote is a sequence of *chunks* of the evidence: words, single signs, white space.
The grammar contains each chunk as JSON writes it in a string (`"` as `\"`, a line break as `\n`). So the decoded text
is an exact substring of the evidence, and no quote begins or ends within an escape. All text from the evidence is
inside JSON strings of ASCII letters and `\u` escapes, so evidence cannot end a string or be read as grammar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from orchestra.schema.fields import QUOTE_FORMAT, resolve_reference, schema_has_format

MAX_QUOTE = 400
"""Default maximum length of a quote in characters of its JSON form: a quote is one or two sentences, not the
document.
"""
MAX_COUNTED_EVIDENCE = 12_000
"""Maximum characters of evidence for which the grammar limits the length of quotes. With the limit, llguidance 1.7 ran
out of states on 29,000 characters of prose; without it, it did not.
"""
MAX_EVIDENCE = 60_000
"""Maximum characters of evidence that are compiled (40 ms). For more, the caller uses the schema, and the check of
quotes decides.
"""

CHARACTERS_PER_TOKEN = 3
"""A low estimate for English prose. It limits free text so that its JSON can be closed within `max_output`."""
JSON_TOKENS_PER_FIELD = 8
"""Tokens of a field's name, its quotes and its comma."""
MIN_FREE_TEXT = 32
"""Minimum limit of a free text, in characters."""

STRING_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)
"""Formats of strings that llguidance supports. It rejects a schema with any other."""
_LITERAL_KEYS = frozenset({"enum", "const", "required", "default", "examples"})
"""Keys of a schema whose values are not schemas."""
_SCHEMA_MAP_KEYS = frozenset({"properties", "patternProperties", "$defs", "dependentSchemas"})
_NARROWING_KEYS = frozenset({"maxLength", "pattern", "enum", "const", "format"})

_PUNCTUATION = "\x00-/:-@\\[-^`{-\xa9\xab-\xb1\xb4\xb6-\xb8\xbb\xbf\u2000-\u206f\u3000-\u303f\uff00-\uff0f"
_SURROGATES = re.compile("[\ud800-\udfff]+")
_NEEDS_ESCAPE = re.compile(r"[^A-Za-z0-9 .,\\\"_-]")


class QuoteGrammarError(ValueError):
    """An output type that needs a quote without evidence, or a type that no grammar can be made for."""


def chunks(text: str) -> list[str]:
    """Returns the chunks at whose edges a quote may begin and end. Joined, they are the text."""
    return _chunk_pattern().findall(text)


@cache
def _chunk_pattern() -> re.Pattern[str]:
    from orchestra.text.keywords import UNSPACED_SCRIPTS

    word = rf"[^\s{_PUNCTUATION}{UNSPACED_SCRIPTS}]+"
    return re.compile(rf"\s+|[{UNSPACED_SCRIPTS}]|{word}(?:[.,'\u2019\-]{word})*|.", re.DOTALL)


def evidence_grammar(schema: Mapping[str, Any], evidence: Sequence[str], max_text: int) -> str:
    """Returns the Lark grammar of a type over a call's evidence.

    Args:
        max_text: Maximum characters of a text or a quote.

    Raises:
        QuoteGrammarError: If the grammar cannot be made.
    """
    pieces = [piece for text in evidence for piece in _SURROGATES.split(text) if piece.strip()]
    if sum(map(len, pieces)) > MAX_EVIDENCE:
        raise QuoteGrammarError(f"more than {MAX_EVIDENCE:,} characters of evidence")
    return _GrammarWriter(schema, pieces, max_text).render()


def quote_rules(name: str, texts: Sequence[str], limit: int) -> list[str]:
    """Returns the rules of a terminal: a substring of these texts of at most `limit` characters of its JSON form."""
    pieces = [piece for text in texts for piece in _SURROGATES.split(text) if piece.strip()]
    return [*_quote_terminal(name, f"{name}_SHAPE", pieces, limit), *_source_rules(pieces)]


def _source_rules(pieces: Sequence[str]) -> list[str]:
    return [
        f"SOURCE_{i}: %regex {ascii_json({'substring_chunks': _json_chunks(piece)})}" for i, piece in enumerate(pieces)
    ]


def _quote_terminal(name: str, shape: str, pieces: Sequence[str], limit: int) -> list[str]:
    is_counted = sum(map(len, pieces)) <= MAX_COUNTED_EVIDENCE
    rest = f"{{0,{max(limit - 2, 0)}}}" if is_counted else "*"
    # A quote begins with a word or a bracket, not with a space, a stop or an escaped line break. It does not end with a
    # space.
    form = rf"/([^ \\.,;:!?)\]}}]|\\[^nrtbf])([\s\S]{rest}[^ ])?/"
    choice = " | ".join(f"SOURCE_{i}" for i in range(len(pieces)))
    return [f"{shape}: {form}", f'{name}: "\\"" ({shape} & ({choice})) "\\""']


class _GrammarWriter:
    """Writes the rules that a type needs."""

    def __init__(self, schema: Mapping[str, Any], pieces: Sequence[str], max_text: int) -> None:
        self.root, self.pieces, self.max_text = schema, pieces, max_text
        self.rules: list[str] = []
        self.reference_names: dict[str, str] = {}
        self.quote_names: dict[int, str] = {}

    def render(self) -> str:
        """Returns the grammar. Raises `QuoteGrammarError` if the type needs a quote and there is no evidence."""
        start = self.rule(self.root)
        if start is None:
            raise QuoteGrammarError("the type needs a quote, but there is no evidence")
        return "\n".join(["%llguidance {}", f"start: {start}", *self.rules, *_source_rules(self.pieces), ""])

    def add_rule(self, body: str) -> str:
        """Adds a rule with this body, and returns its name."""
        name = f"r{len(self.rules)}"
        self.rules.append(f"{name}: {body}")
        return name

    def rule(self, schema: Mapping[str, Any]) -> str | None:
        """Returns the rule body for a type, or None if it needs a quote and there is no evidence."""
        if isinstance(reference := schema.get("$ref"), str):
            return self.reference(reference)
        if not self.has_quote(schema):
            return self.json_rule(schema)
        if schema.get("format") == QUOTE_FORMAT:
            return self.quote_name(int(schema.get("maxLength", min(MAX_QUOTE, self.max_text))))
        if options := schema.get(
            "anyOf", schema.get("oneOf", schema.get("allOf") if len(schema.get("allOf", ())) == 1 else None)
        ):
            return self.union(options)
        if "properties" in schema:
            return self.record(schema)
        if schema.get("type") == "array" and isinstance(schema.get("items"), Mapping) and "prefixItems" not in schema:
            return self.array(schema)
        raise QuoteGrammarError(f"no grammar for a quote inside {sorted(schema)}")

    def has_quote(self, schema: Mapping[str, Any]) -> bool:
        """Whether a type can contain a quote, also through references."""
        line: list[Mapping[str, Any]] = [schema]
        visited_references: set[str] = set()
        while line:
            subschema = line.pop()
            if schema_has_format({key: value for key, value in subschema.items() if key != "$defs"}, QUOTE_FORMAT):
                return True
            for reference in _references(subschema) - visited_references:
                visited_references.add(reference)
                if (target := resolve_reference(reference, self.root)) is not None:
                    line.append(target)
        return False

    def reference(self, reference: str) -> str | None:
        if reference in self.reference_names:
            return self.reference_names[reference]
        target = resolve_reference(reference, self.root)
        if target is None:
            raise QuoteGrammarError(f"the reference {reference!r} does not resolve")
        name = self.reference_names[reference] = f"t{len(self.reference_names)}"
        body = self.rule(target)
        if body is None:
            raise QuoteGrammarError("the type needs a quote, but there is no evidence")
        self.rules.append(f"{name}: {body}")
        return name

    def json_rule(self, schema: Mapping[str, Any]) -> str:
        """Returns a rule for a type without quotes, by llguidance's own JSON rules."""
        if schema.get("type") == "null" or ("const" in schema and schema["const"] is None):
            return grammar_literal("null")
        body = limit_texts(strip_unknown_formats(dict(schema)), self.max_text)
        if "$defs" in self.root:
            body["$defs"] = limit_texts(strip_unknown_formats(self.root["$defs"]), self.max_text)
        body["x-guidance"] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        return self.add_rule(f"%json {ascii_json(body)}")

    def quote_name(self, limit: int) -> str | None:
        if not self.pieces:
            return None
        if limit not in self.quote_names:
            name = self.quote_names[limit] = f"QUOTE_{limit}"
            self.rules += _quote_terminal(name, f"SHAPE_{limit}", self.pieces, limit)
        return self.quote_names[limit]

    def union(self, options: Sequence[Mapping[str, Any]]) -> str | None:
        plain = [option for option in options if not self.has_quote(option)]
        rules = [self.rule(option) for option in options if self.has_quote(option)]
        if nulls := [option for option in plain if option.get("type") == "null"]:
            rules.insert(0, grammar_literal("null"))
            plain = [option for option in plain if option not in nulls]
        if plain:
            rules.append(self.json_rule({"anyOf": plain}) if len(plain) > 1 else self.rule(plain[0]))
        quoting_rules = [rule for rule in rules if rule is not None]
        return (
            None
            if not quoting_rules
            else quoting_rules[0]
            if len(quoting_rules) == 1
            else self.add_rule(" | ".join(quoting_rules))
        )

    def record(self, schema: Mapping[str, Any]) -> str | None:
        """Returns a rule for an object: fields in the order of the type, optional fields may be left out."""
        required = set(schema.get("required", ()))
        first, later = grammar_literal("}"), grammar_literal("}")
        for name, inner in reversed(schema["properties"].items()):
            value = self.rule(inner)
            if value is None and name in required:
                return None
            if value is None:
                continue
            key = json.dumps(name, ensure_ascii=False) + ": "
            first_field, joined_field = (
                f"{grammar_literal(key)} {value} {later}",
                f"{grammar_literal(', ' + key)} {value} {later}",
            )
            if name in required:
                first, later = self.add_rule(first_field), self.add_rule(joined_field)
            else:
                first, later = self.add_rule(f"{first_field} | {first}"), self.add_rule(f"{joined_field} | {later}")
        return self.add_rule(f"{grammar_literal('{')} {first}")

    def array(self, schema: Mapping[str, Any]) -> str | None:
        low, high = int(schema.get("minItems", 0)), schema.get("maxItems")
        item = self.rule(schema["items"])
        if item is None or high == 0:
            return grammar_literal("[]") if low == 0 else None
        repetition = (
            f"({grammar_literal(', ')} {item}){{{max(low - 1, 0)},{int(high) - 1 if high is not None else ''}}}"
        )
        full = f"{grammar_literal('[')} {item} {repetition} {grammar_literal(']')}"
        return self.add_rule(full if low else f"{grammar_literal('[]')} | {full}")


def _references(schema: Any) -> set[str]:
    if isinstance(schema, Mapping):
        references = {schema["$ref"]} if isinstance(schema.get("$ref"), str) else set()
        return references.union(*(_references(value) for key, value in schema.items() if key != "$defs"))
    if isinstance(schema, list | tuple):
        return set().union(*(_references(value) for value in schema))
    return set()


def free_text_limit(schema: Mapping[str, Any], max_output: int) -> int:
    """Returns the maximum characters of each free text so that the whole JSON fits into `max_output` tokens."""
    fields = max(1, len(schema.get("properties", {})))
    return max(MIN_FREE_TEXT, (max_output - JSON_TOKENS_PER_FIELD * fields) * CHARACTERS_PER_TOKEN // fields)


def required_max_output(schema: Mapping[str, Any], length: int) -> int:
    """Returns the minimum `max_output` for free texts of this many characters."""
    fields = max(1, len(schema.get("properties", {})))
    return -(-length * fields // CHARACTERS_PER_TOKEN) + JSON_TOKENS_PER_FIELD * fields


def longest_min_length(schema: Any) -> int:
    """Returns the largest `minLength` of the free texts of a schema; a limit below it would contradict the schema."""
    length = 0

    def visit(part: Any) -> Any:
        nonlocal length
        if _is_free(part):
            length = max(length, int(part.get("minLength", 0)))
        return _map_subschemas(part, visit)

    visit(schema)
    return length


def _is_free(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "string" and not schema.keys() & _NARROWING_KEYS


def limit_texts(schema: Any, limit: int) -> Any:
    """Returns the schema with free texts limited to `limit` characters, so that the JSON ends before the token
    limit.
    """
    if _is_free(schema):
        return {**schema, "maxLength": limit}
    return _map_subschemas(schema, lambda part: limit_texts(part, limit))


def strip_unknown_formats(schema: Any) -> Any:
    """Returns the schema without formats that servers reject because they do not know them, such as `quote`."""
    if isinstance(schema, dict) and schema.get("format", "uri") not in STRING_FORMATS:
        schema = {key: value for key, value in schema.items() if key != "format"}
    return _map_subschemas(schema, strip_unknown_formats)


def _map_subschemas(schema: Any, change: Callable[[Any], Any]) -> Any:
    """Applies a function to the subschemas of a schema. Other values are kept."""
    if isinstance(schema, list):
        return [change(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: (
            {name: change(part) for name, part in value.items()}
            if key in _SCHEMA_MAP_KEYS and isinstance(value, dict)
            else value
            if key in _LITERAL_KEYS
            else change(value)
        )
        for key, value in schema.items()
    }


def _json_chunks(text: str) -> list[str]:
    """Returns the chunks of a text in their JSON form."""
    return [json.dumps(chunk, ensure_ascii=False)[1:-1] for chunk in chunks(text)]


def ascii_json(value: Any) -> str:
    r"""Returns JSON whose strings contain only letters, digits, JSON punctuation and `\u` escapes."""
    spelt = json.dumps(value, ensure_ascii=False)
    return re.sub(r'"(?:[^"\\]|\\.)*"', lambda m: _NEEDS_ESCAPE.sub(_escape, m[0]), spelt, flags=re.DOTALL)


def _escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1] if ord(match[0]) > 0x7E else f"\\u{ord(match[0]):04x}"


def grammar_literal(text: str) -> str:
    """Returns a text in its JSON form as a literal of the grammar."""
    return ascii_json(text)
