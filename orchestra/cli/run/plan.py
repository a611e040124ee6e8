"""`orchestra ask` and `orchestra plan`: plans a request, then shows, saves or runs the plan."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from orchestra.agents.registry import builtin_folder
from orchestra.app.orchestra import Orchestra
from orchestra.app.planning import (
    NODE,
    PlanOptions,
    PlanResult,
    keep_plan,
    nearest_capability,
    plan_result,
    request_workflow,
)
from orchestra.app.project import Project
from orchestra.cli.context import Opener, open_orchestra
from orchestra.cli.files import (
    document_value,
    failures_data,
    is_table_file,
    read_file_text,
    read_for_request,
    read_table,
    read_tables,
    report_failures,
)
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
from orchestra.documents.reading import FileFailure, ReadResult
from orchestra.documents.tables import is_records, records_to_cells
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
"""The exit code if the router gave no plan, as for `abstained`."""
REFUSED_EXIT_CODE = 1
"""The exit code for a plan with a step that would be refused."""
_RESERVED_NAMES = KEYWORDS | {"input"}
"""Reserved names, invalid for workflows."""


@dataclass(frozen=True)
class AskRequest:
    """A request with its values and planning options."""

    request: str
    values: Mapping[str, Any]
    options: PlanOptions
    budget: Budget | None = None
    """The budget of the run."""
    explain: bool = False
    """Shows the upper bound of each step beside its actual cost."""
    tags: Tags = field(default_factory=dict)
    save: Path | None = None
    """The workflow file for a plan that is not run."""
    unread: Sequence[FileFailure] = ()
    """The files that could not be read."""


@dataclass(frozen=True)
class RequestValues:
    """The values of a request, and the files that could not be read."""

    values: Mapping[str, Any]
    unread: Sequence[FileFailure] = ()


def read_values(documents: Sequence[Path], inputs: Sequence[str], request: str = "") -> RequestValues:
    """Reads documents and inputs for a request. Tables among the documents are the value `tables`, or `table` if there
    is one.

    Raises:
        InputError: C010, C013, C014, D008 or the error of a file.
    """
    values: dict[str, Any] = {}
    result = read_for_request(documents, request) if documents else ReadResult()
    report_failures(result.failures)
    if result.documents or (documents and not result.tables):
        values["documents"] = [document_value(document) for document in result.documents]
    from_documents = dict.fromkeys(values)
    option_values = _parse_options(inputs, from_documents)
    if len(result.tables) == 1 and "table" not in option_values:
        values["table"] = result.tables[0].cells
    elif len(result.tables) > 1 and "tables" not in option_values:
        values["tables"] = [table.model_dump(mode="json") for table in result.tables]
    return RequestValues({**values, **option_values}, result.failures)


def _parse_options(inputs: Sequence[str], from_documents: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the values of `-i`. `from_documents` are keys that are taken."""
    options: dict[str, Any] = {}
    for option in inputs:
        key, equals, text = option.partition("=")
        if not equals or not NAME_PATTERN.fullmatch(key) or key in KEYWORDS or key == REQUEST:
            hint = "write -i key=value, -i key=@file.json; a key is lower case letters, digits and _"
            raise InputError("C010", f"-i {option}: the name of the input is missing", hint=hint)
        if key in options or key in from_documents:
            explanation = "already by --documents" if key in from_documents else "twice"
            raise InputError(
                "C010",
                f"-i {option}: {key} is given {explanation}",
                hint="pass several texts as a JSON list, or under other keys",
            )
        options[key] = _parse_value(key, text)
    return options


def keys_from_files(inputs: Sequence[str]) -> tuple[str, ...]:
    """The keys whose values were read from files, which the user has not typed."""
    pairs = (option.partition("=") for option in inputs)
    return tuple(key for key, _, text in pairs if _is_file(text))


def _is_file(text: str) -> bool:
    return text.startswith("@") and not text.startswith("@@")


def _parse_value(key: str, text: str) -> Any:
    if text.startswith("@@"):
        return text[1:]
    file = Path(text[1:]) if _is_file(text) else None
    if file is not None and is_table_file(file):
        if key == TABLES:
            return [table.model_dump(mode="json") for table in read_tables(file)]
        return read_table(key, file).cells
    content = text if file is None else read_file_text(file)
    if file is not None and file.suffix != ".json":
        return content
    if file is None and not content.lstrip().startswith(("[", "{")):
        return content
    try:
        value = parse_untrusted(content)
        return records_to_cells(value) if _is_table_key(key) and is_records(value) else value
    except StrictJsonError as error:
        raise InputError(
            "C013", f"{key} is not JSON: {error}", hint=f"-i {key}=@file.json, or @@ before a literal text"
        ) from error


