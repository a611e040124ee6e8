"""Texts from strangers: shown without harm, and kept apart from a chat template's own marks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

MARK = "\u2060"
"""WORD JOINER: invisible, no tokenizer's special token holds it."""

_CHAT = re.compile(
    r"""
      <\u2060*(?=
            \|(?:/?\w(?:[^<>\[\]\n]{0,78}\w)?\|?|"\|)>|\w{3,40}\|>  # <|im_start|>, <|eot_id|>, <|turn>, <turn|>, <|"|>; not F#'s <|>
          | ｜[^<>\[\]\n]{0,80}>|\w{1,40}｜>                       # DeepSeek's full-width bars
          | /?(?:s|bos|eos|pad|unk|cls|sep|mask|sop|eop|eoh|eoa|eod|think|role|tool_call|tool_response|tools|start_of_turn|end_of_turn
              |start_of_image|end_of_image|fim_\w{1,20}|file_sep|filename|repo_?name|gh_stars|issue_\w{1,20}|jupyter_\w{1,20}
              |empty_output|unused_?\d{1,6}|reserved_\d{1,6}|special_\d{1,6}|extra_id_\d{1,6}|tokens_unused_\d{1,6}
              |(?:seed|minimax):[\w:]{1,40}|\w{3}_token)>  # Llama 2, Gemma, Qwen, StarCoder, SmolLM, Baichuan, Nemotron, T5, Seed, Cohere
          | <SYS>>|</SYS>>
        )
    | \[\u2060*(?=
            [|｜]\w{3,40}[|｜]\]                                   # EXAONE
          | /?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS)\]  # Mistral
          | (?-i:/?(?:THINK|ARGS|CALL_ID|TOOL_CONTENT|MODEL_SETTINGS|PREFIX|MIDDLE|SUFFIX|IMG_BREAK|IMG_END|AUDIO|BEGIN_AUDIO
              |control_\d{1,4}|[gs]MASK)\])                          # and of later years; GLM
          | e~\[                                                   # MiniMax
        )
    | \]\u2060*(?=~!?b[\[\]])
    """,
    re.VERBOSE | re.IGNORECASE,
)


def neutral(text: str) -> str:
    """The text with every chat-template token that is known here broken by one invisible joiner, so that no server reads it as a token.

    Known are those of the model families named above, and what looks like them; the tokenizer of the server that will be asked is not, for
    a prompt is written before a server is chosen. `original` takes the joiner away again: `original(neutral(text)) == text` for every text.
    """
    if "<" not in text and "[" not in text and "]" not in text:
        return text  # most texts, and every token begins with one of the three
    return _CHAT.sub(lambda found: found[0][0] + MARK + found[0][1:], text)


def original(text: str) -> str:
    """The text before `neutral`: one joiner less in every broken token."""
    return _CHAT.sub(lambda found: found[0][0] + found[0][2:], text)


def fenced(text: str, names: Iterable[str]) -> str:
    """The text with every tag `<name>` or `</name>` of these names broken, however it is spaced and whatever stands in it, so that it
    cannot close the section it stands in; and with the beginning of one at its end broken as well, so that no text that comes after it can
    make it a tag.

    `unfenced` with the same names gives the text back.
    """
    return _tag(names).sub(rf"<{MARK}\1", text) if "<" in text else text


def unfenced(text: str, names: Iterable[str]) -> str:
    """The text before `fenced`."""
    return _tag(names).sub(lambda m: "<" + m[1][1:], text)


def _tag(names: Iterable[str]) -> re.Pattern[str]:
    known = list(names)
    whole = "|".join(re.escape(name) for name in known) or "(?!)"
    begun = "|".join(_beginning(name) for name in known) or "(?!)"
    return re.compile(rf"<({MARK}*)(?=\s*(?:/\s*)?(?:(?:{whole})(?:[\s/][^<>]*)?(?:>|\Z)|(?:{begun})\Z))", re.IGNORECASE)


def _beginning(name: str) -> str:
    """A pattern of all beginnings of a name, the empty one and the whole with spaces after it among them."""
    pattern = r"\s*"
    for char in reversed(name):
        pattern = f"(?:{re.escape(char)}{pattern})?"
    return pattern


def shortened(text: str, most: int) -> str:
    """The text, of at most `most` characters: the last of one that was cut is "…"."""
    return text if len(text) <= most else text[: most - 1] + "…"


def counted(number: int, what: str) -> str:
    """So many of something: `1 row`, `2,000 rows`."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def keepable(text: str, most: int = 4_000) -> str:
    """A stranger's text as a journal takes it: never more than `most` characters, and lone surrogates escaped."""
    cut = shortened(text, most)
    return cut if cut.isascii() else cut.encode("utf-8", "backslashreplace").decode()


def told(error: BaseException) -> str:
    """What a stranger's exception says; empty where it cannot even do that."""
    try:
        return keepable(str(error))
    except Exception:  # noqa: BLE001 - `__str__` is a stranger's code too
        return ""


_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str, *, keep: str = "\n\t") -> str:
    """The text as it may be shown on a screen: control, escape, bidi, invisible and private characters as `\\x1b`, `\\u202e`.

    `keep` are control characters that stay. The stored text is never changed.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in keep or _harmless(char) else _escaped(char) for char in text)


def _harmless(char: str) -> bool:
    return char == " " or (char not in _BIDI and unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
