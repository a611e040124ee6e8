"""Untrusted text: display without control characters, and separation from the tokens of chat templates."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

WORD_JOINER = "\u2060"
"""WORD JOINER: an invisible character that is part of no special token of any tokenizer."""

_CHAT_TOKEN = re.compile(
    r"""
      <\u2060*(?=
            \|(?:/?\w(?:[^<>\[\]\n]{0,78}\w)?\|?|"\|)>|\w{3,40}\|>
              # <|im_start|>, <|eot_id|>, <|turn>, <turn|>, <|"|>; not F#'s <|>
          | ｜[^<>\[\]\n]{0,80}>|\w{1,40}｜>                       # DeepSeek's full-width bars
          | /?(?:s|bos|eos|pad|unk|cls|sep|mask|sop|eop|eoh|eoa|eod|think|role|tool_call|tool_response|tools
              |start_of_turn|end_of_turn|start_of_image|end_of_image|fim_\w{1,20}|file_sep|filename|repo_?name|gh_stars
              |issue_\w{1,20}|jupyter_\w{1,20}
              |empty_output|unused_?\d{1,6}|reserved_\d{1,6}|special_\d{1,6}|extra_id_\d{1,6}|tokens_unused_\d{1,6}
              |(?:seed|minimax):[\w:]{1,40}|\w{3}_token)>
              # Llama 2, Gemma, Qwen, StarCoder, SmolLM, Baichuan, Nemotron, T5, Seed, Cohere
          | <SYS>>|</SYS>>
        )
    | \[\u2060*(?=
            [|｜]\w{3,40}[|｜]\]                                   # EXAONE
          | /?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS)\]  # Mistral
          | (?-i:/?(?:THINK|ARGS|CALL_ID|TOOL_CONTENT|MODEL_SETTINGS|PREFIX|MIDDLE|SUFFIX|IMG_BREAK
              |IMG_END|AUDIO|BEGIN_AUDIO|control_\d{1,4}|[gs]MASK)\])                          # and of later years; GLM
          | e~\[                                                   # MiniMax
        )
    | \]\u2060*(?=~!?b[\[\]])
    """,
    re.VERBOSE | re.IGNORECASE,
)


def neutralize(text: str) -> str:
    """Returns the text with an invisible joiner in each known chat-template token, so that no server reads it as a
    token.

    Known are the tokens of the model families named above, and text of the same form. The tokenizer of the server is
    not known, because a prompt is written before a server is chosen. `restore` removes the joiner:
    `restore(neutralize(text)) == text` for every text.
    """
    if "<" not in text and "[" not in text and "]" not in text:
        return text  # most texts; every token starts with one of these characters
    return _CHAT_TOKEN.sub(lambda match: match[0][0] + WORD_JOINER + match[0][1:], text)


def restore(text: str) -> str:
    """Reverts `neutralize`: removes one joiner from every broken token."""
    return _CHAT_TOKEN.sub(lambda match: match[0][0] + match[0][2:], text)


def fence(text: str, names: Iterable[str]) -> str:
    """Breaks every tag `<name>` or `</name>` of these names, with any spacing and attributes, so that the text cannot
    close its section.

    An incomplete tag at the end is broken too, so that following text cannot complete it. `unfence` with the same names
    restores the text.
    """
    return _tag_pattern(names).sub(rf"<{WORD_JOINER}\1", text) if "<" in text else text


def unfence(text: str, names: Iterable[str]) -> str:
    """Reverts `fence`."""
    return _tag_pattern(names).sub(lambda m: "<" + m[1][1:], text)


def _tag_pattern(names: Iterable[str]) -> re.Pattern[str]:
    tag_names = list(names)
    names_pattern = "|".join(re.escape(name) for name in tag_names) or "(?!)"
    prefix_pattern = "|".join(_prefix_pattern(name) for name in tag_names) or "(?!)"
    return re.compile(
        rf"<({WORD_JOINER}*)(?=\s*(?:/\s*)?(?:(?:{names_pattern})(?:[\s/][^<>]*)?(?:>|\Z)|(?:{prefix_pattern})\Z))",
        re.IGNORECASE,
    )


def _prefix_pattern(name: str) -> str:
    """Returns a pattern for all prefixes of a name, including the empty one, and for the full name with spaces after
    it.
    """
    pattern = r"\s*"
    for char in reversed(name):
        pattern = f"(?:{re.escape(char)}{pattern})?"
    return pattern


def shorten(text: str, limit: int) -> str:
    """Cuts a text to at most `limit` characters; "…" is the last one of a cut text."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def pluralize(number: int, noun: str) -> str:
    """Returns a count with its noun: `1 row`, `2,000 rows`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def to_storable(text: str, limit: int = 4_000) -> str:
    """Returns untrusted text in a form that journals accept: at most `limit` characters, lone surrogates escaped."""
    excerpt = shorten(text, limit)
    return excerpt if excerpt.isascii() else excerpt.encode("utf-8", "backslashreplace").decode()


def exception_text(error: BaseException) -> str:
    """Returns the message of an exception; empty if its `__str__` fails."""
    try:
        return to_storable(str(error))
    except Exception:  # noqa: BLE001 - `__str__` is untrusted code too
        return ""


_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def escape_invisible(text: str, *, keep: str = "\n\t") -> str:
    r"""Escapes control, escape, bidi, invisible and private characters for display: `\x1b`, `\u202e`.

    Control characters in `keep` are not escaped. Stored texts are not changed.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in keep or _is_printable(char) else _escape(char) for char in text)


def _is_printable(char: str) -> bool:
    return char == " " or (
        char not in _BIDI and unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    )


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
