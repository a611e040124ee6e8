"""Answers, resumes, cancels and recovers runs: `orchestra runs answer`, `resume`, `cancel` and `recover`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra.app.inputs import open_questions as questions_of
from orchestra.app.open_journal import journal_exists
from orchestra.app.orchestra import Orchestra
from orchestra.app.run import Run
from orchestra.cli.context import Opener, load_settings, open_orchestra
from orchestra.cli.output import StatusLine, is_interactive, print_json, print_note, print_text
from orchestra.cli.run import questions
from orchestra.cli.run.watch import COMMAND_LINE_AUTHOR, DisplayOptions, RunWatcher
from orchestra.cli.runs.find import find_run, no_runs_error, open_journal_of, status_of
from orchestra.cli.signals import StopSignal, map_in_order
from orchestra.cli.typer_adapter import STATUS_CODES
from orchestra.core.error_codes import LEASE_HELD
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import QuestionAsked, RunFinished
from orchestra.core.events import last_read_message as opened_letters
from orchestra.core.protocols import NO_LIMIT
from orchestra.core.settings import Settings
from orchestra.core.untrusted_text import pluralize
from orchestra.journal.sqlite.commit_loss import AcceptedLoss, accept_loss, find_loss
from orchestra.journal.sqlite.journal import SqliteJournal

MAX_CONCURRENT_RUNS = 8
"""The maximum number of concurrent runs of `resume --all`."""
CANCEL_TIMEOUT = 5.0
"""Seconds that `cancel` waits for the process of the run."""
POLL_SECONDS = 0.2


@asynccontextmanager
async def open_recorded_orchestra(
    open_: Opener, name: str, status_line: StatusLine | None = None, settings: Settings | None = None
) -> AsyncIterator[Orchestra]:
    """Opens an `Orchestra` on an existing journal. Raises `InputError` C018."""
    settings = settings or load_settings()
    if not journal_exists(settings):
        raise no_runs_error(repr(name))
    async with open_orchestra(open_, settings, status_line) as orchestra:
        yield orchestra


async def resume(open_: Opener, name: str, by: str, display: DisplayOptions, stop: StopSignal) -> int:
    """Continues a run, shows its end and returns the exit code."""
    status_line = StatusLine()
    async with open_recorded_orchestra(open_, name, status_line) as orchestra:
        run = await find_run(orchestra.journal, name)
        return await _continue_run(orchestra, run, by, display, stop, status_line)


async def _continue_run(
    orchestra: Orchestra, run: str, by: str, display: DisplayOptions, stop: StopSignal, status_line: StatusLine
) -> int:
    events = await orchestra.journal.read(run)
    before, is_finished = len(events), isinstance(events[-1], RunFinished)
    resumed_run = await orchestra.options(live=display.live).resume(run, by=by)
    run_end = await RunWatcher(orchestra, resumed_run, stop, status_line, display, after_seq=before).wait_for_end()
    run_end.show(display)
    if is_finished and run_end.status in ("failed", "budget", "cancelled"):
        print_note(f"it has ended; to continue from its results: orchestra runs fork {run}")
    return run_end.exit_code


async def resume_all(open_: Opener, by: str, *, as_json: bool, stop: StopSignal) -> int:
    """Continues all interrupted and answered runs, and those with a question past its deadline. Prints a line for each;
    returns 1 if one failed.
    """
    if not journal_exists(load_settings()):
        if not as_json:
            print_text("no interrupted runs")
        return 0
    status_line = StatusLine()
    async with open_recorded_orchestra(open_, "", status_line) as orchestra:
        run_summaries = await orchestra.runs(limit=NO_LIMIT, status="interrupted")
        if not run_summaries and not as_json:
            print_text("no interrupted runs")

        async def resume_run(run: str) -> tuple[str, str]:
            return await _resume_one(orchestra, run, by, stop)

        has_failures = False
        ends = map_in_order([summary.run for summary in reversed(run_summaries)], resume_run, MAX_CONCURRENT_RUNS)
        for summary in reversed(run_summaries):
            status, reason = await anext(ends)
            has_failures = has_failures or status in ("failed", "budget", "not resumed")
            if as_json:
                print_json({"run": summary.run, "workflow": summary.workflow, "status": status, "reason": reason})
            else:
                print_text(f"{summary.run}  {summary.workflow}  {status}{f': {reason}' if reason else ''}")
    return int(has_failures)


async def _resume_one(orchestra: Orchestra, run: str, by: str, stop: StopSignal) -> tuple[str, str]:
    """The end of a run, or why it cannot continue."""
    resumed_run: Run[Any] | None = None
    try:
        resumed_run = await orchestra.resume(run, by=by, require_fleet=True)
        result = await resumed_run.wait_until_blocked()
    except OrchestraError as error:
        return "running" if error.code == LEASE_HELD else "not resumed", f"{error.code}: {error.message}"
    except asyncio.CancelledError:
        if stop.terminating:
            print_note(f"stopped; resume it with: orchestra runs resume {run}")
        elif resumed_run is not None:  # otherwise its servers were starting, and it stays interrupted
            resumed_run.cancel(COMMAND_LINE_AUTHOR)
            await resumed_run.wait()
        raise
    if result is None:
        return "waiting", f"orchestra runs answer {run}"
    return result.status, result.error.message if result.error is not None else ""


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """An answer as typed; `value` is None if the terminal must ask."""

    run: str
    value: str | None
    node: str = ""
    token: str = ""
    """The token of the question that the author has read."""
    by: str = ""
    later: bool = False
    declined: str | None = None
    """The reason for declining to answer."""
    call_result: str | None = None
    """The result of a call of unknown outcome."""


async def answer(open_: Opener, request: AnswerRequest, display: DisplayOptions, stop: StopSignal) -> int:
    """Posts an answer and continues the run; returns the exit code. Raises `InputError`."""
    status_line = StatusLine()
    async with open_recorded_orchestra(open_, request.run, status_line) as orchestra:
        run = await find_run(orchestra.journal, request.run)
        events = await orchestra.journal.read(run)
        letters = await orchestra.journal.inbox(run, opened_letters(events))
        question = questions.find_question(questions_of(events), run, request.node, request.token, letters)
        value, decline_reason, is_call_result = None, (request.declined or "").strip(), request.call_result is not None
        if sum(reply_text is not None for reply_text in (request.value, request.declined, request.call_result)) > 1 or (
            request.declined is not None and not decline_reason
        ):
            hint = "--decline 'your reason'" + (", or --gave VALUE" if question.result_schema is not None else "")
            raise InputError("C024", f"{question.node} requires an answer, or a reason for declining", hint=hint)
        if request.call_result is not None:
            text, as_json = questions.read_value(request.call_result, question.result_schema or {}, "--gave")
            value = questions.parse_call_result(question, text, as_json=as_json)
        elif request.value is not None:
            takes = {"enum": list(question.options)} if question.options else question.schema
            text, as_json = questions.read_value(request.value, takes, "the answer")
            value = questions.parse_answer(run, question, text, as_json=as_json)
        elif request.declined is None:
            value, decline_reason, is_call_result = await _read_answer(run, question)
        if (request.value, request.declined, request.call_result) != (None, None, None):
            await _confirm_question(orchestra, request, run, question)
        await orchestra.answer(
            run,
            value,
            node=question.node,
            by=request.by,
            question_digest=question.question_digest,
            question_seq=question.seq,
            decline_reason=decline_reason,
            call_happened=is_call_result,
        )
        action = "declined" if decline_reason else "answered"
        if request.later:
            print_note(f"{question.node} is {action}; resume it with: orchestra runs resume {run}")
            return 0
        try:
            return await _continue_run(orchestra, run, request.by, display, stop, status_line)
        except OrchestraError as error:
            if error.code != LEASE_HELD:
                raise
    print_note(
        f"{question.node} is {action}; another process holds the run and continues it: orchestra runs tail {run}"
    )
    return 0


async def _confirm_question(orchestra: Orchestra, request: AnswerRequest, run: str, question: QuestionAsked) -> None:
    """Accepts an answer that can only belong to this question; otherwise asks for confirmation at the terminal. Raises
    `InputError` E037 without one.
    """
    events = await orchestra.journal.read(run)
    ever = sum(isinstance(event, QuestionAsked) and request.node in ("", event.node) for event in events)
    run_summaries = await orchestra.runs(limit=2, status="waiting") if request.run == "last" else []
    if any(run_summary.run != run for run_summary in run_summaries):
        reason = f"`last` is the run {run}, but other runs wait too"
    elif not request.token and ever > 1:
        reason = f"this is not the first question of the run {run}"
    else:
        return
    if is_interactive():
        sys.stderr.write(f"{questions.format_question(question)}\n\n{reason}; do you answer this question? [y/N] ")
        sys.stderr.flush()
        if (await questions.read_terminal_line() or "").strip().lower() in ("y", "yes"):
            return
    message = f"the question is ambiguous: {reason}; it now asks:\n\n{questions.format_question(question)}\n"
    raise InputError(
        "E037",
        message,
        hint=questions.repeat_command(run, question, request.value, request.declined, request.call_result),
    )


async def _read_answer(run: str, question: QuestionAsked) -> tuple[object, str, bool]:
    """Reads an answer at the terminal: the value, the reason for declining, and whether it is the result of a call.
    Raises `InputError` C024 without a terminal or an answer.
    """
    hint = questions.answer_command(run, question)
    if not is_interactive():
        raise InputError("C024", f"an answer is required\n\n{questions.format_question(question)}\n", hint=hint)
    while True:
        questions.show_question(question)
        line = await questions.read_terminal_line()
        if line is None:
            raise InputError("C024", f"{question.node} was not answered", hint=hint)
        try:
            decline_reason = questions.parse_decline_reason(question, line)
            if decline_reason:
                return None, decline_reason, False
            value, is_call_result = questions.parse_terminal_line(run, question, line)
            return value, "", is_call_result
        except InputError as error:
            print_note(error.message)


async def cancel(open_: Opener, name: str, by: str, *, as_json: bool) -> int:
    """Asks a run in any process to end, and shows its status. Returns 0, also for an ended run."""
    async with open_recorded_orchestra(open_, name) as orchestra:
        run = await find_run(orchestra.journal, name)
        before = await status_of(orchestra.journal, run)
        if before in STATUS_CODES and before != "waiting":
            status, message = before, f"run {run} has already ended: {before}"
        else:
            await orchestra.cancel(run, by=by)
            status = await _wait_for_status(orchestra, run)
            message = f"run {run} is {status}"
            if status not in STATUS_CODES:
                message = f"run {run} was asked to end; its process ends it: orchestra runs tail {run}"
    if as_json:
        print_json({"run": run, "status": status})
    else:
        print_text(message)
    return 0


async def _wait_for_status(orchestra: Orchestra, run: str) -> str:
    """The status of a cancelled run, after a timeout at most."""
    for _ in range(round(CANCEL_TIMEOUT / POLL_SECONDS)):
        events = await orchestra.journal.read(run)
        if isinstance(events[-1], RunFinished):
            return events[-1].status
        await asyncio.sleep(POLL_SECONDS)
    return await status_of(orchestra.journal, run)


LOCK_TIMEOUT = 10.0
"""Seconds to wait while another process locks the file."""


async def accept_commit_loss(*, confirmed: bool, as_json: bool) -> None:
    """Accepts the current journal file and lists the runs without an end. Raises `InputError` C010 without a terminal,
    `JournalError` J027 if another process has the journal open.
    """
    place = load_settings().journal
    loss = await asyncio.to_thread(find_loss, place, LOCK_TIMEOUT) if isinstance(place, Path) else None
    if loss is None or not isinstance(place, Path):
        _report_no_loss(as_json=as_json)
        return
    print_note(f"{place}: {loss.description}")
    if not confirmed and not await _confirm_at_terminal():
        print_text("nothing was changed")
        return
    accepted_loss = await asyncio.to_thread(accept_loss, place)
    if accepted_loss is None:
        _report_no_loss(as_json=as_json)
    elif as_json:
        log = str(accepted_loss.log_copy) if accepted_loss.log_copy else None
        print_json(
            {
                "lost": accepted_loss.loss.description,
                "commits": accepted_loss.loss.commits,
                "log": log,
                "runs": accepted_loss.runs,
            }
        )
    else:
        _report_loss(accepted_loss)


def _report_no_loss(*, as_json: bool) -> None:
    if as_json:
        print_json({"lost": None, "commits": 0, "log": None, "runs": []})
    else:
        print_text("nothing is missing")


def _report_loss(accepted_loss: AcceptedLoss) -> None:
    print_text("accepted; the journal can be opened again")
    if accepted_loss.log_copy:
        print_text(f"the log as it was found: {accepted_loss.log_copy}")
    print_text(
        "runs that started after the lost commits are gone: a request repeated with its key starts again",
        style="yellow",
    )
    if accepted_loss.runs:
        advice = "may have lost events; inspect each (orchestra runs show RUN), then: orchestra runs recover RUN"
        print_text(f"{pluralize(len(accepted_loss.runs), 'run')} without an end {advice}", style="yellow")
        for run in accepted_loss.runs:
            print_text(run)


async def confirm_runs(names: Sequence[str], *, as_json: bool) -> None:
    """Lets runs continue that may have lost their last events. Raises `InputError` C018 for an unknown run."""
    async with open_journal_of(names[0]) as (journal, first):
        for run in dict.fromkeys([first, *[await find_run(journal, name) for name in names[1:]]]):
            is_confirmed = isinstance(journal, SqliteJournal) and await journal.confirm_loss(run)
            if as_json:
                print_json({"run": run, "confirmed": is_confirmed})
            else:
                print_text(
                    f"{run}  may continue: orchestra runs resume {run}" if is_confirmed else f"{run}  has no known loss"
                )


async def _confirm_at_terminal() -> bool:
    """Asks for confirmation at the terminal. Raises `InputError` C010 without a terminal."""
    if not is_interactive():
        raise InputError(
            "C010", "the loss would be accepted", hint="add --yes if the file and its log cannot be restored"
        )
    sys.stderr.write("continue without the lost commits? [y/N] ")
    sys.stderr.flush()
    return (await questions.read_terminal_line() or "").strip().lower() in ("y", "yes")
