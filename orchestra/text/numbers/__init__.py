"""Numbers, dates, times, units and currencies in text.

`numerals` is the grammar of figures. `numbers` reads prose with it, `sort_keys` reads columns of tables. `unparsed`
finds numerals that neither of them reads.
"""

__all__ = [
    "currencies",
    "iso_codes",
    "numbers",
    "numerals",
    "sort_keys",
    "times",
    "units",
    "unparsed",
    "words",
]
