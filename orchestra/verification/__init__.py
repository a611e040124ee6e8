"""Verification: checks, their verdicts, and acceptance.

`acceptance` is a pure function from a request to a result. `deterministic` has the checks without a call (schema,
quote, numbers, recompute, format); `model_checks` has those that call an agent or a tool, and `session` is the state
machine that asks their questions. `check_expression` parses expressions such as `quote & numbers | entailment`.
`certificates` has statistical guarantees. Nothing here calls a model or reads a clock.
"""

__all__ = [
    "acceptance",
    "answer_parts",
    "certificates",
    "check_budget",
    "check_expression",
    "custom_checks",
    "deterministic",
    "entailment",
    "model_checks",
    "partial_answers",
    "rederivation",
    "session",
    "standalone",
    "verdict",
]
