"""Certificates: statistical guarantees for accepted outputs, and their files.

`certify` finds a threshold whose share of wrong outputs is bounded, `conformal` one for the claims of answers; `drift`
monitors audited outputs. The files share one format (`format`) with three kinds: `file` (outputs), `claims_file`
(claims) and `combination` (check weights). `attempts` and `audits` are the logs beside them.
"""

__all__ = [
    "attempts",
    "audits",
    "binomial",
    "certify",
    "claims_file",
    "combination",
    "conformal",
    "drift",
    "file",
    "format",
    "row_fingerprints",
]
