"""What `orchestra ask` and `orchestra plan` do: a request planned, then shown, saved or run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from orchestra.app.planning import NODE, Draft, Wish, asking, drafted, keep, nearest_to, plan
from orchestra.app.project import Project
from orchestra.cli.context import Opener, serving
from orchestra.cli.inputs import read_documents, read_text
from orchestra.cli.output import note, print_json, say
from orchestra.cli.progress import Waiting
from orchestra.cli.run.empty_steps import idle
from orchestra.cli.run.explain import data, planned_by, show
from orchestra.cli.run.explain import explain as explained
from orchestra.cli.run.result_view import show_nodes
from orchestra.cli.run.watch import Ending, Manner, Watch
from orchestra.cli.signals import Stop
from orchestra.core.errors import InputError
from orchestra.core.events import NOTHING, AttemptStarted, Drafted, Event, NodeFinished, TurnStarted
from orchestra.core.settings import Settings
from orchestra.core.tags import Tags
from orchestra.core.untrusted_text import counted, visible
from orchestra.engine.kinds.plan import whole
from orchestra.journal.history import History, Row
from orchestra.router.plan import Plan
from orchestra.router.planner import DECLINED
from orchestra.schema.strict_json import NotStrictJSON, parse_untrusted
from orchestra.workflows.expressions.parser import KEYWORDS
from orchestra.workflows.model import REQUEST, Budget, Graph
from orchestra.workflows.python.signatures import NAME
from orchestra.workflows.python.steps import Workflow
from orchestra.workflows.yaml.writer import write

NO_PLAN = 3
"""The exit code where the router gave none: it abstained."""
REFUSED = 1
"""The exit code of a plan of which a step would be refused: a run would fail."""
_TAKEN = KEYWORDS | {"input"}
"""What no workflow is called."""


@dataclass(frozen=True)
class Drafting:
    """A request with the values that it brings along, and what is wanted of its plan."""

    request: str
    values: Mapping[str, Any]
    wish: Wish
    budget: Budget | None = None
    """Of the run."""
    explain: bool = False
    """Whether each step is shown beside what it might have taken."""
    tags: Tags = field(default_factory=dict)
    save: Path | None = None
    """Where a plan that is not run is written as a workflow."""


def values(documents: Sequence[Path], inputs: Sequence[str]) -> dict[str, Any]:
    """The values at hand. Raises `InputError` C010, C013 or C014 for what cannot be read."""
    found: dict[str, Any] = {}
    if documents:
        found["documents"] = [document for path in documents for document in read_documents(path)]
    for option in inputs:
        key, equals, text = option.partition("=")
        if not equals or not NAME.fullmatch(key) or key in KEYWORDS or key == REQUEST:
            hint = "write -i key=value, -i key=@file.json; a key is lower case letters, digits and _"
            raise InputError("C010", f"-i {option}: what is it the value of?", hint=hint)
        if key in found:
            said = "by --documents already" if key == "documents" and documents else "twice"
            raise InputError("C010", f"-i {option}: {key} is given {said}", hint="several texts are a JSON list, or are called otherwise")
        found[key] = _value(key, text)
    return found


def from_files(inputs: Sequence[str]) -> tuple[str, ...]:
    """The keys whose values are those of files: who typed the command has not typed them."""
    typed = (option.partition("=") for option in inputs)
    return tuple(key for key, _, text in typed if _is_file(text))


def _is_file(text: str) -> bool:
    return text.startswith("@") and not text.startswith("@@")


def _value(key: str, text: str) -> Any:
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
    except NotStrictJSON as error:
        raise InputError("C013", f"{key} is no JSON: {error}", hint=f"-i {key}=@file.json, or @@ before a text that begins so") from error


async def explain(open_: Opener, chosen: Settings, asked: Drafting, as_json: bool, stop: Stop) -> int:
    """Plans, and shows the plan with what it may cost; gives the exit code."""
    waiting = Waiting()
    async with serving(open_, chosen, waiting) as orchestra:
        draft = await plan(orchestra, asked.request, asked.values, asked.wish)
        waiting.close()
        _remark(draft)
        if draft.plan is None:
            return _none(draft, as_json)
        graph = draft.graph
        program = orchestra.program(Workflow.of(graph))
        if asked.save is not None:
            _save(asked.save, graph)
            keep(orchestra, draft)
        found = explained(Project.load(chosen), program, _given(asked, graph))
        if as_json:
            written = graph.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
            print_json({**_data(draft), "workflow": written, "explain": data(found)})
            return REFUSED if found.refused else 0
        say(visible(str(draft.plan)))
        _tell(draft)
        say()
        show(found)
    return REFUSED if found.refused else 0


async def ask(open_: Opener, chosen: Settings, asked: Drafting, manner: Manner, stop: Stop) -> int:
    """Runs a request, whose plan runs while it is being written, and shows what came of it; gives the exit code."""
    waiting = Waiting()
    as_json = manner.as_json
    manner = replace(manner, seen=_silent if as_json else Lines(waiting), called=_step)
    given = {REQUEST: asked.request, **asked.values}
    async with serving(open_, chosen, waiting) as orchestra:
        step = asking(orchestra, asked.request, asked.values, asked.wish)
        run = await orchestra.options(budget=asked.budget, live=manner.live, tags=asked.tags).start(step, **given)
        ending = await Watch(orchestra, run, stop, waiting, manner).ending()
        draft = await drafted(orchestra, step, asked.request, ending.events)
        if as_json:
            _remark(draft)
        if draft.rejections:
            return _none(draft, as_json, run.id)
        if draft.plan is None and draft.version == 1 and ending.status == "failed":
            _raise(ending)  # the router could not be asked
        if not as_json:
            _tell(draft)
        history = History.of(ending.events)
        for one in idle(draft, history, chosen):
            note(visible(f"{one.said}; {nearest_to(orchestra, step, one.words, one.skill)}"))
        found = None
        if asked.explain and draft.plan is not None:
            project, program = Project.load(chosen), orchestra.program(Workflow.of(draft.graph))
            steps = history.inside(f"{NODE}@{draft.version}")
            found = explained(project, program, _given(asked, draft.graph), budget=asked.budget, history=steps)
            if (questions := questions_of(history)) is not None:
                found = planned_by(found, project, orchestra.program(step), questions)
    if found is None:
        ending.show(manner, _data(draft), partial(show_nodes, of_plan(history, draft.version)))
    else:
        ending.show(manner, {**_data(draft), "explain": data(found)}, partial(show, found))
    return ending.code


def _raise(ending: Ending) -> None:
    """Raises what a run failed with."""
    if ending.result is not None and ending.result.error is not None:
        raise ending.result.error


def _silent(event: Event) -> None:
    """Tells nothing."""


class Lines:
    """Tells the lines of a plan on stderr, each as it is accepted, and at a terminal which step is under way."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting, self._version, self._told = waiting, 1, 0

    def __call__(self, event: Event) -> None:
        """Tells what there is to tell of an event."""
        match event:
            case TurnStarted(node=path, drafted=Drafted() as told) if path == NODE:
                self._waiting.close()
                self._plan(told)
            case AttemptStarted(node=path, name=name) if _step(path):
                self._waiting.line(f"{_step(path)}: {name} is asked")
            case NodeFinished(node=path) if _step(path):
                self._waiting.line(f"{_step(path)} is done")
            case _:
                pass

    def _plan(self, told: Drafted) -> None:
        if told.remark:
            note(told.remark)
        if told.version > self._version:
            line, reason = told.failed[-1]
            note(f"\n{line} failed: {reason}; another plan:\n")
            self._version, self._told = told.version, 0
        if told.sample:
            return  # of samples that are under way nobody knows which one will be the plan
        for line in told.lines[self._told :]:
            note(line)
        self._told = len(told.lines)
        if whole(told):
            note("")


