"""What `orchestra ask` and `orchestra plan` do: a request planned, then shown, saved or run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from orchestra.agents.registry import builtin_folder
from orchestra.app.planning import (
    NODE,
    PlanOptions,
    PlanResult,
    keep_plan,
    nearest_capability,
    plan,
    plan_result,
    request_workflow,
)
from orchestra.app.project import Project
from orchestra.cli.context import Opener, open_orchestra
from orchestra.cli.inputs import read_documents, read_text
from orchestra.cli.output import StatusLine, print_json, print_note, print_text
from orchestra.cli.run.explain import as_data, explain_planned_run, show_explanation
from orchestra.cli.run.explain import explain as explained
from orchestra.cli.run.result_view import show_nodes
from orchestra.cli.run.watch import DisplayOptions, RunEnd, RunWatcher
from orchestra.cli.signals import StopSignal
from orchestra.core.errors import InputError
from orchestra.core.events import NO_USAGE, AttemptStarted, Event, NodeFinished, PlanDraft, TurnStarted
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.settings import Settings
from orchestra.core.tags import Tags
from orchestra.core.untrusted_text import escape_invisible, pluralize, shorten
from orchestra.engine.kinds.plan import is_complete
from orchestra.journal.history import History, NodeRow
from orchestra.router.plan import Plan
from orchestra.router.plan_syntax import ELEMENT, INPUT, Argument, PlanLiteral, PlanReference, PlanStep
from orchestra.router.planner import DECLINED_CODE
from orchestra.schema.strict_json import StrictJsonError, parse_untrusted
from orchestra.workflows.expressions.parser import KEYWORDS
from orchestra.workflows.model import REQUEST, Budget, Graph
from orchestra.workflows.python.signatures import NAME_PATTERN
from orchestra.workflows.python.steps import Workflow
from orchestra.workflows.yaml.writer import write

NO_PLAN_EXIT_CODE = 3
"""The exit code where the router gave none: it abstained."""
REFUSED_EXIT_CODE = 1
"""The exit code of a plan of which a step would be refused: a run would fail."""
_RESERVED_NAMES = KEYWORDS | {"input"}
"""What no workflow is called."""


@dataclass(frozen=True)
class AskRequest:
    """A request with the values that it brings along, and what is wanted of its plan."""

    request: str
    values: Mapping[str, Any]
    options: PlanOptions
    budget: Budget | None = None
    """Of the run."""
    explain: bool = False
    """Whether each step is shown beside what it might have taken."""
    tags: Tags = field(default_factory=dict)
    save: Path | None = None
    """Where a plan that is not run is written as a workflow."""


def read_values(documents: Sequence[Path], inputs: Sequence[str]) -> dict[str, Any]:
    """The values at hand. Raises `InputError` C010, C013 or C014 for what cannot be read."""
    found: dict[str, Any] = {}
    if documents:
        found["documents"] = [document for path in documents for document in read_documents(path)]
    for option in inputs:
        key, equals, text = option.partition("=")
        if not equals or not NAME_PATTERN.fullmatch(key) or key in KEYWORDS or key == REQUEST:
            hint = "write -i key=value, -i key=@file.json; a key is lower case letters, digits and _"
            raise InputError("C010", f"-i {option}: what is it the value of?", hint=hint)
        if key in found:
            said = "by --documents already" if key == "documents" and documents else "twice"
            raise InputError(
                "C010",
                f"-i {option}: {key} is given {said}",
                hint="several texts are a JSON list, or are called otherwise",
            )
        found[key] = _parse_value(key, text)
    return found


def keys_from_files(inputs: Sequence[str]) -> tuple[str, ...]:
    """The keys whose values are those of files: who typed the command has not typed them."""
    typed = (option.partition("=") for option in inputs)
    return tuple(key for key, _, text in typed if _is_file(text))


def _is_file(text: str) -> bool:
    return text.startswith("@") and not text.startswith("@@")


def _parse_value(key: str, text: str) -> Any:
    if text.startswith("@@"):
        return text[1:]
    file = Path(text[1:]) if _is_file(text) else None
    said = text if file is None else read_text(file)
    if file is not None and file.suffix != ".json":
        return said
    if file is None and not said.lstrip().startswith(("[", "{")):
        return said
    try:
        return parse_untrusted(said)
    except StrictJsonError as error:
        raise InputError(
            "C013", f"{key} is no JSON: {error}", hint=f"-i {key}=@file.json, or @@ before a text that begins so"
        ) from error


async def plan_request(open_: Opener, settings: Settings, request: AskRequest, as_json: bool, stop: StopSignal) -> int:
    """Plans, and shows the plan with what it may cost; gives the exit code."""
    waiting = StatusLine()
    async with open_orchestra(open_, settings, waiting) as orchestra:
        draft = await plan(orchestra, request.request, request.values, request.options)
        waiting.close()
        _print_remarks(draft)
        if draft.plan is None:
            return _report_no_plan(draft, as_json)
        graph = draft.graph
        program = orchestra.program(Workflow.from_graph(graph))
        if request.save is not None:
            _save_workflow(request.save, graph)
            keep_plan(orchestra, draft)
        found = explained(Project.load(settings), program, _plan_inputs(request, graph))
        if as_json:
            written = graph.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
            print_json({**_plan_data(draft), "workflow": written, "explain": as_data(found)})
            return REFUSED_EXIT_CODE if found.has_refused_steps else 0
        print_text(escape_invisible(str(draft.plan)))
        _report_plan(draft)
        print_text()
        show_explanation(found)
    return REFUSED_EXIT_CODE if found.has_refused_steps else 0


async def run_request(
    open_: Opener, settings: Settings, request: AskRequest, display: DisplayOptions, stop: StopSignal
) -> int:
    """Runs a request, whose plan runs while it is being written, and shows what came of it; gives the exit code."""
    waiting = StatusLine()
    as_json = display.as_json
    display = replace(display, on_event=_ignore_event if as_json else PlanPrinter(waiting), display_name=_step_path)
    given = {REQUEST: request.request, **request.values}
    async with open_orchestra(open_, settings, waiting) as orchestra:
        step = request_workflow(orchestra, request.request, request.values, request.options)
        run = await orchestra.options(budget=request.budget, live=display.live, tags=request.tags).start(step, **given)
        ending = await RunWatcher(orchestra, run, stop, waiting, display).wait_for_end()
        draft = await plan_result(orchestra, step, request.request, ending.events)
        if as_json:
            _print_remarks(draft)
        if draft.rejections:
            return _report_no_plan(draft, as_json, run.id)
        if draft.plan is None and draft.version == 1 and ending.status == "failed":
            _raise_failure(ending)  # the router could not be asked
        if not as_json:
            _report_plan(draft)
        history = History.of(ending.events)
        for one in find_empty_steps(draft, history, settings):
            print_note(
                escape_invisible(
                    f"{one.message}; {nearest_capability(orchestra, step, one.request_text, one.capability)}"
                )
            )
        found = None
        if request.explain and draft.plan is not None:
            project, program = Project.load(settings), orchestra.program(Workflow.from_graph(draft.graph))
            steps = history.subtree(f"{NODE}@{draft.version}")
            found = explained(
                project, program, _plan_inputs(request, draft.graph), budget=request.budget, history=steps
            )
            if (questions := planner_row(history)) is not None:
                found = explain_planned_run(found, project, orchestra.program(step), questions)
    if found is None:
        ending.show(display, _plan_data(draft), partial(show_nodes, plan_history(history, draft.version)))
    else:
        ending.show(display, {**_plan_data(draft), "explain": as_data(found)}, partial(show_explanation, found))
    return ending.exit_code


def _raise_failure(end: RunEnd) -> None:
    """Raises what a run failed with."""
    if end.result is not None and end.result.error is not None:
        raise end.result.error


def _ignore_event(event: Event) -> None:
    """Tells nothing."""


class PlanPrinter:
    """Tells the lines of a plan on stderr, each as it is accepted, and at a terminal which step is under way."""

    def __init__(self, status_line: StatusLine) -> None:
        self._status_line, self._version, self._lines_printed = status_line, 1, 0

    def __call__(self, event: Event) -> None:
        """Tells what there is to tell of an event."""
        match event:
            case TurnStarted(node=path, draft=PlanDraft() as told) if path == NODE:
                self._status_line.close()
                self._print_plan(told)
            case AttemptStarted(node=path, name=name) if _step_path(path):
                self._status_line.show_line(f"{_step_path(path)}: {name} is asked")
            case NodeFinished(node=path) if _step_path(path):
                self._status_line.show_line(f"{_step_path(path)} is done")
            case _:
                pass

    def _print_plan(self, drafted: PlanDraft) -> None:
        if drafted.warning:
            print_note(drafted.warning)
        if drafted.version > self._version:
            line, reason = drafted.failed_calls[-1]
            print_note(f"\n{line} failed: {reason}; another plan:\n")
            self._version, self._lines_printed = drafted.version, 0
        if drafted.sample:
            return  # of samples that are under way nobody knows which one will be the plan
        for line in drafted.lines[self._lines_printed :]:
            print_note(line)
        self._lines_printed = len(drafted.lines)
        if is_complete(drafted):
            print_note("")


def _step_path(path: str) -> str:
    """The path of a step of a plan in the plan; empty of what is none, as the lines that the router writes."""
    return path.partition("/")[2] if path.startswith(f"{NODE}@") else ""


def plan_history(history: History, version: int) -> History:
    """What the steps of a plan took, and before them what its planning took. Of several plans all is told."""
    if version > 1 or history.row(NODE) is None:
        return history
    steps, asked = history.subtree(f"{NODE}@{version}"), planner_row(history)
    return steps if asked is None else replace(steps, rows=(asked, *steps.rows))


def planner_row(history: History) -> NodeRow | None:
    """The questions to the planners as one row; None where nobody was asked."""
    node, questions = history.row(NODE), [row for row in history.rows if row.path.startswith(f"{NODE}#") and row.name]
    if node is None or not questions:
        return None
    ended = [row.finished for row in questions if row.finished is not None]
    return NodeRow(
        path="plan",
        depth=0,
        kind="call",
        name=questions[-1].name,
        status=questions[-1].status,
        started=node.started,
        finished=max(ended) if len(ended) == len(questions) else None,
        attempts=tuple(attempt for row in questions for attempt in row.attempts),
        outcome=questions[-1].outcome,
        usage=sum((row.usage for row in questions), NO_USAGE),
    )


def _plan_inputs(request: AskRequest, graph: Graph) -> dict[str, Any]:
    """The values that a plan reads."""
    return {name: value for name, value in {REQUEST: request.request, **request.values}.items() if name in graph.input}


def _report_no_plan(draft: PlanResult, as_json: bool, run: str = "") -> int:
    """Says that there is no plan, and why; `run` is that of a request."""
    if as_json:
        print_json({**({"run": run} if run else {}), **_plan_data(draft), "status": "failed"})
        return NO_PLAN_EXIT_CODE
    said = "\n".join(f"  {rejection.code}  {rejection}" for rejection in draft.rejections)
    if draft.declined:
        print_note(f"{said.strip()}\n\norchestra explain {DECLINED_CODE} says more")
        return NO_PLAN_EXIT_CODE
    print_note(
        f"R007: the router gave no plan\n{said}\n  offered: {', '.join(draft.capabilities.by_name)}\n\norchestra explain R007 says more"
    )
    return NO_PLAN_EXIT_CODE


def _plan_data(draft: PlanResult) -> dict[str, Any]:
    """A plan as JSON."""
    rejections = [
        {"code": one.code, "path": one.path, "reason": one.reason, "hint": one.hint} for one in draft.rejections
    ]
    router = {"calls": draft.question_count, "repaired": draft.repairs, "rejections": rejections}
    left = draft.unserved_parts
    undone = {} if left is None else {"perhaps_undone" if left.unassigned_values else "undone": list(left.parts)}
    return {
        "plan": _plan_lines(draft.plan),
        "router": router,
        "cached": _cache_data(draft),
        **_vote_data(draft),
        **undone,
    }


def _vote_data(draft: PlanResult) -> dict[str, Any]:
    """How sure a plan is that was voted on, as JSON."""
    if (won := draft.vote) is None:
        return {}
    return {"votes": {"sampled": won.samples, "agree": won.votes, "confidence": won.agreement}}


def _cache_data(draft: PlanResult) -> dict[str, Any] | None:
    """Where a plan comes from that nobody was asked for, and what was saved, as JSON; None for one that was made now."""
    if (known := draft.recalled) is None:
        return None
    saved = {
        "calls": known.saved.calls,
        "prompt_tokens": known.saved.prompt_tokens,
        "output_tokens": known.saved.output_tokens,
    }
    return {"run": known.run, "request": known.request, "saved": saved}


def _report_plan(draft: PlanResult) -> None:
    """Says where a plan comes from, how sure it is, and what of the request it is not for."""
    _report_saving(draft)
    _report_votes(draft)
    if (left := draft.unserved_parts) is not None:
        done = (
            "some of them may be left out"
            if left.unassigned_values
            else f"nothing is done about {'them' if len(left.parts) > 1 else 'it'}"
        )
        print_note(escape_invisible(f"{left}; {done}"))


def _report_saving(draft: PlanResult) -> None:
    if (known := draft.recalled) is not None:
        calls, tokens = known.saved.calls, known.saved.prompt_tokens + known.saved.output_tokens
        print_note(
            f"from the cache: {pluralize(calls, 'call')} of the router and {tokens} tokens saved; made for run {known.run}"
        )


def _report_votes(draft: PlanResult) -> None:
    if (won := draft.vote) is not None:
        print_note(f"{won.votes} of {won.samples} samples agree on this plan")


def _print_remarks(draft: PlanResult) -> None:
    for remark in draft.remarks:
        print_note(remark)


def _plan_lines(found: Plan | None) -> list[str] | None:
    return None if found is None else [*map(str, found.steps), str(found.answer)]


def refuse_existing(path: Path) -> None:
    """Raises `InputError` C016 for a file that is there."""
    if os.path.lexists(path):
        raise InputError(
            "C016", f"{path}: already there, and nothing is overwritten", hint="--save another file, or --force"
        )


def _save_workflow(path: Path, graph: Graph) -> None:
    """Writes the workflow under the file's own name, where a workflow can have it. Raises `InputError` C014 where it cannot."""
    fit = NAME_PATTERN.fullmatch(path.stem) and path.stem not in _RESERVED_NAMES
    named = graph.model_copy(update={"name": path.stem if fit else graph.name})
    try:
        path.write_text(write(named), "utf-8")
    except OSError as error:
        raise InputError("C014", f"{path} cannot be written: {error.strerror}", hint="give another --save") from error
    print_note(f"saved as {path}")