TABLE, TABLES = "table", "tables"


def _is_table_key(key: str) -> bool:
    """Whether a list of records under this key is a table, and not a list of any records."""
    return key == TABLE or key.endswith(f"_{TABLE}")


async def plan_request(open_: Opener, settings: Settings, request: AskRequest, as_json: bool, stop: StopSignal) -> int:
    """Plans a request and shows the plan with its maximum cost. Returns the exit code."""
    status_line = StatusLine()
    async with open_orchestra(open_, settings, status_line) as orchestra:
        step, run_arguments = _request_run(orchestra, request)
        run = await orchestra.options(budget=request.budget).plan(step, **run_arguments)
        display = DisplayOptions(as_json=as_json, on_event=ignore_event)
        run_end = await RunWatcher(orchestra, run, stop, status_line, display).wait_for_end()
        draft = await plan_result(orchestra, step, request.request, run_end.events)
        _print_remarks(draft)
        if draft.rejections:
            return _report_no_plan(draft, as_json, run.id)
        if draft.plan is None:
            _raise_failure(run_end)
        graph = draft.graph
        program = orchestra.program(Workflow.from_graph(graph))
        if request.save is not None:
            _save_workflow(request.save, graph)
            keep_plan(orchestra, step, draft, run_end.events)
        inputs = _plan_inputs(request, graph)
        program_explanation = explained(Project.load(settings), program, inputs, budget=request.budget)
        if as_json:
            graph_fields = graph.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
            data = {
                "run": run.id,
                **_plan_data(draft),
                "workflow": graph_fields,
                "explain": as_data(program_explanation),
            }
            print_json({**data, **_unread_data(request)})
            return REFUSED_EXIT_CODE if program_explanation.has_refused_steps else 0
        print_text(escape_invisible(str(draft.plan)))
        _report_plan(draft)
        print_text()
        show_explanation(program_explanation)
    return REFUSED_EXIT_CODE if program_explanation.has_refused_steps else 0


async def run_request(
    open_: Opener, settings: Settings, request: AskRequest, display: DisplayOptions, stop: StopSignal
) -> int:
    """Runs a request, whose plan runs while it is written, and shows the result. Returns the exit code."""
    status_line = StatusLine()
    as_json = display.as_json
    display = replace(display, on_event=ignore_event if as_json else PlanPrinter(status_line), display_name=_step_path)
    async with open_orchestra(open_, settings, status_line) as orchestra:
        step, run_arguments = _request_run(orchestra, request)
        run = await orchestra.options(budget=request.budget, live=display.live, tags=request.tags).start(
            step, **run_arguments
        )
        run_end = await RunWatcher(orchestra, run, stop, status_line, display).wait_for_end()
        return await show_request_end(orchestra, settings, request, step, run_end, display)


async def show_request_end(
    orchestra: Orchestra,
    settings: Settings,
    request: AskRequest,
    step: Workflow[..., Any],
    ending: RunEnd,
    display: DisplayOptions,
    *,
    with_nodes: bool = True,
) -> int:
    """Shows the answer of a request, its plan and its cost. Returns the exit code."""
    as_json = display.as_json
    draft = await plan_result(orchestra, step, request.request, ending.events)
    if as_json:
        _print_remarks(draft)
    if draft.rejections:
        return _report_no_plan(draft, as_json, ending.run)
    if draft.plan is None and draft.version == 1 and ending.status == "failed":
        _raise_failure(ending)  # the router could not be called
    if not as_json:
        _report_plan(draft)
    history = History.of(ending.events)
    for empty_step in find_empty_steps(draft, history, settings):
        print_note(
            escape_invisible(
                f"{empty_step.message}; "
                f"{nearest_capability(orchestra, step, empty_step.request_text, empty_step.capability)}"
            )
        )
    explanation = None
    if request.explain and draft.plan is not None:
        project, program = Project.load(settings), orchestra.program(Workflow.from_graph(draft.graph))
        steps = history.subtree(f"{NODE}@{draft.version}")
        explanation = explained(
            project, program, _plan_inputs(request, draft.graph), budget=request.budget, history=steps
        )
        if (questions := planner_row(history)) is not None:
            explanation = explain_planned_run(explanation, project, orchestra.program(step), questions)
    if explanation is None:
        nodes = partial(show_nodes, plan_history(history, draft.version)) if with_nodes else _show_nothing
        ending.show_answer(display, {**_plan_data(draft), **_unread_data(request)}, nodes, request.request)
    else:
        data = {**_plan_data(draft), "explain": as_data(explanation), **_unread_data(request)}
        ending.show_answer(display, data, partial(show_explanation, explanation), request.request)
    if not as_json and request.unread:
        print_note(f"{pluralize(len(request.unread), 'file')} could not be read, and the answer may be incomplete")
    return ending.exit_code


