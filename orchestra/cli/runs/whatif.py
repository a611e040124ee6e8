"""`orchestra whatif`: replays recorded runs with another agent, and compares the results."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.context import Opener, get_opener, load_settings
from orchestra.cli.options import FleetOption, JsonOption
from orchestra.cli.output import print_table, print_text
from orchestra.cli.typer_adapter import add_command, error_data
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.quantities import format_duration
from orchestra.core.suggestions import closest_match
from orchestra.core.untrusted_text import escape_invisible, pluralize, shorten

if TYPE_CHECKING:
    from orchestra.agents.card import Card
    from orchestra.agents.contract import Contract
    from orchestra.agents.registry import Registry
    from orchestra.app.orchestra import Orchestra
    from orchestra.app.whatif import StoppedNode, WhatifResult, WhatifRun, WhatifVerdict
    from orchestra.core.events import Usage
    from orchestra.core.outcomes import Outcome
    from orchestra.core.protocols import Journal
    from orchestra.core.settings import Settings
    from orchestra.learn.certification.audit import AuditPeriod

MAX_CONCURRENT_RUNS = 4
"""The maximum number of concurrent replays."""


@dataclass(frozen=True, slots=True)
class WhatIfArguments:
    """The arguments of `orchestra whatif`."""

    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUNS", help="Run ids, unique prefixes of ids, or `last`.", show_default=False),
    ] = None
    agent: Annotated[
        list[str] | None,
        typer.Option(
            "--agent",
            metavar="NAME[@OTHER]",
            help="The agent to change: its current version, or OTHER: an agent, a folder, an adapter, a "
            "prompt file, model:NAME.",
            show_default="the current version of the whole workflow",
        ),
    ] = None
    last: Annotated[int, typer.Option("--last", "-n", min=0, metavar="N", help="Use the latest N runs.")] = 0
    workflow: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="With --last: only runs of this workflow; or the current file of the workflow.",
            show_default=False,
        ),
    ] = ""
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="With --last: only runs since 12h, 30d, yesterday, 2026-11-24.", show_default=False
        ),
    ] = None
    fleet: FleetOption = None
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown for a pull request.")] = False
    as_json: JsonOption = False


def register(app: typer.Typer) -> None:
    """Adds the command."""
    add_command(app, whatif, panel="Inspect runs")


def whatif(context: typer.Context, arguments: WhatIfArguments) -> None:
    """Replay recorded runs with a change: compare answers, acceptance and cost before and after.

    Only what changed is called; everything else is recalled from the journal. Nothing is recorded, no tool with effects
    is called and no person is asked: a replay that would do so with other inputs stops, and the report shows it.

    Exits with 0 if all answers are the same, 1 if some differ or a replay stops, 2 for bad input.
    """
    from orchestra.cli.learn.audit import parse_period
    from orchestra.cli.output import print_json
    from orchestra.cli.signals import run_with_signals

    since = parse_period(arguments.since, None).run_filter
    _check_arguments(arguments)
    report = run_with_signals(
        lambda _: run_whatif(get_opener(context), load_settings(fleet=arguments.fleet), arguments, since)
    )
    if arguments.as_json:
        print_json(as_data(report))
    elif arguments.markdown:
        typer.echo(as_markdown(report))
    else:
        show_report(report)
    if not report.is_unchanged:
        raise typer.Exit(1)


def _check_arguments(arguments: WhatIfArguments) -> None:
    """Raises `InputError` C042 if the runs are ambiguous, C010 for two output formats."""
    from orchestra.core.settings import looks_like_path

    if bool(arguments.runs) == bool(arguments.last):
        raise InputError(
            "C042", "which runs?", hint="orchestra whatif last, or orchestra whatif --last 20 --workflow NAME"
        )
    if arguments.runs and ((arguments.workflow and not looks_like_path(arguments.workflow)) or arguments.since):
        message = f"{'--since' if arguments.since else '--workflow'} requires --last, not named runs"
        raise InputError("C042", message, hint="orchestra whatif --last 20 --workflow NAME --since 30d")
    if arguments.markdown and arguments.as_json:
        raise InputError("C010", "--markdown and --json exclude each other", hint="use one of them")


async def run_whatif(
    open_: Opener, settings: Settings, arguments: WhatIfArguments, run_filter: AuditPeriod
) -> WhatIfReport:
    """Replays the runs. Raises `InputError` if there are none, or none can be replayed."""
    import asyncio

    from orchestra.app.whatif import WhatifResult
    from orchestra.cli.output import StatusLine
    from orchestra.cli.runs.resume import open_recorded_orchestra
    from orchestra.core.settings import looks_like_path

    status_line = StatusLine()
    async with open_recorded_orchestra(
        open_, arguments.runs[0] if arguments.runs else "last", status_line, settings
    ) as orchestra:
        variants = [parse_variant(orchestra.registry, text) for text in arguments.agent or ()]
        _refuse_duplicates(variants)
        instead = {variant.agent: variant.replacement for variant in variants} if variants else None
        file = arguments.workflow if looks_like_path(arguments.workflow) else ""
        runs = await _select_runs(orchestra, arguments, run_filter, variants)
        line = asyncio.Semaphore(MAX_CONCURRENT_RUNS)

        async def one(run: str) -> WhatifResult | UnreplayableRun:
            async with line:
                try:
                    return await orchestra.whatif(run, instead, workflow=file)
                except OrchestraError as error:
                    return UnreplayableRun(run, error)

        results = await asyncio.gather(*(one(run) for run in runs))
    unreplayable_runs = [result for result in results if isinstance(result, UnreplayableRun)]
    if len(unreplayable_runs) == len(results):
        raise unreplayable_runs[0].error
    return WhatIfReport(
        tuple((variant.agent, variant.option_text) for variant in variants),
        [result for result in results if isinstance(result, WhatifResult)],
        unreplayable_runs,
    )


def _refuse_duplicates(variants: Sequence[AgentVariant]) -> None:
    """Raises `InputError` C041 for two variants of one agent."""
    names = [variant.agent for variant in variants]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError("C041", f"two variants of {twice!r}", hint="run the command once for each")


async def _select_runs(
    orchestra: Orchestra, arguments: WhatIfArguments, run_filter: AuditPeriod, variants: Sequence[AgentVariant]
) -> list[str]:
    """The ids of the selected runs. Raises `InputError` C018 and C042."""
    from orchestra.cli.runs.find import find_run
    from orchestra.core.protocols import NO_LIMIT
    from orchestra.core.settings import looks_like_path

    journal = orchestra.journal
    if arguments.runs:
        runs = list(dict.fromkeys([await find_run(journal, name) for name in arguments.runs]))
        for run in runs:
            if await _is_evaluation(journal, run):
                message = f"run {run} belongs to an evaluation with its own checks, which no current workflow has"
                raise InputError("C042", message, hint="orchestra whatif --last 1")
        return runs
    selected_runs: list[str] = []
    name = orchestra.find(arguments.workflow).name if looks_like_path(arguments.workflow) else arguments.workflow
    for summary in await journal.list_runs(NO_LIMIT):
        if len(selected_runs) == arguments.last:
            break
        is_selected = name in ("", summary.workflow) and run_filter.contains(summary) and summary.finished is not None
        if is_selected and await _uses_agent(journal, summary.run, variants):
            selected_runs.append(summary.run)
    if not selected_runs:
        raise InputError("C042", "no matching run has ended", hint="orchestra runs list")
    return selected_runs


async def _is_evaluation(journal: Journal, run: str) -> bool:
    """True if a run belongs to an evaluation."""
    from orchestra.core.events import RunStarted

    first = next(iter(await journal.read(run)), None)
    return isinstance(first, RunStarted) and bool(first.options.get("purpose"))


async def _uses_agent(journal: Journal, run: str, variants: Sequence[AgentVariant]) -> bool:
    """True if a run uses one of the changed agents."""
    from orchestra.app.snapshot_store import CARD, CONTRACT
    from orchestra.core.events import RunStarted

    first = next(iter(await journal.read(run)), None)
    if not isinstance(first, RunStarted) or first.options.get("purpose"):
        return False
    return not variants or any(
        {f"{CARD}/{variant.agent}", f"{CONTRACT}/agent/{variant.agent}"} & first.versions.keys() for variant in variants
    )


MAX_NODES_SHOWN = 20
"""The maximum number of nodes shown side by side; JSON has all."""
MAX_VALUE_LENGTH = 400
"""The maximum number of characters of a value."""
VERDICT_TEXTS: dict[WhatifVerdict, str] = {
    "same": "the same",
    "changed": "another",
    "withheld": "withheld now",
    "answered": "answered now",
    "failed": "fails now",
    "stopped": "stops before",
    "refused": "would be refused",
}


@dataclass(frozen=True, slots=True)
class UnreplayableRun:
    """A run that cannot be replayed, and the error."""

    run: str
    error: OrchestraError


@dataclass(frozen=True, slots=True)
class WhatIfReport:
    """The results of the replays."""

    agents: Sequence[tuple[str, str]]
    """The changed agents and their replacements; empty for the current version of everything."""
    rehearsals: Sequence[WhatifResult]
    failures: Sequence[UnreplayableRun]

    @property
    def is_unchanged(self) -> bool:
        """True if every answer is unchanged."""
        return not self.failures and all(result.verdict == "same" for result in self.rehearsals)

    @property
    def completed(self) -> list[WhatifResult]:
        """The completed replays, to which the figures refer."""
        return [result for result in self.rehearsals if not result.stops]

    @property
    def verdict_counts(self) -> Counter[WhatifVerdict]:
        """The number of answers by verdict."""
        return Counter(result.verdict for result in self.rehearsals)

    @property
    def title(self) -> str:
        """A description of the change."""
        titles = (
            f"{replacement} instead of {agent}" if replacement != agent else replacement
            for agent, replacement in self.agents
        )
        return "; ".join(titles) or "the current version of everything"

    @property
    def summary(self) -> str:
        """The changes of the answers in one line."""
        return ", ".join(
            f"{count:,} {VERDICT_TEXTS[verdict]}" for verdict, count in self.verdict_counts.most_common()
        ) + (f", {len(self.failures):,} cannot be replayed" if self.failures else "")

    @property
    def effort(self) -> str:
        """The cost of the replays."""
        from orchestra.core.events import NO_USAGE

        recalled_count, anew = (
            sum(result.recalled_calls for result in self.rehearsals),
            sum(result.new_calls for result in self.rehearsals),
        )
        usage = sum((result.new_usage for result in self.rehearsals), NO_USAGE)
        return (
            f"{pluralize(recalled_count, 'call')} recalled, {anew:,} made:"
            f" {usage.prompt_tokens:,} tokens in, {usage.output_tokens:,} out, {format_duration(usage.seconds)}"
        )

    def figures(self) -> list[tuple[str, str, str]]:
        """Answers, acceptance and cost before and after, of completed replays."""
        from orchestra.core.events import NO_USAGE
        from orchestra.core.outcomes import ValueOutcome

        before, after = [result.before for result in self.completed], [result.after for result in self.completed]
        usages = [sum((side.usage for side in sides), NO_USAGE) for sides in (before, after)]
        then = sum(isinstance(side.outcome, ValueOutcome) for side in before)
        now = sum(
            isinstance(result.after.outcome, ValueOutcome) and result.verdict != "refused" for result in self.completed
        )
        rows = [("answers", f"{then:,}", f"{now:,}")]
        if any(side.judged_nodes for side in (*before, *after)):
            rows.append(("accepted", _accepted_share(before), _accepted_share(after)))
        for name, of in _COSTS.items():
            if any(of(usage) not in ("0", "0.00 s", "0.000000") for usage in usages):
                rows.append((name, of(usages[0]), of(usages[1])))
        return rows


_COSTS: dict[str, Callable[[Usage], str]] = {
    "tokens in": lambda usage: f"{usage.prompt_tokens:,}",
    "tokens out": lambda usage: f"{usage.output_tokens:,}",
    "time": lambda usage: format_duration(usage.seconds),
    "money": lambda usage: f"{usage.money:.6f}",
}


def _accepted_share(sides: Sequence[WhatifRun]) -> str:
    return f"{sum(side.accepted_nodes for side in sides):,} of {sum(side.judged_nodes for side in sides):,}"


def show_report(report: WhatIfReport) -> None:
    """Prints the report."""
    from orchestra.app.run_text import format_value

    print_text(escape_invisible(f"{report.title}: {report.summary}"), style="bold")
    print_text()
    rows = [
        (
            result.run,
            result.workflow,
            VERDICT_TEXTS[result.verdict],
            ", ".join(change.node for change in result.differences),
        )
        for result in report.rehearsals
    ]
    rows += [(failure.run, "", "cannot be replayed", failure.error.message) for failure in report.failures]
    print_table(("run", "workflow", "its answer", "nodes with other outcomes"), rows)
    for result in report.rehearsals:
        for stop in result.stops:
            print_text(escape_invisible(f"\n{result.run} stops at {stop.node}: {_stop_reason(stop)}"), style="yellow")
            print_text(escape_invisible(f"  {_shorten(format_value(stop.inputs))}"), style="dim")
        if result.replay_gap:
            print_text(
                escape_invisible(f"\n{result.run} cannot be completed by the current engine: {result.replay_gap}"),
                style="yellow",
            )
        for node in result.uncertified:
            print_text(escape_invisible(f"\n{result.run}, {node.node}: {node.message}"), style="yellow")
        if result.changed_tools or result.unknown_tools:
            print_text(escape_invisible(f"\n{result.run}: {_code_change_note(result)}"), style="yellow")
        if result.timed_out:
            print_text(escape_invisible(f"\n{result.run}: {_timeout_note(result)}"), style="yellow")
    changes = [(result, change) for result in report.rehearsals for change in result.differences]
    for result, change in changes[:MAX_NODES_SHOWN]:
        print_text(escape_invisible(f"\n{change.node} of run {result.run}"), style="bold")
        print_text(escape_invisible(f"  then  {_format_outcome(change.before)}"), style="red")
        print_text(escape_invisible(f"  now   {_format_outcome(change.after)}"), style="green")
    if len(changes) > MAX_NODES_SHOWN:
        print_text(f"\nand {len(changes) - MAX_NODES_SHOWN:,} more; --json has them", style="dim")
    print_text()
    if report.completed:
        print_table(("", "then", "now"), report.figures(), right=(1, 2))
    print_text(_footer(report), style="dim")


def _footer(report: WhatIfReport) -> str:
    incomplete_count = len(report.rehearsals) - len(report.completed)
    completed_count = len(report.completed)
    ends = f"{pluralize(completed_count, 'run')} completed; " if incomplete_count or report.failures else ""
    return ends + report.effort


def _code_change_note(result: WhatifResult) -> str:
    change_text = (
        f"the code of {', '.join(result.changed_tools)} has changed: called again" if result.changed_tools else ""
    )
    unsure = (
        f"it is not recorded whether the code of {', '.join(result.unknown_tools)} has changed"
        if result.unknown_tools
        else ""
    )
    return "; ".join(filter(None, (change_text, unsure)))


def _timeout_note(result: WhatifResult) -> str:
    text = ", ".join(node or "the run" for node in result.timed_out)
    return f"the deadline had passed at {text}; recalled calls take no time, so the result may differ without a change"


def _stop_reason(stop: StoppedNode) -> str:
    if stop.name == "a person":
        return "a person would be asked a new question"
    return f"{stop.name} has effects, and its inputs differ"


def _format_outcome(outcome: Outcome | None) -> str:
    from orchestra.app.run_text import format_value
    from orchestra.core.outcomes import ValueOutcome

    if outcome is None:
        return "nothing"
    return _shorten(
        format_value(outcome.value)
        if isinstance(outcome, ValueOutcome)
        else f"{type(outcome).__name__.lower()}: {outcome.reason}"
    )


def _shorten(text: str) -> str:
    return shorten(" ".join(text.split()), MAX_VALUE_LENGTH)


def as_markdown(report: WhatIfReport) -> str:
    """Formats the report for a pull request. Texts of models and users are code, without mentions or links."""
    lines = [
        f"### What if: {_inline_code(report.title)}",
        "",
        f"{len(report.rehearsals) + len(report.failures):,} runs: {report.summary}.",
        "",
    ]
    lines += [
        "| | then | now |",
        "|---|---:|---:|",
        *(f"| {name} | {then} | {now} |" for name, then, now in report.figures()),
        "",
    ]
    lines += [_footer(report), ""]
    different = [result for result in report.rehearsals if result.verdict != "same" or result.differences]
    if different or report.failures:
        lines += ["| run | its answer | nodes with other outcomes |", "|---|---|---|"]
    for result in different:
        nodes = ", ".join(_inline_code(change.node) for change in result.differences)
        stops = "; ".join(f"{_inline_code(stop.node)}: {_inline_code(_stop_reason(stop))}" for stop in result.stops)
        lines.append(
            f"| {_inline_code(result.run)} | {VERDICT_TEXTS[result.verdict]} | "
            f"{'; '.join(part for part in (nodes, stops) if part)} |"
        )
    late = [
        f"- {_inline_code(result.run)}, {_inline_code(node.node)}: {_inline_code(node.message)}"
        for result in report.rehearsals
        for node in result.uncertified
    ]
    late += [
        _note_line(result, _code_change_note(result))
        for result in report.rehearsals
        if result.changed_tools or result.unknown_tools
    ]
    late += [_note_line(result, _timeout_note(result)) for result in report.rehearsals if result.timed_out]
    lines += [
        f"| {_inline_code(failure.run)} | cannot be replayed | {_inline_code(failure.error.message)} |"
        for failure in report.failures
    ]
    lines += ["", *late] if late else []
    changes = [(result, change) for result in report.rehearsals for change in result.differences]
    if changes:
        lines += [
            "",
            f"<details><summary>{min(len(changes), MAX_NODES_SHOWN)} of {len(changes):,} nodes, then and now</summary>",
            "",
        ]
        for result, change in changes[:MAX_NODES_SHOWN]:
            text = (
                f"- {escape_invisible(_format_outcome(change.before))}\n"
                f"+ {escape_invisible(_format_outcome(change.after))}"
            )
            fence = "`" * max(3, _longest_backticks(text) + 1)
            lines += [f"{_inline_code(change.node)} of {_inline_code(result.run)}", "", f"{fence}diff", text, fence, ""]
        lines.append("</details>")
    return "\n".join(lines).rstrip()


def _note_line(result: WhatifResult, note: str) -> str:
    """A list item with a note on a run."""
    return f"- {_inline_code(result.run)}: {_inline_code(note)}"


def _longest_backticks(text: str) -> int:
    """The length of the longest sequence of backticks."""
    return max((len(backticks) for backticks in re.findall("`+", text)), default=0)


def _inline_code(text: str) -> str:
    """Formats a text as inline code, also within a table cell."""
    text = _shorten(escape_invisible(text, keep="")).replace("|", "\\|")
    fence = "`" * (_longest_backticks(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def as_data(report: WhatIfReport) -> dict[str, Any]:
    """The report as JSON values."""
    from orchestra.core.events import NO_USAGE

    return {
        "agents": [{"agent": agent, "instead": replacement} for agent, replacement in report.agents],
        "verdicts": dict(report.verdict_counts),
        "same": report.is_unchanged,
        "runs": [_run_data(result) for result in report.rehearsals],
        "lost": [{"run": failure.run, "error": error_data(failure.error)} for failure in report.failures],
        "recalled": sum(result.recalled_calls for result in report.rehearsals),
        "anew": sum(result.new_calls for result in report.rehearsals),
        "spent": sum((result.new_usage for result in report.rehearsals), NO_USAGE),
    }


def _run_data(result: WhatifResult) -> dict[str, Any]:
    return {
        "run": result.run,
        "workflow": result.workflow,
        "verdict": result.verdict,
        "before": _side_data(result.before),
        "after": _side_data(result.after),
        "changed": [
            {"node": change.node, "before": change.before, "after": change.after} for change in result.differences
        ],
        "stops": [{"node": stop.node, "name": stop.name, "inputs": stop.inputs} for stop in result.stops],
        "recalled": result.recalled_calls,
        "anew": result.new_calls,
        "spent": result.new_usage,
        "lost": result.replay_gap or None,
        "late": result.timed_out,
        "altered": result.changed_tools,
        "unsure": result.unknown_tools,
        "uncovered": [
            {"node": node.node, "agent": node.agent, "code": node.code, "why": node.reason}
            for node in result.uncertified
        ],
    }


def _side_data(side: WhatifRun) -> dict[str, Any]:
    return {
        "status": side.status,
        "outcome": side.outcome,
        "usage": side.usage,
        "judged": side.judged_nodes,
        "accepted": side.accepted_nodes,
    }


MODEL_PREFIX = "model:"
ADAPTER_FILES = ("manifest.json", "adapter_config.json")
"""Files that identify an adapter folder."""


@dataclass(frozen=True, slots=True)
class AgentVariant:
    """An agent and its replacement."""

    agent: str
    option_text: str
    """A description of the replacement."""
    replacement: Card | Contract


def parse_variant(registry: Registry, text: str) -> AgentVariant:
    """Parses an option: `reader` for the current version of the agent, or `reader@OTHER`. Raises `InputError` C041."""
    from orchestra.cli.text_files import read_text

    name, _, replacement = text.partition("@")
    if not replacement:
        return AgentVariant(name, f"{name} in its current version", _find_agent(registry, name))
    if replacement in registry.agents:
        return AgentVariant(name, replacement, _find_agent(registry, replacement))
    if replacement.startswith(MODEL_PREFIX):
        return AgentVariant(
            name,
            f"{name} on {replacement.removeprefix(MODEL_PREFIX)}",
            _standalone_card(registry, name).with_settings(model=replacement.removeprefix(MODEL_PREFIX)),
        )
    path = Path(replacement)
    if os.path.isdir(path):
        return AgentVariant(
            name, f"{name} of {replacement}", _with_distinct_name(registry, _load_folder(registry, name, path))
        )
    if os.path.isfile(path):
        return AgentVariant(
            name, f"{name} with {replacement}", _standalone_card(registry, name).with_prompt(read_text(path), path)
        )
    near = closest_match(replacement, registry.agents)
    hint = f"did you mean {name}@{near}?" if near else "orchestra explain C041"
    raise InputError("C041", f"{replacement!r} is not an agent, a file or a folder", hint=hint)


def _find_agent(registry: Registry, name: str) -> Card | Contract:
    """Finds an agent of the project. Raises `InputError` A001."""
    contract = registry.agents.get(name) if name not in registry.cards else None
    return contract or registry.card(name)


def _standalone_card(registry: Registry, name: str) -> Card:
    """Finds a card with its own model, prompt or arrays. Raises `InputError` A001, C041."""
    card = registry.card(name)
    if card.kind == "ensemble":
        reason = f"{name} is an ensemble, without its own model, prompt or adapter"
        raise InputError(
            "C041",
            reason,
            hint=f"{name}@OTHER with another agent, or a run of one of its members: {', '.join(card.members)}",
        )
    return card


def _load_folder(registry: Registry, name: str, path: Path) -> Card:
    from orchestra.agents.card import CARD_FILE, Card
    from orchestra.agents.card_file import KINDS_WITH_ARRAYS
    from orchestra.agents.ensemble import join_members

    if (path / CARD_FILE).is_file():
        own_card = registry.cards.get(name)
        members = {part.name: part for part in own_card.member_cards} if own_card is not None else {}
        return join_members(Card.load(path.resolve(), registry.models), {**registry.cards, **members})
    card, folder = _standalone_card(registry, name), path.resolve()
    if card.kind in KINDS_WITH_ARRAYS:
        return card.with_settings(folder=folder)
    if any((path / file).is_file() for file in ADAPTER_FILES):
        return card.with_settings(
            adapter=folder.name, elsewhere=None, untuned=None, calibration=None, folder=folder.parent
        )
    raise InputError("C041", f"{path} has no {CARD_FILE} and no adapter", hint="orchestra explain C041")


def _with_distinct_name(registry: Registry, card: Card) -> Card:
    """Renames a card that differs from the project's only by an adapter's weights, which the digest does not cover."""
    own_card = registry.cards.get(card.name)
    is_same_card = own_card is not None and own_card.digest == card.digest and own_card.folder != card.folder
    return card.with_settings(name=f"{card.name}_other"[-64:]) if is_same_card else card
