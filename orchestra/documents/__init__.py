"""Documents: files of an office as texts with locations and as tables, their passages, and an index over them.

`reading` reads files, in a process of its own where a format is complicated. `tables` finds headers and types of
columns. `passages` splits texts, `ranking` orders passages, and `index` keeps both for a folder.
"""