def _request_run(orchestra: Orchestra, request: AskRequest) -> tuple[Workflow[..., Any], dict[str, Any]]:
    """The workflow of a request, and its inputs."""
    step = request_workflow(orchestra, request.request, request.values, request.options)
    return step, {REQUEST: request.request, **request.values}


def _raise_failure(end: RunEnd) -> None:
    """Raises the error of a failed run."""
    if end.result is not None and end.result.error is not None:
        raise end.result.error


def ignore_event(event: Event) -> None:
    """Ignores an event."""


def _show_nothing() -> None:
    """Shows no nodes."""


class PlanPrinter:
    """Prints accepted lines of a plan to stderr and, at a terminal, the current step."""

    def __init__(self, status_line: StatusLine) -> None:
        self._status_line, self._version, self._lines_printed = status_line, 1, 0

    def __call__(self, event: Event) -> None:
        """Prints what an event adds."""
        match event:
            case TurnStarted(node=path, draft=PlanDraft() as draft) if path == NODE:
                self._status_line.close()
                self._print_plan(draft)
            case AttemptStarted(node=path, name=name) if _step_path(path):
                self._status_line.show_line(f"{_step_path(path)}: calling {name}")
            case NodeFinished(node=path) if _step_path(path):
                self._status_line.show_line(f"{_step_path(path)} is done")
            case _:
                pass

    def _print_plan(self, draft: PlanDraft) -> None:
        if draft.warning:
            print_note(draft.warning)
        if draft.version > self._version:
            line, reason = draft.failed_calls[-1]
            print_note(f"\n{line} failed: {reason}; new plan:\n")
            self._version, self._lines_printed = draft.version, 0
        if draft.sample:
            return  # it is not known yet which sample becomes the plan
        for line in draft.lines[self._lines_printed :]:
            print_note(line)
        self._lines_printed = len(draft.lines)
        if is_complete(draft):
            print_note("")


def _step_path(path: str) -> str:
    """The path of a step within the plan; empty for other nodes, such as the router's lines."""
    return path.partition("/")[2] if path.startswith(f"{NODE}@") else ""


def plan_history(history: History, version: int) -> History:
    """The rows of the planning and then of the steps. All plans of a replanned request are included."""
    if version > 1 or history.row(NODE) is None:
        return history
    steps, node_row = history.subtree(f"{NODE}@{version}"), planner_row(history)
    return steps if node_row is None else replace(steps, rows=(node_row, *steps.rows))


def planner_row(history: History) -> NodeRow | None:
    """Sums the calls of planners in one row; None without calls."""
    node, questions = history.row(NODE), [row for row in history.rows if row.path.startswith(f"{NODE}#") and row.name]
    if node is None or not questions:
        return None
    finish_times = [row.finished for row in questions if row.finished is not None]
    return NodeRow(
        path="plan",
        depth=0,
        kind="call",
        name=questions[-1].name,
        status=questions[-1].status,
        started=node.started,
        finished=max(finish_times) if len(finish_times) == len(questions) else None,
        attempts=tuple(attempt for row in questions for attempt in row.attempts),
        outcome=questions[-1].outcome,
        usage=sum((row.usage for row in questions), NO_USAGE),
    )


def _plan_inputs(request: AskRequest, graph: Graph) -> dict[str, Any]:
    """The values that a plan reads."""
    return {name: value for name, value in {REQUEST: request.request, **request.values}.items() if name in graph.input}


