"""Certification: labelled answers, attempts and audits, which certificates are computed from."""

__all__ = [
    "attempt_log",
    "audit",
    "audit_log",
    "claims",
    "combination",
    "independent",
    "labelled_answers",
    "rulings",
]
