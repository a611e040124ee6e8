"""Builds `examples/documents/` from XQuAD (English): twelve paragraphs, and ten questions, seven of them answerable.

    python scripts/build_example_documents.py --data PATH/xquad_en

`PATH/xquad_en` has `dev.jsonl` and `LICENSE`. All choices follow from one seed, so the folder is reproducible byte by
byte. The three unanswerable questions belong to other paragraphs, and none of their gold answers occurs in the chosen
ones.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SEED = 7
DOCUMENTS, ANSWERED, UNANSWERED = 12, 7, 3
NOTE = """\
# Example documents

{documents} paragraphs of English Wikipedia, one per file, and {questions} questions in `questions.json`.
These documents do not answer {unanswered} of the questions. `answers` lists the correct answers; it is empty for those {unanswered}.
`document` is the paragraph of a question.

**Not under the licence of Orchestra.** The paragraphs and questions come from XQuAD (Artetxe, Ruder, Yogatama 2020,
`github.com/google-deepmind/xquad`, `xquad.en.json`), which took them from SQuAD 1.1 (Rajpurkar, Zhang, Lopyrev, Liang 2016) over English
Wikipedia. They are licensed CC BY-SA 4.0; see `LICENSE`. Changes: each paragraph is a separate file, named by its
first words; surrounding white space was removed; questions that end in a question mark were sampled with a seed.

Made by `python scripts/build_example_documents.py --data PATH/xquad_en`, seed {seed}.
"""  # noqa: E501


def rows(path: Path) -> list[dict[str, Any]]:
    """Reads the records of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def named(text: str) -> str:
    """Returns a file name from the first words of a text."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return "-".join(words[:5]) + ".txt"


def choose(data: list[dict[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Returns the paragraphs, and the questions in order."""
    dice = random.Random(SEED)
    answered = [row for row in data if row["expected"]["answers"] and row["input"]["question"].strip().endswith("?")]
    paragraphs = sorted({row["input"]["context"].strip() for row in answered})
    chosen = sorted(dice.sample(paragraphs, DOCUMENTS))
    inside = [row for row in answered if row["input"]["context"].strip() in chosen]
    together = "\n".join(chosen).casefold()
    outside = [
        row
        for row in answered
        if row["input"]["context"].strip() not in chosen
        and not any(a["text"].casefold() in together for a in row["expected"]["answers"])
    ]
    by_paragraph = [
        [row for row in inside if row["input"]["context"].strip() == text] for text in dice.sample(chosen, ANSWERED)
    ]
    asked = [
        {
            "question": row["input"]["question"].strip(),
            "answers": texts(row),
            "document": named(row["input"]["context"]),
        }
        for row in (dice.choice(group) for group in by_paragraph)
    ]
    asked += [
        {"question": row["input"]["question"].strip(), "answers": [], "document": None}
        for row in dice.sample(outside, UNANSWERED)
    ]
    dice.shuffle(asked)
    return chosen, asked


def texts(row: dict[str, Any]) -> list[str]:
    """Returns the distinct answers of a record."""
    return list(dict.fromkeys(answer["text"] for answer in row["expected"]["answers"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder xquad_en")
    parser.add_argument("--out", type=Path, default=ROOT / "examples" / "documents")
    given = parser.parse_args()
    paragraphs, questions = choose(rows(given.data / "dev.jsonl"))
    given.out.mkdir(parents=True, exist_ok=True)
    for old in given.out.glob("*.txt"):
        old.unlink()
    for text in paragraphs:
        (given.out / named(text)).write_text(text + "\n", "utf-8")
    (given.out / "questions.json").write_text(json.dumps(questions, indent=1, ensure_ascii=False) + "\n", "utf-8")
    note = NOTE.format(documents=len(paragraphs), questions=len(questions), unanswered=UNANSWERED, seed=SEED)
    (given.out / "README.md").write_text(note, "utf-8")
    shutil.copyfile(given.data / "LICENSE", given.out / "LICENSE")
    (given.out / "LICENSE").chmod(0o644)
    print(f"{len(paragraphs)} documents, {len(questions)} questions in {given.out}")


if __name__ == "__main__":
    main()