def _report_no_plan(draft: PlanResult, as_json: bool, run: str) -> int:
    """Prints that there is no plan and why. `run` is the run of the request."""
    if as_json:
        print_json({"run": run, **_plan_data(draft), "status": "failed"})
        return NO_PLAN_EXIT_CODE
    text = "\n".join(f"  {rejection.code}  {rejection}" for rejection in draft.rejections)
    if draft.declined:
        print_note(f"{text.strip()}\n\nfor details: orchestra explain {DECLINED_CODE}")
        return NO_PLAN_EXIT_CODE
    print_note(
        "R007: the router gave no plan\n"
        f"{text}\n"
        f"  offered: {', '.join(draft.capabilities.by_name)}\n\n"
        "for details: orchestra explain R007"
    )
    return NO_PLAN_EXIT_CODE


def _plan_data(draft: PlanResult) -> dict[str, Any]:
    """A plan as JSON values."""
    rejections = [
        {"code": rejection.code, "path": rejection.path, "reason": rejection.reason, "hint": rejection.hint}
        for rejection in draft.rejections
    ]
    router = {"calls": draft.question_count, "repaired": draft.repairs, "rejections": rejections}
    uncovered_parts = draft.unserved_parts
    undone = (
        {}
        if uncovered_parts is None
        else {"perhaps_undone" if uncovered_parts.unassigned_values else "undone": list(uncovered_parts.parts)}
    )
    return {
        "plan": _plan_lines(draft.plan),
        "router": router,
        "cached": _cache_data(draft),
        "rule": draft.rule or None,
        **_vote_data(draft),
        **undone,
    }


def _unread_data(request: AskRequest) -> dict[str, Any]:
    """The files that could not be read as JSON values; nothing without one."""
    return {"unread": failures_data(request.unread)} if request.unread else {}


def _vote_data(draft: PlanResult) -> dict[str, Any]:
    """The agreement of sampled plans as JSON values."""
    if (vote_result := draft.vote) is None:
        return {}
    return {"votes": {"sampled": vote_result.samples, "agree": vote_result.votes, "confidence": vote_result.agreement}}


def _cache_data(draft: PlanResult) -> dict[str, Any] | None:
    """The source of a cached plan and its savings as JSON values; None for a new plan."""
    if (recalled_plan := draft.recalled) is None:
        return None
    savings = {
        "calls": recalled_plan.saved.calls,
        "prompt_tokens": recalled_plan.saved.prompt_tokens,
        "output_tokens": recalled_plan.saved.output_tokens,
    }
    return {"run": recalled_plan.run, "request": recalled_plan.request, "saved": savings}


def _report_plan(draft: PlanResult) -> None:
    """Prints the source of a plan, its agreement and the parts of the request that it leaves out."""
    _report_saving(draft)
    _report_votes(draft)
    if (uncovered_parts := draft.unserved_parts) is not None:
        explanation = (
            "some of them may be missing"
            if uncovered_parts.unassigned_values
            else f"the plan ignores {'them' if len(uncovered_parts.parts) > 1 else 'it'}"
        )
        print_note(escape_invisible(f"{uncovered_parts}; {explanation}"))


def _report_saving(draft: PlanResult) -> None:
    if draft.rule:
        print_note(f"planned by the rule “{draft.rule}”, without the router")
    if (recalled_plan := draft.recalled) is not None:
        calls, tokens = recalled_plan.saved.calls, recalled_plan.saved.prompt_tokens + recalled_plan.saved.output_tokens
        print_note(
            f"from the cache: {pluralize(calls, 'call')} of the router and {tokens} tokens saved; planned "
            f"for run {recalled_plan.run}"
        )


def _report_votes(draft: PlanResult) -> None:
    if (vote_result := draft.vote) is not None:
        print_note(f"{vote_result.votes} of {vote_result.samples} samples agree on this plan")


def _print_remarks(draft: PlanResult) -> None:
    for remark in draft.remarks:
        print_note(remark)


def _plan_lines(plan: Plan | None) -> list[str] | None:
    return None if plan is None else [*map(str, plan.steps), str(plan.answer)]


def refuse_existing(path: Path) -> None:
    """Raises `InputError` C016 if a file exists."""
    if os.path.lexists(path):
        raise InputError(
            "C016", f"{path}: it exists already; nothing was written", hint="--save another file, or --force"
        )