def _step(path: str) -> str:
    """The path of a step of a plan in the plan; empty of what is none, as the lines that the router writes."""
    return path.partition("/")[2] if path.startswith(f"{NODE}@") else ""


def of_plan(history: History, version: int) -> History:
    """What the steps of a plan took, and before them what its planning took. Of several plans all is told."""
    if version > 1 or history.row(NODE) is None:
        return history
    steps, asked = history.inside(f"{NODE}@{version}"), questions_of(history)
    return steps if asked is None else replace(steps, rows=(asked, *steps.rows))


def questions_of(history: History) -> Row | None:
    """The questions to the planners as one row; None where nobody was asked."""
    node, questions = history.row(NODE), [row for row in history.rows if row.path.startswith(f"{NODE}#") and row.name]
    if node is None or not questions:
        return None
    ended = [row.finished for row in questions if row.finished is not None]
    return Row(
        path="plan",
        depth=0,
        kind="call",
        name=questions[-1].name,
        status=questions[-1].status,
        started=node.started,
        finished=max(ended) if len(ended) == len(questions) else None,
        attempts=tuple(attempt for row in questions for attempt in row.attempts),
        outcome=questions[-1].outcome,
        usage=sum((row.usage for row in questions), NOTHING),
    )


def _given(asked: Drafting, graph: Graph) -> dict[str, Any]:
    """The values that a plan reads."""
    return {name: value for name, value in {REQUEST: asked.request, **asked.values}.items() if name in graph.input}