DESK_WORKFLOW = "support_desk"
"""The packaged workflow that takes any message."""
MAX_WORDS_LENGTH = 80
"""Characters of a part of the request that are shown."""


@dataclass(frozen=True, slots=True)
class EmptyStep:
    """A step that did nothing about what it was given."""

    message: str
    capability: str
    request_text: str
    """Of the request, which it was given; all of them where it was given no others."""


def find_empty_steps(draft: PlanResult, history: History, settings: Settings) -> Iterator[EmptyStep]:
    """The steps that did nothing about what they were given, in their order.

    The packaged desk may only have sorted a message: its reply is meant for a house in which somebody reads what it hands over, and here
    nobody does. Of another skill that was given nothing but words of the request the value may be empty, as of one that extracts from words
    in which there is nothing of the kind. One that reads documents or a table may find nothing there, and has done its work.
    """
    if draft.plan is None:
        return
    packaged = (
        settings.resources("workflows").get(DESK_WORKFLOW) == builtin_folder("workflows") / f"{DESK_WORKFLOW}.yaml"
    )
    for step in draft.plan.steps:
        row = history.row(f"{NODE}@{draft.version}/{step.name}")
        if row is None or not isinstance(row.outcome, ValueOutcome):
            continue
        skill = draft.capabilities.by_name.get(
            step.capability
        )  # a plan from the cache, or a later one, may have been made of others
        returned = [
            () if step.each is not None else value.path for value in draft.plan.answer.values if value.root == step.name
        ]
        for words, value in _step_calls(step, row.outcome.value, draft.request):
            if step.capability == DESK_WORKFLOW and packaged:
                if said := _describe_sorting(value):
                    yield EmptyStep(said, DESK_WORKFLOW, words or draft.request)
            elif (
                words
                and skill is not None
                and not skill.has_effects
                and any(_is_empty(_value_at(value, path)) for path in returned)
            ):
                yield EmptyStep(
                    f'{step.name} is empty: {step.capability} found nothing in "{shorten(words, MAX_WORDS_LENGTH)}"',
                    step.capability,
                    words,
                )


