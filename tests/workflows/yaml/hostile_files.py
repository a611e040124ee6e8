"""Reads and compiles 2,000 hostile workflow files. Fails at the first audit event of Python with a side effect."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from orchestra.core.errors import InputError  # noqa: E402  # the path comes first
from orchestra.workflows.compile.compiler import compile_graph  # noqa: E402
from orchestra.workflows.yaml.reader import read  # noqa: E402
from tests.workflows.catalog import CATALOG, whole  # noqa: E402
from tests.workflows.samples import SAMPLES  # noqa: E402

FILES = 2_000
HARMLESS = (
    "object.__getattr__",
    "object.__setattr__",
    "object.__delattr__",
    "sys._getframe",
    "builtins.id",
    "gc.",
    "re.",
    "array.",
)
"""Events of looking at objects; all others open, import, compile, run or connect."""
SEEDS = (
    "*a", "&a", "!!python/object/apply:os.system [id]", "!x", "<<", "---", "}", "${a.b}", "$${", "\x00", "\t", "\ufeff", "010",  # noqa: E501
    ".inf", "${", "null", "{}", "[]", "{{ 7 * 7 }}", "__import__('os')", "../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1/",
    "9" * 400,
    "${a.map(x, a.map(y, y))}", "a" * 70, "[" * 70, "{a: " * 70, "'",
    '"', "# ", "%TAG ! x", "|", ">", "each: ${a}", "as: a", "when: ${true}",
    "${1/0}", "${'a'.matches('(a+)+$')}", "\N{RIGHT-TO-LEFT OVERRIDE}", "- ", ": ", "? ", "loop", "call: w", "first_of: []", "retry: 1e400",  # noqa: E501
)  # fmt: skip


def mutated(random_: random.Random, text: str) -> str | bytes:
    """A file like another one, with a few of its parts changed; or with a few of its bytes."""
    for _ in range(random_.choice((1, 1, 1, 2, 5))):
        at = random_.randrange(len(text) + 1)
        lines = text.split("\n")
        match random_.randrange(7):
            case 0:
                text = text[:at] + random_.choice(SEEDS) + text[at:]
            case 1:
                text = text[:at] + text[at + random_.randrange(1, 12) :]
            case 2:
                line = random_.randrange(len(lines))
                text = "\n".join([*lines[:line], random_.choice(lines), *lines[line:]])
            case 3:
                line = random_.randrange(len(lines))
                text = "\n".join([*lines[:line], *lines[line + 1 :]])
            case 4:
                words = text.split(" ")
                words[random_.randrange(len(words))] = random_.choice(words + list(SEEDS))
                text = " ".join(words)
            case 5:
                text = text[:at] + chr(random_.choice((0, 9, 27, 127, 0x85, 0x202E, 0xD800, 0x1F600))) + text[at:]
            case _:
                data = bytearray(text.encode("utf-8", "replace"))
                if data:
                    data[random_.randrange(len(data))] = random_.randrange(256)
                return bytes(data)
    return text


def attempt(text: str | bytes) -> bool:
    """Whether a file is a workflow. Raises what is no `InputError`."""
    try:
        source = read(text, "hostile.yaml")
        compile_graph(source.graph, CATALOG, source.places)
    except InputError as error:
        str(error)
        return False
    return True


def main() -> None:
    """Warms up, so that everything is imported; then watches."""
    samples = [whole(text) for text in SAMPLES]
    for text in samples:
        if not attempt(text):
            raise SystemExit(f"a sample is refused:\n{text}")
    for text in (
        "output: ${a.f(",
        "types: {T: {type: object, properties: {a: 3}}}\ninput: {t: T, u: list[}\noutput: ${a}\nnodes: {a: {ask: 3}}",
    ):
        attempt(whole(text))
    rng = random.Random(7)
    files: list[Any] = [mutated(rng, rng.choice(samples)) for _ in range(FILES - 200)]
    files += [rng.randbytes(rng.randrange(400)) for _ in range(200)]
    for text in files[:100]:
        attempt(text)
    watching = True

    def hook(event: str, args: Any) -> None:
        if watching and not event.startswith(HARMLESS):
            raise SystemExit(f"{event}{args!r}")

    sys.addaudithook(hook)
    accepted = sum([attempt(text) for text in files])
    watching = False
    print(json.dumps({"files": len(files), "accepted": accepted, "refused": len(files) - accepted}))


if __name__ == "__main__":
    main()
