"""`orchestra check`: an answer held against evidence, without a workflow; and without a fleet, unless a check asks agents."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.failure import STATUS_CODES, Verb
from orchestra.cli.opening import opener, settings
from orchestra.errors import InputError

if TYPE_CHECKING:
    from orchestra.cli.opening import Opener
    from orchestra.cli.signals import Stop
    from orchestra.config import Settings
    from orchestra.doors import Source
    from orchestra.verify.acceptance import Ruling

MAX_PLACES = 20
"""Places that are printed of one verdict."""


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command(cls=Verb, rich_help_panel="Run")
    def check(
        context: typer.Context,
        answer: Annotated[str, typer.Argument(help="A text, JSON, @file.txt or @file.json; @@ is a plain @.", show_default=False)],
        against: Annotated[
            list[Path], typer.Option("--against", "-a", metavar="FILE", help="What it must rest on: a text, JSON, or a folder of texts.")
        ],
        checks: Annotated[str, typer.Option(metavar="CHECKS", help="Which checks, with commas between, or put together.")] = "quote",
        accept: Annotated[float, typer.Option(min=0.0, max=1.0, help="The score that it must reach.")] = 0.5,
        inputs: Annotated[
            list[str] | None, typer.Option("--input", "-i", metavar="KEY=VALUE", help="What it was made from, for rederive(NAME).")
        ] = None,
        back_off: Annotated[
            bool, typer.Option("--back-off", help="Take out the parts that entailment does not pass, and print what is left.")
        ] = False,
        fleet: Annotated[str | None, typer.Option(help="A name in configs/, or a path.", show_default="as configured")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Hold an answer against evidence: quotes, numbers, sums; and what agents say of it, where they are asked.

        --checks 'quote | entailment' puts checks together, as a workflow does. Of JSON the fields `quote` and `quotes` are quotes, and
        an `expression` is computed again; a text is a quote as a whole where the check `quote` is asked for. Where no check asks an
        agent, no fleet is needed and nothing is recorded.

        Exits with 0 where the answer is accepted, with 3 where it is not.
        """
        from orchestra.cli.drafting import values
        from orchestra.cli.signals import carry_out
        from orchestra.verify.alone import judge

        named, asking = _checks(checks)
        if back_off and "entailment" not in (text.partition("(")[0] for text in named):
            raise InputError("C037", "--back-off needs the check 'entailment' by itself", hint="--checks entailment")
        given, evidence = _answer(answer), _evidence(against)
        if asking:
            told = {"checks": named, "accept": accept, "inputs": values((), inputs or ()), "back_off": back_off}
            ruling = carry_out(partial(_asked, opener(context), settings(fleet=fleet), given, evidence, told))
        else:
            ruling = judge(given, evidence, named, accept)
        rest = {"rest": ruling.rest(given) if ruling.accepted else None, "dropped": ruling.dropped} if back_off else {}
        if as_json:
            _print_data(ruling, rest)
        else:
            _show(ruling, rest)
        if not ruling.accepted:
            raise typer.Exit(STATUS_CODES["abstained"])


async def _asked(open_: Opener, chosen: Settings, answer: Any, evidence: Sequence[Source], told: dict[str, Any], stop: Stop) -> Ruling:
    """What checks say that ask agents."""
    from orchestra.cli.progress import Waiting

    waiting, texts = Waiting(), [{"text": source.text, "source": source.name} for source in evidence]
    try:
        async with open_(chosen, fleet="start", progress=waiting) as orchestra:
            return await orchestra.check(answer, against=texts, **told)
    finally:
        waiting.close()


def _checks(told: str) -> tuple[list[str], bool]:
    """The checks, and whether one of them asks agents.

    Raises `InputError` C037 for one that needs more than an answer and evidence, or that nobody knows, V010 for what cannot be read.
    """
    from orchestra.values.schema import nearest
    from orchestra.verify.acceptance import ASKING
    from orchestra.verify.rule import NotARule, named, read

    found = [part.strip() for part in told.split(",") if part.strip()]
    if not found:
        raise InputError("C037", "no check is named", hint=_those())
    asking = False
    for text in found:
        try:
            names = [check.check for check in named(read(text))]
        except NotARule as error:
            raise InputError("V010", f"{text!r} is no check: {error.why}", hint="--checks 'quote | entailment'") from error
        for name in names:
            if name not in (known := _known()):
                hint = f"did you mean {near!r}?" if (near := nearest(name, known)) else _those()
                raise InputError("C037", f"no check {name!r} works on an answer alone", hint=hint)
            asking = asking or name in ASKING
    return found, asking


def _known() -> list[str]:
    """The checks that work on an answer alone: not those that want to know who made it."""
    from orchestra.verify.acceptance import ASKING
    from orchestra.verify.deterministic import CHECKS
    from orchestra.verify.rule import AGREE

    return [*CHECKS, *(name for name in ASKING if name != AGREE)]


def _those() -> str:
    return f"these do: {', '.join(_known())}"


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


def _print_data(ruling: Ruling, rest: dict[str, Any]) -> None:
    from orchestra.cli.screen import print_json

    print_json(
        {
            "accepted": ruling.accepted,
            "score": ruling.score,
            "reason": ruling.reason,
            "verdicts": ruling.verdicts,
            "evidence": ruling.evidence,
            **rest,
        }
    )


def _show(ruling: Ruling, rest: dict[str, Any]) -> None:
    from rich.text import Text

    from orchestra.cli.answer import as_text
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
    for part in ruling.dropped:
        say(visible(f"\ndropped: {part.text}: {part.reason}"), style="yellow")
    if rest and ruling.accepted:
        say(visible(f"\n{as_text(rest['rest'])}"))
