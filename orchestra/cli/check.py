"""`orchestra check`: an answer held against evidence, without a workflow; and without a fleet, unless a check asks agents."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.context import opener, serving, settings
from orchestra.cli.exit_codes import STATUS_CODES
from orchestra.cli.options import AsJson, Fleet
from orchestra.cli.typer_adapter import add
from orchestra.core.errors import InputError

if TYPE_CHECKING:
    from orchestra.cli.context import Opener
    from orchestra.core.protocols import Source
    from orchestra.core.settings import Settings
    from orchestra.verification.acceptance import Ruling

MAX_PLACES = 20
"""Places that are printed of one verdict."""
TOLD = ("accept", "combined", "confidence", "back_off")
"""What an open `Orchestra` is told as it was typed."""


@dataclass(frozen=True, slots=True)
class Judging:
    """An answer, what it is held against, and how, as it was typed."""

    answer: Annotated[str, typer.Argument(help="A text, JSON, @file.txt or @file.json; @@ is a plain @.", show_default=False)]
    against: Annotated[
        list[Path], typer.Option("--against", "-a", metavar="FILE", help="What it must rest on: a text, JSON, or a folder of texts.")
    ]
    checks: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKS", help="Which checks, with commas between, or put together.", show_default="quote, or those of the combination"
        ),
    ] = None
    accept: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="The score that it must reach.", show_default="0.5, or as certified with --combined"),
    ] = None
    combined: Annotated[
        str,
        typer.Option(
            metavar="AGENT|FILE", help="Whose answer it is: what the checks of its combination say becomes one score.", show_default=False
        ),
    ] = ""
    confidence: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="How sure its producer was, for confidence.", show_default=False)
    ] = None
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="KEY=VALUE", help="What it was made from, for rederive(NAME) and agree(N)."),
    ] = None
    back_off: Annotated[
        bool, typer.Option("--back-off", help="Take out the parts that entailment does not pass, and print what is left.")
    ] = False
    fleet: Fleet = None
    as_json: AsJson = False


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    add(app, check, panel="Run")


def check(context: typer.Context, asked: Judging) -> None:
    """Hold an answer against evidence: quotes, numbers, sums; and what agents say of it, where they are asked.

    --checks 'quote | entailment' puts checks together, as a workflow does. Of JSON the fields `quote` and `quotes` are quotes, and
    an `expression` is computed again; a text is a quote as a whole where the check `quote` is asked for. Where no check asks an
    agent, no fleet is needed and nothing is recorded.

    --combined AGENT weighs the checks as `orchestra learn combine` found for that agent, and accepts as its certificate says that
    `orchestra certify --combined` made, or from --accept on.

    Exits with 0 where the answer is accepted, with 3 where it is not.
    """
    ruling, given = ruled(opener(context), asked)
    more = {"rest": ruling.rest(given) if ruling.accepted else None, "dropped": ruling.dropped} if asked.back_off else {}
    more |= {"promise": ruling.promise or None} if asked.combined else {}
    if asked.as_json:
        _print_data(ruling, more)
    else:
        _show(ruling, more)
    if not ruling.accepted:
        raise typer.Exit(STATUS_CODES["abstained"])


def ruled(open_: Opener, asked: Judging) -> tuple[Ruling, Any]:
    """What the checks say, and the answer as it was read. Raises `InputError` before anything starts."""
    from orchestra.cli.run.plan import values
    from orchestra.cli.signals import carry_out
    from orchestra.verification.standalone import ACCEPT, judge

    told = {"inputs": values((), asked.inputs or ()), **{name: getattr(asked, name) for name in TOLD}}
    chosen = settings(fleet=asked.fleet)
    named, asking = _checks(asked)
    given, evidence = _answer(asked.answer), _evidence(asked.against)
    if asking:
        return carry_out(lambda _: _asked(open_, chosen, given, evidence, {"checks": named, **told})), given
    return judge(given, evidence, named or (), ACCEPT if asked.accept is None else asked.accept, asked.confidence), given


async def _asked(open_: Opener, chosen: Settings, answer: Any, evidence: Sequence[Source], told: Mapping[str, Any]) -> Ruling:
    """What checks say that ask agents, or that a combination weighs."""
    texts = [{"text": source.text, "source": source.name} for source in evidence]
    async with serving(open_, chosen) as orchestra:
        return await orchestra.check(answer, against=texts, **told)


def _checks(asked: Judging) -> tuple[list[str] | None, bool]:
    """The checks, None for those of the combination; and whether an open `Orchestra` is needed.

    Raises `InputError` C037 for one that needs more than is given, or that nobody knows, V010 for what cannot be read.
    """
    if asked.combined and asked.checks is None:
        return None, True
    found, asking = _named("quote" if asked.checks is None else asked.checks, _known(asked))
    if asked.back_off and "entailment" not in (text.partition("(")[0] for text in found):
        raise InputError("C037", "--back-off needs the check 'entailment' by itself", hint="--checks entailment")
    return found, asking or bool(asked.combined)


def _named(told: str, known: list[str]) -> tuple[list[str], bool]:
    """Checks as they are written, and whether one of them asks agents."""
    from orchestra.core.suggestions import nearest
    from orchestra.verification.check_expression import NotARule, named, read
    from orchestra.verification.model_checks import ASKING

    found = [part.strip() for part in told.split(",") if part.strip()]
    if not found:
        raise InputError("C037", "no check is named", hint=_those(known))
    asking = False
    for text in found:
        try:
            names = [check.check for check in named(read(text))]
        except NotARule as error:
            raise InputError("V010", f"{text!r} is no check: {error.why}", hint="--checks 'quote | entailment'") from error
        for name in names:
            if name not in known:
                hint = f"did you mean {near!r}?" if (near := nearest(name, known)) else f"{_those(known)}; one of your own is tool({name})"
                raise InputError("C037", f"no check {name!r} works on an answer alone", hint=hint)
            asking = asking or name in ASKING
    return found, asking


def _known(asked: Judging) -> list[str]:
    """The checks that can be asked: not those that want to know who made the answer, or how sure that was, where nobody says so."""
    from orchestra.verification.acceptance import CONFIDENCE
    from orchestra.verification.check_expression import AGREE
    from orchestra.verification.deterministic import CHECKS
    from orchestra.verification.model_checks import ASKING

    sure = [CONFIDENCE] if asked.combined or asked.confidence is not None else []
    return [*CHECKS, *sure, *(name for name in ASKING if name != AGREE or asked.combined)]


def _those(known: list[str]) -> str:
    return f"these do: {', '.join(known)}"


def _answer(text: str) -> Any:
    """The answer: the text itself, or JSON where it is an object, a list or a file of JSON. Raises `InputError` C014 and C038."""
    from orchestra.cli.inputs import read_text
    from orchestra.schema.strict_json import NotStrictJSON, parse_untrusted

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
    from orchestra.core.protocols import sources

    found: list[Source] = []
    for path in paths:
        value = _json(path, read_text(path)) if path.suffix == ".json" and not os.path.isdir(path) else read_documents(path)
        found += sources(value)
    return tuple(found)


def _json(path: Path, text: str) -> Any:
    from orchestra.schema.strict_json import NotStrictJSON, parse_untrusted

    try:
        return parse_untrusted(text)
    except NotStrictJSON as error:
        raise InputError("C038", f"{path} is no JSON: {error}", hint="a file of another name is read as a text") from error


def _print_data(ruling: Ruling, more: dict[str, Any]) -> None:
    from orchestra.cli.output import print_json

    print_json(
        {
            "accepted": ruling.accepted,
            "score": ruling.score,
            "reason": ruling.reason,
            "verdicts": ruling.verdicts,
            "evidence": ruling.evidence,
            **more,
        }
    )


def _show(ruling: Ruling, more: dict[str, Any]) -> None:
    from rich.text import Text

    from orchestra.cli.output import say
    from orchestra.cli.run.result_view import as_text
    from orchestra.core.untrusted_text import visible

    score = "" if ruling.score is None else f", score {ruling.score:.2f}"
    say(f"accepted{score}" if ruling.accepted else f"not accepted{score}", style="bold green" if ruling.accepted else "bold yellow")
    if ruling.promise:
        say(visible(f"certified: {ruling.promise}"))
    elif "promise" in more and not ruling.accepted:
        say(visible(ruling.reason))
    for verdict in ruling.verdicts:
        say(visible(f"\n{verdict.check}: {verdict.outcome} {verdict.score:.2f}  {verdict.reason}".rstrip()))
        for found in verdict.evidence[:MAX_PLACES]:
            at = f" [{found.start}:{found.end}]" if found.start is not None else ""
            source = visible(found.source or "the evidence", keep="")
            say(Text.assemble(("  “", "dim"), (visible(found.quote), "green"), ("”", "dim"), f"  {source}{at}"))
        if len(verdict.evidence) > MAX_PLACES:
            say(f"  and {len(verdict.evidence) - MAX_PLACES} more", style="dim")
    for part in ruling.dropped:
        say(visible(f"\ndropped: {part.text}: {part.reason}"), style="yellow")
    if "rest" in more and ruling.accepted:
        say(visible(f"\n{as_text(more['rest'])}"))
