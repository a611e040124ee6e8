"""Training of encoder agents: classifiers, slot taggers, span readers, table readers and word-problem solvers."""

__all__ = [
    "classifier",
    "intents",
    "member",
    "record",
    "slots",
    "spans",
    "table_targets",
    "tables",
    "texts",
    "training",
    "tuned",
    "warm_start",
    "word_problems",
]
