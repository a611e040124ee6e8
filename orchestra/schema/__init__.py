"""Types and values: values are JSON, types are JSON Schema. All data between nodes has this form.

`types` parses and derives types, `validator` checks values, `assignability` compares types, `strict_json` and
`strict_yaml` parse untrusted text.
"""

__all__ = [
    "assignability",
    "builtin_models",
    "content",
    "decoding",
    "fields",
    "json_schema",
    "strict_json",
    "strict_yaml",
    "types",
    "validator",
]