def _none(draft: Draft, as_json: bool, run: str = "") -> int:
    """Says that there is no plan, and why; `run` is that of a request."""
    if as_json:
        print_json({**({"run": run} if run else {}), **_data(draft), "status": "failed"})
        return NO_PLAN
    said = "\n".join(f"  {rejection.code}  {rejection}" for rejection in draft.rejections)
    if draft.declined:
        note(f"{said.strip()}\n\norchestra explain {DECLINED} says more")
        return NO_PLAN
    note(f"R007: the router gave no plan\n{said}\n  offered: {', '.join(draft.offer.skills)}\n\norchestra explain R007 says more")
    return NO_PLAN


def _data(draft: Draft) -> dict[str, Any]:
    """A plan as JSON."""
    rejections = [{"code": one.code, "path": one.path, "reason": one.reason, "hint": one.hint} for one in draft.rejections]
    router = {"calls": draft.lines, "repaired": draft.repaired, "rejections": rejections}
    left = draft.undone
    undone = {} if left is None else {"perhaps_undone" if left.whole else "undone": list(left.parts)}
    return {"plan": _lines(draft.plan), "router": router, "cached": _cached(draft), **_votes(draft), **undone}


def _votes(draft: Draft) -> dict[str, Any]:
    """How sure a plan is that was voted on, as JSON."""
    if (won := draft.votes) is None:
        return {}
    return {"votes": {"sampled": won.sampled, "agree": won.votes, "confidence": won.agreement}}


def _cached(draft: Draft) -> dict[str, Any] | None:
    """Where a plan comes from that nobody was asked for, and what was saved, as JSON; None for one that was made now."""
    if (known := draft.recalled) is None:
        return None
    saved = {"calls": known.saved.calls, "prompt_tokens": known.saved.prompt_tokens, "output_tokens": known.saved.output_tokens}
    return {"run": known.run, "request": known.request, "saved": saved}


def _tell(draft: Draft) -> None:
    """Says where a plan comes from, how sure it is, and what of the request it is not for."""
    _tell_saving(draft)
    _tell_votes(draft)
    if (left := draft.undone) is not None:
        done = "some of them may be left out" if left.whole else f"nothing is done about {'them' if len(left.parts) > 1 else 'it'}"
        note(visible(f"{left}; {done}"))


def _tell_saving(draft: Draft) -> None:
    if (known := draft.recalled) is not None:
        calls, tokens = known.saved.calls, known.saved.prompt_tokens + known.saved.output_tokens
        note(f"from the cache: {counted(calls, 'call')} of the router and {tokens} tokens saved; made for run {known.run}")


def _tell_votes(draft: Draft) -> None:
    if (won := draft.votes) is not None:
        note(f"{won.votes} of {won.sampled} samples agree on this plan")


def _remark(draft: Draft) -> None:
    for remark in draft.remarks:
        note(remark)


def _lines(found: Plan | None) -> list[str] | None:
    return None if found is None else [*map(str, found.steps), str(found.answer)]


def free(path: Path) -> None:
    """Raises `InputError` C016 for a file that is there."""
    if os.path.lexists(path):
        raise InputError("C016", f"{path}: already there, and nothing is overwritten", hint="--save another file, or --force")


def _save(path: Path, graph: Graph) -> None:
    """Writes the workflow under the file's own name, where a workflow can have it. Raises `InputError` C014 where it cannot."""
    fit = NAME.fullmatch(path.stem) and path.stem not in _TAKEN
    named = graph.model_copy(update={"name": path.stem if fit else graph.name})
    try:
        path.write_text(write(named), "utf-8")
    except OSError as error:
        raise InputError("C014", f"{path} cannot be written: {error.strerror}", hint="give another --save") from error
    note(f"saved as {path}")
