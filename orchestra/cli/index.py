"""`orchestra index`: reads a folder once, so that later requests search it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestra.cli.options import JsonOption
from orchestra.cli.typer_adapter import add_command

if TYPE_CHECKING:
    from orchestra.schema.builtin_models import Passage

PASSAGES = 5
"""Passages that `--search` prints."""


def index(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of files.", show_default=False)],
    search: Annotated[
        str,
        typer.Option("--search", metavar="QUERY", help="Print the five best passages for a query.", show_default=False),
    ] = "",
    encode: Annotated[
        bool,
        typer.Option("--encode/--no-encode", help="Encode passages with the sentence encoder, if it is installed."),
    ] = True,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the index; the files stay.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read a folder into an index that `ask --documents FOLDER` then searches. Only new and changed files are read.

    The index is in the user's cache. Files that cannot be read are named. An interrupted command continues where it
    was.
    """
    from orchestra.app.embedding import open_embedder
    from orchestra.cli.files import failures_data, report_failures
    from orchestra.cli.output import StatusLine, print_json, print_note
    from orchestra.cli.signals import interruptible
    from orchestra.core.untrusted_text import pluralize
    from orchestra.documents.index import FolderIndex, IndexOptions

    folder_index = FolderIndex(folder)
    if remove:
        folder_index.remove()
        return
    status = StatusLine()
    embedder = open_embedder() if encode else None
    with interruptible():
        report = folder_index.update(IndexOptions(embedder=embedder, progress=status.show_line))
    status.close()
    state = report.state
    if not search and as_json:
        counts = {name: getattr(report, name) for name in ("read", "unchanged", "removed", "encoded")}
        totals = {"files": state.files, "passages": state.passages, "passages_encoded": state.encoded}
        print_json({**counts, **totals, "unread": failures_data(state.failures)})
        return
    report_failures(state.failures)
    print_note(
        f"{pluralize(state.files, 'file')}, {pluralize(state.passages, 'passage')}, {state.encoded} encoded;"
        f" {report.read} read, {report.unchanged} unchanged, {report.removed} removed"
    )
    if search:
        passages = folder_index.search(search, PASSAGES, embedder)
        if as_json:
            print_json([passage.model_dump(mode="json") for passage in passages])
        else:
            _show(passages)


def _show(passages: Sequence[Passage]) -> None:
    """Prints passages with their places."""
    from orchestra.cli.output import print_text
    from orchestra.core.untrusted_text import escape_invisible

    for passage in passages:
        place = passage.locations[0].name if passage.locations else f"[{passage.start}:{passage.end}]"
        print_text(escape_invisible(f"{passage.source} {place}", keep=""), style="bold")
        print_text(f"{escape_invisible(passage.text)}\n")


def register(app: typer.Typer) -> None:
    """Adds `index`."""
    add_command(app, index, panel="Run")
