"""`orchestra check`: an answer held against evidence, without a workflow, a journal or a fleet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.failure import STATUS_CODES, Verb
from orchestra.errors import InputError

if TYPE_CHECKING:
    from orchestra.doors import Source
    from orchestra.verify.acceptance import Ruling

MAX_PLACES = 20
"""Places that are printed of one verdict."""


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command(cls=Verb, rich_help_panel="Run")
    def check(
        answer: Annotated[str, typer.Argument(help="A text, JSON, @file.txt or @file.json; @@ is a plain @.", show_default=False)],
        against: Annotated[
            list[Path], typer.Option("--against", "-a", metavar="FILE", help="What it must rest on: a text, JSON, or a folder of texts.")
        ],
        checks: Annotated[str, typer.Option(metavar="NAMES", help="Which checks, with commas between.")] = "quote",
        accept: Annotated[float, typer.Option(min=0.0, max=1.0, help="The score that it must reach.")] = 0.5,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Hold an answer against evidence: quotes, numbers, sums. No model is asked, and nothing is recorded.

        Of JSON the fields `quote` and `quotes` are quotes, and an `expression` is computed again; a text is a quote as a whole where
        the check `quote` is asked for.

        Exits with 0 where the answer is accepted, with 3 where it is not.
        """
        from orchestra.verify.alone import judge

        named = _checks(checks)
        ruling = judge(_answer(answer), _evidence(against), named, accept)
        if as_json:
            _print_data(ruling)
        else:
            _show(ruling)
        if not ruling.accepted:
            raise typer.Exit(STATUS_CODES["abstained"])


def _checks(named: str) -> list[str]:
    """The names of checks. Raises `InputError` C037 for one that needs more than an answer and evidence, or that nobody knows."""
    from orchestra.values.schema import nearest
    from orchestra.verify.deterministic import CHECKS

    found = [name.strip() for name in named.split(",") if name.strip()]
    for name in found:
        if name not in CHECKS:
            near = nearest(name, CHECKS)
            raise InputError("C037", f"no check {name!r} works on an answer alone", hint=f"did you mean {near!r}?" if near else _those())
    if not found:
        raise InputError("C037", "no check is named", hint=_those())
    return found


def _those() -> str:
    from orchestra.verify.deterministic import CHECKS

    return f"these do: {', '.join(CHECKS)}"


def _answer(text: str) -> Any:
    """The answer: the text itself, or JSON where it is an object, a list or a file of JSON. Raises `InputError` C014 and C038."""
    from orchestra.cli.inputs import read_text
    from orchestra.values.json import NotStrictJSON, parse_untrusted

    if text.startswith("@@"):
        return text[1:]
    if text.startswith("@"):
        path = Path(text[1:])
        return _json(path, read_text(path)) if path.suffix == ".json" else read_text(path).strip()
    if text.lstrip().startswith(("{", "[")):
        try:
            return parse_untrusted(text)
        except NotStrictJSON:
            return text  # words in brackets
    return text


def _evidence(paths: Sequence[Path]) -> tuple[Source, ...]:
    """The texts of files, named by them; of JSON all texts that stand in it. Raises `InputError` C014 and C038."""
    from orchestra.cli.inputs import read_documents, read_text
    from orchestra.engine.kinds.acceptance import sources

    found: list[Source] = []
    for path in paths:
        value = _json(path, read_text(path)) if path.suffix == ".json" and not path.is_dir() else read_documents(path)
        found += sources(value)
    return tuple(found)


def _json(path: Path, text: str) -> Any:
    from orchestra.values.json import NotStrictJSON, parse_untrusted

    try:
        return parse_untrusted(text)
    except NotStrictJSON as error:
        raise InputError("C038", f"{path} is no JSON: {error}", hint="a file of another name is read as a text") from error


def _print_data(ruling: Ruling) -> None:
    from orchestra.cli.screen import print_json

    print_json(
        {
            "accepted": ruling.accepted,
            "score": ruling.score,
            "reason": ruling.reason,
            "verdicts": ruling.verdicts,
            "evidence": ruling.evidence,
        }
    )


def _show(ruling: Ruling) -> None:
    from rich.text import Text

    from orchestra.cli.screen import console, say
    from orchestra.values.text import visible

    score = "" if ruling.score is None else f", score {ruling.score:.2f}"
    say(f"accepted{score}" if ruling.accepted else f"not accepted{score}", style="bold green" if ruling.accepted else "bold yellow")
    screen = console()
    for verdict in ruling.verdicts:
        say(visible(f"\n{verdict.check}: {verdict.outcome} {verdict.score:.2f}  {verdict.reason}".rstrip()))
        for found in verdict.evidence[:MAX_PLACES]:
            at = f" [{found.start}:{found.end}]" if found.start is not None else ""
            source = visible(found.source or "the evidence", keep="")
            screen.print(Text.assemble(("  “", "dim"), (visible(found.quote), "green"), ("”", "dim"), f"  {source}{at}"))
        if len(verdict.evidence) > MAX_PLACES:
            say(f"  and {len(verdict.evidence) - MAX_PLACES} more", style="dim")
