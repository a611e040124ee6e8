"""`orchestra check`: an answer held against evidence, without a workflow; and without a fleet, unless a check asks agents."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.context import get_opener, load_settings, open_orchestra
from orchestra.cli.options import FleetOption, JsonOption
from orchestra.cli.typer_adapter import STATUS_CODES, add_command
from orchestra.core.errors import InputError

if TYPE_CHECKING:
    from orchestra.cli.context import Opener
    from orchestra.core.protocols import EvidenceSource
    from orchestra.core.settings import Settings
    from orchestra.verification.acceptance import VerificationResult

MAX_PLACES = 20
"""Places that are printed of one verdict."""
FORWARDED_OPTIONS = ("accept", "combined", "confidence", "back_off")
"""What an open `Orchestra` is told as it was typed."""


@dataclass(frozen=True, slots=True)
class CheckArguments:
    """An answer, what it is held against, and how, as it was typed."""

    answer: Annotated[
        str, typer.Argument(help="A text, JSON, @file.txt or @file.json; @@ is a plain @.", show_default=False)
    ]
    against: Annotated[
        list[Path],
        typer.Option(
            "--against", "-a", metavar="FILE", help="What it must rest on: a text, JSON, or a folder of texts."
        ),
    ]
    checks: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKS",
            help="Which checks, with commas between, or put together.",
            show_default="quote, or those of the combination",
        ),
    ] = None
    accept: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="The score that it must reach.", show_default="0.5, or as certified with --combined"
        ),
    ] = None
    combined: Annotated[
        str,
        typer.Option(
            metavar="AGENT|FILE",
            help="Whose answer it is: what the checks of its combination say becomes one score.",
            show_default=False,
        ),
    ] = ""
    confidence: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="How sure its producer was, for confidence.", show_default=False),
    ] = None
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", metavar="KEY=VALUE", help="What it was made from, for rederive(NAME) and agree(N)."
        ),
    ] = None
    back_off: Annotated[
        bool,
        typer.Option("--back-off", help="Take out the parts that entailment does not pass, and print what is left."),
    ] = False
    fleet: FleetOption = None
    as_json: JsonOption = False


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    add_command(app, check, panel="Run")


def check(context: typer.Context, arguments: CheckArguments) -> None:
    """Hold an answer against evidence: quotes, numbers, sums; and what agents say of it, where they are asked.

    --checks 'quote | entailment' puts checks together, as a workflow does. Of JSON the fields `quote` and `quotes` are quotes, and
    an `expression` is computed again; a text is a quote as a whole where the check `quote` is asked for. Where no check asks an
    agent, no fleet is needed and nothing is recorded.

    --combined AGENT weighs the checks as `orchestra learn combine` found for that agent, and accepts as its certificate says that
    `orchestra certify --combined` made, or from --accept on.

    Exits with 0 where the answer is accepted, with 3 where it is not.
    """
    ruling, given = run_checks(get_opener(context), arguments)
    more = (
        {"rest": ruling.remaining(given) if ruling.accepted else None, "dropped": ruling.dropped}
        if arguments.back_off
        else {}
    )
    more |= {"guarantee": ruling.guarantee or None} if arguments.combined else {}
    if arguments.as_json:
        _print_data(ruling, more)
    else:
        _show(ruling, more)
    if not ruling.accepted:
        raise typer.Exit(STATUS_CODES["abstained"])


def run_checks(open_: Opener, arguments: CheckArguments) -> tuple[VerificationResult, Any]:
    """What the checks say, and the answer as it was read. Raises `InputError` before anything starts."""
    from orchestra.cli.run.plan import read_values
    from orchestra.cli.signals import run_with_signals
    from orchestra.verification.standalone import DEFAULT_THRESHOLD, verify_answer

    told = {
        "inputs": read_values((), arguments.inputs or ()),
        **{name: getattr(arguments, name) for name in FORWARDED_OPTIONS},
    }
    chosen = load_settings(fleet=arguments.fleet)
    named, asking = _parse_checks(arguments)
    given, evidence = _read_answer(arguments.answer), _read_evidence(arguments.against)
    if asking:
        return run_with_signals(lambda _: _ask_agents(open_, chosen, given, evidence, {"checks": named, **told})), given
    return verify_answer(
        given,
        evidence,
        named or (),
        DEFAULT_THRESHOLD if arguments.accept is None else arguments.accept,
        arguments.confidence,
    ), given


async def _ask_agents(
    open_: Opener, settings: Settings, answer: Any, evidence: Sequence[EvidenceSource], told: Mapping[str, Any]
) -> VerificationResult:
    """What checks say that ask agents, or that a combination weighs."""
    texts = [{"text": source.text, "source": source.name} for source in evidence]
    async with open_orchestra(open_, settings) as orchestra:
        return await orchestra.check(answer, against=texts, **told)


def _parse_checks(arguments: CheckArguments) -> tuple[list[str] | None, bool]:
    """The checks, None for those of the combination; and whether an open `Orchestra` is needed.

    Raises `InputError` C037 for one that needs more than is given, or that nobody knows, V010 for what cannot be read.
    """
    if arguments.combined and arguments.checks is None:
        return None, True
    found, asking = _split_checks(
        "quote" if arguments.checks is None else arguments.checks, _available_checks(arguments)
    )
    if arguments.back_off and "entailment" not in (text.partition("(")[0] for text in found):
        raise InputError("C037", "--back-off needs the check 'entailment' by itself", hint="--checks entailment")
    return found, asking or bool(arguments.combined)


def _split_checks(told: str, known: list[str]) -> tuple[list[str], bool]:
    """Checks as they are written, and whether one of them asks agents."""
    from orchestra.core.suggestions import closest_match
    from orchestra.verification.check_expression import CheckSyntaxError, check_calls, parse_check
    from orchestra.verification.model_checks import MODEL_CHECKS

    found = [part.strip() for part in told.split(",") if part.strip()]
    if not found:
        raise InputError("C037", "no check is named", hint=_available_hint(known))
    asking = False
    for text in found:
        try:
            names = [check.check for check in check_calls(parse_check(text))]
        except CheckSyntaxError as error:
            raise InputError(
                "V010", f"{text!r} is no check: {error.reason}", hint="--checks 'quote | entailment'"
            ) from error
        for name in names:
            if name not in known:
                hint = (
                    f"did you mean {near!r}?"
                    if (near := closest_match(name, known))
                    else f"{_available_hint(known)}; one of your own is tool({name})"
                )
                raise InputError("C037", f"no check {name!r} works on an answer alone", hint=hint)
            asking = asking or name in MODEL_CHECKS
    return found, asking


def _available_checks(arguments: CheckArguments) -> list[str]:
    """The checks that can be asked: not those that want to know who made the answer, or how sure that was, where nobody says so."""
    from orchestra.verification.acceptance import CONFIDENCE
    from orchestra.verification.check_expression import AGREE
    from orchestra.verification.deterministic import DETERMINISTIC_CHECKS
    from orchestra.verification.model_checks import MODEL_CHECKS

    sure = [CONFIDENCE] if arguments.combined or arguments.confidence is not None else []
    return [*DETERMINISTIC_CHECKS, *sure, *(name for name in MODEL_CHECKS if name != AGREE or arguments.combined)]


def _available_hint(known: list[str]) -> str:
    return f"these do: {', '.join(known)}"


def _read_answer(text: str) -> Any:
    """The answer: the text itself, or JSON where it is an object, a list or a file of JSON. Raises `InputError` C014 and C038."""
    from orchestra.cli.inputs import read_text
    from orchestra.schema.strict_json import StrictJsonError, parse_untrusted

    if text.startswith("@@"):
        return text[1:]
    if text.startswith("@"):
        path = Path(text[1:])
        return _parse_json(path, read_text(path)) if path.suffix == ".json" else read_text(path).strip()
    if text.lstrip().startswith(("{", "[")):
        try:
            return parse_untrusted(text)
        except StrictJsonError:
            return text  # words in brackets
    return text


def _read_evidence(paths: Sequence[Path]) -> tuple[EvidenceSource, ...]:
    """The texts of files, named by them; of JSON all texts that stand in it. Raises `InputError` C014 and C038."""
    from orchestra.cli.inputs import read_documents, read_text
    from orchestra.core.protocols import collect_sources

    found: list[EvidenceSource] = []
    for path in paths:
        value = (
            _parse_json(path, read_text(path))
            if path.suffix == ".json" and not os.path.isdir(path)
            else read_documents(path)
        )
        found += collect_sources(value)
    return tuple(found)


def _parse_json(path: Path, text: str) -> Any:
    from orchestra.schema.strict_json import StrictJsonError, parse_untrusted

    try:
        return parse_untrusted(text)
    except StrictJsonError as error:
        raise InputError(
            "C038", f"{path} is no JSON: {error}", hint="a file of another name is read as a text"
        ) from error


def _print_data(ruling: VerificationResult, more: dict[str, Any]) -> None:
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


def _show(ruling: VerificationResult, more: dict[str, Any]) -> None:
    from rich.text import Text

    from orchestra.cli.output import print_text
    from orchestra.cli.run.result_view import format_value
    from orchestra.core.untrusted_text import escape_invisible

    score = "" if ruling.score is None else f", score {ruling.score:.2f}"
    print_text(
        f"accepted{score}" if ruling.accepted else f"not accepted{score}",
        style="bold green" if ruling.accepted else "bold yellow",
    )
    if ruling.guarantee:
        print_text(escape_invisible(f"certified: {ruling.guarantee}"))
    elif "guarantee" in more and not ruling.accepted:
        print_text(escape_invisible(ruling.reason))
    for verdict in ruling.verdicts:
        print_text(
            escape_invisible(f"\n{verdict.check}: {verdict.outcome} {verdict.score:.2f}  {verdict.reason}".rstrip())
        )
        for found in verdict.evidence[:MAX_PLACES]:
            at = f" [{found.start}:{found.end}]" if found.start is not None else ""
            source = escape_invisible(found.source or "the evidence", keep="")
            print_text(
                Text.assemble(("  “", "dim"), (escape_invisible(found.quote), "green"), ("”", "dim"), f"  {source}{at}")
            )
        if len(verdict.evidence) > MAX_PLACES:
            print_text(f"  and {len(verdict.evidence) - MAX_PLACES} more", style="dim")
    for part in ruling.dropped:
        print_text(escape_invisible(f"\ndropped: {part.text}: {part.reason}"), style="yellow")
    if "rest" in more and ruling.accepted:
        print_text(escape_invisible(f"\n{format_value(more['rest'])}"))
