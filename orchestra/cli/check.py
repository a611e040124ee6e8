"""`orchestra check`: check an answer against evidence without a workflow. A fleet is needed only for checks that call
agents.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.context import get_opener, load_settings, open_orchestra
from orchestra.cli.options import EndpointOption, FleetOption, JsonOption, ModelOption
from orchestra.cli.typer_adapter import STATUS_CODES, add_command
from orchestra.core.errors import InputError

if TYPE_CHECKING:
    from orchestra.cli.context import Opener
    from orchestra.core.protocols import EvidenceSource
    from orchestra.core.settings import Settings
    from orchestra.verification.acceptance import VerificationResult

MAX_PLACES = 20
"""The maximum number of evidence passages printed for one verdict."""
FORWARDED_OPTIONS = ("accept", "combined", "confidence", "back_off")
"""Options passed unchanged to `Orchestra.check`."""


@dataclass(frozen=True, slots=True)
class CheckArguments:
    """The arguments of `orchestra check`."""

    answer: Annotated[
        str,
        typer.Argument(help="The answer: text, JSON, @file.txt or @file.json; @@ means @.", show_default=False),
    ]
    against: Annotated[
        list[Path],
        typer.Option(
            "--against", "-a", metavar="FILE", help="Evidence: a text file, a JSON file, or a folder of texts."
        ),
    ]
    checks: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKS",
            help="Comma-separated checks, or a check expression.",
            show_default="quote, or those of the combination",
        ),
    ] = None
    accept: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="The score from which the answer is accepted.",
            show_default="0.5, or as certified with --combined",
        ),
    ] = None
    combined: Annotated[
        str,
        typer.Option(
            metavar="AGENT|FILE",
            help="The agent that gave the answer; its combination turns the checks into one score.",
            show_default=False,
        ),
    ] = ""
    confidence: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="The confidence of the model in the answer, for the check `confidence`.",
            show_default=False,
        ),
    ] = None
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="KEY=VALUE",
            help="An input that led to the answer, for rederive(NAME) and agree(N).",
        ),
    ] = None
    back_off: Annotated[
        bool,
        typer.Option("--back-off", help="Remove the parts that fail entailment, and print the rest."),
    ] = False
    fleet: FleetOption = None
    endpoint: EndpointOption = None
    model: ModelOption = None
    as_json: JsonOption = False


def register(app: typer.Typer) -> None:
    """Adds the command."""
    add_command(app, check, panel="Run")


def check(context: typer.Context, arguments: CheckArguments) -> None:
    """Check an answer against evidence: quotes, numbers, sums, and checks that call agents.

    --checks 'quote | entailment' is a check expression, as in a workflow. In JSON, the fields `quote` and `quotes` are
    quotes and `expression` is computed again. A plain text is one quote for the check `quote`. Without checks that call
    agents, no fleet is needed and nothing is recorded.

    --combined AGENT weighs the checks with the combination of that agent (`orchestra learn combine`). The threshold is
    that of its certificate (`orchestra certify --combined`), or --accept.

    Exits with 0 if the answer is accepted, and with 3 if it is not.
    """
    ruling, result = run_checks(get_opener(context), arguments)
    extra = (
        {"rest": ruling.remaining(result) if ruling.accepted else None, "dropped": ruling.dropped}
        if arguments.back_off
        else {}
    )
    extra |= {"guarantee": ruling.guarantee or None} if arguments.combined else {}
    if arguments.as_json:
        _print_data(ruling, extra)
    else:
        _show(ruling, extra)
    if not ruling.accepted:
        raise typer.Exit(STATUS_CODES["abstained"])


def run_checks(open_: Opener, arguments: CheckArguments) -> tuple[VerificationResult, Any]:
    """Runs the checks, and returns their result and the parsed answer. Raises `InputError` before anything starts."""
    from orchestra.cli.run.plan import read_values
    from orchestra.cli.signals import run_with_signals
    from orchestra.verification.standalone import DEFAULT_THRESHOLD, verify_answer

    check_arguments = {
        "inputs": read_values((), arguments.inputs or ()).values,
        **{name: getattr(arguments, name) for name in FORWARDED_OPTIONS},
    }
    settings = load_settings(fleet=arguments.fleet, endpoint=arguments.endpoint, model=arguments.model)
    check_names, asks_models = _parse_checks(arguments)
    answer, evidence = _read_answer(arguments.answer), _read_evidence(arguments.against)
    if asks_models:
        return run_with_signals(
            lambda _: _ask_agents(open_, settings, answer, evidence, {"checks": check_names, **check_arguments})
        ), answer
    return verify_answer(
        answer,
        evidence,
        check_names or (),
        DEFAULT_THRESHOLD if arguments.accept is None else arguments.accept,
        arguments.confidence,
    ), answer


async def _ask_agents(
    open_: Opener,
    settings: Settings,
    answer: Any,
    evidence: Sequence[EvidenceSource],
    check_arguments: Mapping[str, Any],
) -> VerificationResult:
    """Runs checks that call agents or use a combination."""
    texts = [{"text": source.text, "source": source.name} for source in evidence]
    async with open_orchestra(open_, settings) as orchestra:
        return await orchestra.check(answer, against=texts, **check_arguments)


def _parse_checks(arguments: CheckArguments) -> tuple[list[str] | None, bool]:
    """Returns the checks, or None for those of the combination, and whether an open `Orchestra` is needed.

    Raises:
        InputError: C037 for an unknown check or one without its inputs; V010 for a check that cannot be parsed.
    """
    if arguments.combined and arguments.checks is None:
        return None, True
    check_names, asks_models = _split_checks(
        "quote" if arguments.checks is None else arguments.checks, _available_checks(arguments)
    )
    if arguments.back_off and "entailment" not in (text.partition("(")[0] for text in check_names):
        raise InputError(
            "C037", "--back-off needs the check 'entailment' outside of a combination", hint="--checks entailment"
        )
    return check_names, asks_models or bool(arguments.combined)


def _split_checks(checks: str, available_checks: list[str]) -> tuple[list[str], bool]:
    """Splits the checks, and returns whether one of them calls agents."""
    from orchestra.core.suggestions import closest_match
    from orchestra.verification.check_expression import CheckSyntaxError, check_calls, parse_check
    from orchestra.verification.model_checks import MODEL_CHECKS

    parts = [part.strip() for part in checks.split(",") if part.strip()]
    if not parts:
        raise InputError("C037", "no check is given", hint=_available_hint(available_checks))
    asks_models = False
    for text in parts:
        try:
            names = [check.check for check in check_calls(parse_check(text))]
        except CheckSyntaxError as error:
            raise InputError(
                "V010", f"{text!r} is not a check: {error.reason}", hint="--checks 'quote | entailment'"
            ) from error
        for name in names:
            if name not in available_checks:
                hint = (
                    f"did you mean {near!r}?"
                    if (near := closest_match(name, available_checks))
                    else f"{_available_hint(available_checks)}; a check of your own is tool({name})"
                )
                raise InputError("C037", f"the check {name!r} cannot check an answer alone", hint=hint)
            asks_models = asks_models or name in MODEL_CHECKS
    return parts, asks_models


def _available_checks(arguments: CheckArguments) -> list[str]:
    """The available checks. Those that need the agent or its confidence are included only if these are given."""
    from orchestra.verification.acceptance import CONFIDENCE
    from orchestra.verification.check_expression import AGREE
    from orchestra.verification.deterministic import DETERMINISTIC_CHECKS
    from orchestra.verification.model_checks import MODEL_CHECKS

    sure = [CONFIDENCE] if arguments.combined or arguments.confidence is not None else []
    return [*DETERMINISTIC_CHECKS, *sure, *(name for name in MODEL_CHECKS if name != AGREE or arguments.combined)]


def _available_hint(available_checks: list[str]) -> str:
    return f"available checks: {', '.join(available_checks)}"


def _read_answer(text: str) -> Any:
    """Parses the answer: text, or JSON if it is an object, a list or a JSON file. Raises `InputError` C014 and C038."""
    from orchestra.cli.text_files import read_text
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
            return text  # text in brackets, not JSON
    return text


def _read_evidence(paths: Sequence[Path]) -> tuple[EvidenceSource, ...]:
    """Reads texts from files, and all texts from JSON files. Raises `InputError` C014 and C038."""
    from orchestra.cli.files import read_documents
    from orchestra.cli.text_files import read_text
    from orchestra.core.protocols import collect_sources

    sources: list[EvidenceSource] = []
    for path in paths:
        value = (
            _parse_json(path, read_text(path))
            if path.suffix == ".json" and not os.path.isdir(path)
            else read_documents(path)
        )
        sources += collect_sources(value)
    return tuple(sources)


def _parse_json(path: Path, text: str) -> Any:
    from orchestra.schema.strict_json import StrictJsonError, parse_untrusted

    try:
        return parse_untrusted(text)
    except StrictJsonError as error:
        raise InputError(
            "C038", f"{path} is not JSON: {error}", hint="a file with another suffix is read as text"
        ) from error


def _print_data(ruling: VerificationResult, extra: dict[str, Any]) -> None:
    from orchestra.cli.output import print_json

    print_json(
        {
            "accepted": ruling.accepted,
            "score": ruling.score,
            "reason": ruling.reason,
            "verdicts": ruling.verdicts,
            "evidence": ruling.evidence,
            **extra,
        }
    )


def _show(ruling: VerificationResult, extra: dict[str, Any]) -> None:
    from rich.text import Text

    from orchestra.app.run_text import format_value
    from orchestra.cli.output import print_text
    from orchestra.core.untrusted_text import escape_invisible

    score = "" if ruling.score is None else f", score {ruling.score:.2f}"
    print_text(
        f"accepted{score}" if ruling.accepted else f"not accepted{score}",
        style="bold green" if ruling.accepted else "bold yellow",
    )
    if ruling.guarantee:
        print_text(escape_invisible(f"certified: {ruling.guarantee}"))
    elif "guarantee" in extra and not ruling.accepted:
        print_text(escape_invisible(ruling.reason))
    for verdict in ruling.verdicts:
        print_text(
            escape_invisible(f"\n{verdict.check}: {verdict.outcome} {verdict.score:.2f}  {verdict.reason}".rstrip())
        )
        for evidence in verdict.evidence[:MAX_PLACES]:
            at = f" [{evidence.start}:{evidence.end}]" if evidence.start is not None else ""
            source = escape_invisible(evidence.source or "the evidence", keep="")
            print_text(
                Text.assemble(
                    ("  “", "dim"), (escape_invisible(evidence.quote), "green"), ("”", "dim"), f"  {source}{at}"
                )
            )
        if len(verdict.evidence) > MAX_PLACES:
            print_text(f"  and {len(verdict.evidence) - MAX_PLACES} more", style="dim")
    for part in ruling.dropped:
        print_text(escape_invisible(f"\ndropped: {part.text}: {part.reason}"), style="yellow")
    if "rest" in extra and ruling.accepted:
        print_text(escape_invisible(f"\n{format_value(extra['rest'])}"))