def _step_calls(step: PlanStep, value: Any, request: str) -> Iterator[tuple[str, Any]]:
    """The words of the request that each call of a step was given, if it was given nothing else of what is at hand, and its value."""
    if step.each is None:
        yield _request_text(step.arguments.values(), request), value
    elif isinstance(value, list):
        stated = step.each.value if isinstance(step.each, PlanLiteral) else []
        for number, one in enumerate(value):
            element = (
                PlanLiteral(stated[number]) if len(stated) == len(value) else PlanReference(ELEMENT)
            )  # a call that failed has no value there
            given = [element if said == PlanReference(ELEMENT) else said for said in step.arguments.values()]
            yield _request_text(given, request), one


def _request_text(given: Iterable[Argument], request: str) -> str:
    """The shortest text of the request among some arguments; empty where there is none, or where another value is read."""
    found: list[str] = []
    for value in given:
        match value:
            case PlanLiteral(str() as text) if text and text in request:
                found.append(text)
            case PlanReference() if (value.root, *value.path) == (INPUT, REQUEST):
                found.append(request)
            case PlanReference():
                return ""
            case _:
                pass
    return min(found, key=len, default="")


def _value_at(value: Any, path: Sequence[str | int]) -> Any:
    """The part of a value that is returned; the value itself where it has no such part."""
    for one in path:
        try:
            value = value[one]
        except (KeyError, IndexError, TypeError):
            return value
    return value


def _describe_sorting(value: Any) -> str:
    """How the desk only sorted a message; empty where it did something with it."""
    match value:
        case {"branch": "person" | "assistant" as branch, "intent": str(intent), "matter": None}:
            return f"{DESK_WORKFLOW} only sorted it (branch {branch}, intent {intent}): nothing was done, and nobody was told"
        case _:
            return ""


def _is_empty(value: Any) -> bool:
    """Whether a value holds nothing; no and zero are something."""
    if isinstance(value, Mapping):
        return all(map(_is_empty, value.values()))
    return value is None or (isinstance(value, str | Sequence) and not value)