def _save_workflow(path: Path, graph: Graph) -> None:
    """Writes the workflow, named after the file if that is a valid name. Raises `InputError` C014."""
    fit = NAME_PATTERN.fullmatch(path.stem) and path.stem not in _RESERVED_NAMES
    named_graph = graph.model_copy(update={"name": path.stem if fit else graph.name})
    try:
        path.write_text(write(named_graph), "utf-8")
    except OSError as error:
        raise InputError("C014", f"{path} cannot be written: {error.strerror}", hint="choose another --save") from error
    print_note(f"saved as {path}")


DESK_WORKFLOW = "support_desk"
"""The packaged workflow that accepts any message."""
MAX_WORDS_LENGTH = 80
"""The maximum number of characters of the request that are shown."""


@dataclass(frozen=True, slots=True)
class EmptyStep:
    """A step without a useful output."""

    message: str
    capability: str
    request_text: str
    """The part of the request that the step received; all parts for a step without an own one."""


def find_empty_steps(draft: PlanResult, history: History, settings: Settings) -> Iterator[EmptyStep]:
    """Finds the steps whose output is empty, in order.

    The packaged desk may have only classified a message: it expects a person who handles it, and there is none here.
    Another capability that received only words of the request may correctly return nothing, such as an extractor
    without a match. A step that reads documents or a table may find nothing there, which is a result.
    """
    if draft.plan is None:
        return
    is_packaged = (
        settings.resources("workflows").get(DESK_WORKFLOW) == builtin_folder("workflows") / f"{DESK_WORKFLOW}.yaml"
    )
    for step in draft.plan.steps:
        row = history.row(f"{NODE}@{draft.version}/{step.name}")
        if row is None or not isinstance(row.outcome, ValueOutcome):
            continue
        skill = draft.capabilities.by_name.get(step.capability)  # a cached or a later plan may contain other steps
        returned_paths = [
            () if step.each is not None else value.path for value in draft.plan.answer.values if value.root == step.name
        ]
        for words, value in _step_calls(step, row.outcome.value, draft.request):
            if step.capability == DESK_WORKFLOW and is_packaged:
                if sorting := _describe_sorting(value):
                    yield EmptyStep(sorting, DESK_WORKFLOW, words or draft.request)
            elif (
                words
                and skill is not None
                and not skill.has_effects
                and any(_is_empty(_value_at(value, path)) for path in returned_paths)
            ):
                yield EmptyStep(
                    f'{step.name} is empty: {step.capability} found nothing in "{shorten(words, MAX_WORDS_LENGTH)}"',
                    step.capability,
                    words,
                )


def _step_calls(step: PlanStep, value: Any, request: str) -> Iterator[tuple[str, Any]]:
    """For each call of a step that received only words of the request: these words, and its output."""
    if step.each is None:
        yield _request_text(step.arguments.values(), request), value
    elif isinstance(value, list):
        elements = step.each.value if isinstance(step.each, PlanLiteral) else []
        for number, element_value in enumerate(value):
            element = (
                PlanLiteral(elements[number]) if len(elements) == len(value) else PlanReference(ELEMENT)
            )  # a failed call has no output
            element_arguments = [
                element if argument == PlanReference(ELEMENT) else argument for argument in step.arguments.values()
            ]
            yield _request_text(element_arguments, request), element_value


def _request_text(arguments: Iterable[Argument], request: str) -> str:
    """The shortest text of the request among the arguments; empty if there is none or another value is read."""
    texts: list[str] = []
    for value in arguments:
        match value:
            case PlanLiteral(str() as text) if text and text in request:
                texts.append(text)
            case PlanReference() if (value.root, *value.path) == (INPUT, REQUEST):
                texts.append(request)
            case PlanReference():
                return ""
            case _:
                pass
    return min(texts, key=len, default="")


def _value_at(value: Any, path: Sequence[str | int]) -> Any:
    """The returned part of a value; the value itself without such a part."""
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return value
    return value


def _describe_sorting(value: Any) -> str:
    """How the desk only classified a message; empty if it did more."""
    match value:
        case {"branch": "person" | "assistant" as branch, "intent": str(intent), "matter": None}:
            return (
                f"{DESK_WORKFLOW} only classified it (branch {branch}, intent {intent}): nothing was done, "
                "and no person was notified"
            )
        case _:
            return ""


def _is_empty(value: Any) -> bool:
    """True for an empty value; false and 0 are not empty."""
    if isinstance(value, Mapping):
        return all(map(_is_empty, value.values()))
    return value is None or (isinstance(value, str | Sequence) and not value)
