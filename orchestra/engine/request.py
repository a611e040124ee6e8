"""The request for one run: workflow, inputs and options. The CLI and the Python API build a `RunRequest`;
`Orchestra.start` completes it, `Engine.start` records it as the event `RunStarted`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

import msgspec

from orchestra.core.errors import InputError
from orchestra.core.events import Override, RunStarted
from orchestra.core.labels import CURRENT_LABEL, Label, join
from orchestra.schema.strict_json import digest
from orchestra.workflows.model import PLAN_WORKFLOW, Budget
from orchestra.workflows.program import Program, with_sample

if TYPE_CHECKING:
    from orchestra.core.tags import Tags
    from orchestra.workflows.python.checks import AcceptThreshold
    from orchestra.workflows.python.steps import Step

PLANNING_PURPOSE: Final = "planning"
"""The recorded purpose of runs that only plan."""
_VALUES_HINT: Final = 'orchestra.options(values={"node": value}).fork(run)'


class OptionChanges(TypedDict, total=False):
    """The keyword arguments of `Orchestra.options`; `RunOptions` describes each. A value of None changes nothing."""

    idempotency_key: str | None
    budget: Budget | None
    label: Label | None
    memo: bool | None
    purpose: str | None
    sample: int | None
    again: bool | None
    live: bool | None
    values: Mapping[str, Any] | None
    unset: Collection[str] | None
    prompts: Mapping[str, str] | None
    by: str | None
    tags: Tags | None
    accept: AcceptThreshold | None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of a run."""

    idempotency_key: str = ""
    """At most one run has a given key. A second request with the key gets that run; an interrupted one is resumed.
    Empty for no key.
    """
    budget: Budget | None = None
    """Limits that replace those of the workflow; limits that it does not state stay."""
    label: Label | None = None
    """The label of the inputs, if it is stricter than the workflow's."""
    memo: bool = False
    """Whether pure calls are answered from the memo: the recorded answers of all earlier runs."""
    purpose: str = ""
    """Why the run exists, if it is not the user's own work: `evaluation`. Such runs are not collected as training data.
    """
    sample: int = 0
    """The number of the sample: agents answer at a temperature above 0, with this seed. 0 for the sampling of their
    cards.
    """
    again: bool = False
    """Whether a fork repeats calls with effects that its parent made."""
    live: bool = False
    """Whether the text of models can be read while they write it (`Run.text`). Only in this process; not recorded."""
    values: Mapping[str, Any] | None = None
    """Values of nodes in a fork, by name. Such a node is not run."""
    unset: Collection[str] = ()
    """Nodes of a fork that are run, although a person gave them a value in the parent."""
    prompts: Mapping[str, str] | None = None
    """Prompts of agents in a fork, by name, in place of those of the project. The run stores them."""
    by: str = ""
    """The name of the person who gives `values`, answers, resumes or cancels, unless that call states another name."""
    tags: Mapping[str, str] | None = None
    """Tags of the run, such as `{"customer": "42"}`. A fork also has those of its parent."""
    accept: AcceptThreshold | None = None
    """How the whole output is accepted: from this score on, or `certified`. A rejected output is withheld. None for
    what the workflow states.
    """

    def __post_init__(self) -> None:
        """Normalizes the tags. Raises `InputError` E040 for invalid tags, V029 for an invalid `accept`."""
        if self.tags is not None:
            from orchestra.core.tags import validate_tags

            object.__setattr__(self, "tags", validate_tags(self.tags))
        if self.accept not in (None, "certified") and not (
            isinstance(self.accept, int | float) and 0 <= self.accept <= 1
        ):
            raise InputError(
                "V029", f"accept={self.accept!r} is no score", hint='accept="certified", or a score from 0 to 1'
            )

    def replace(self, **changes: Unpack[OptionChanges]) -> RunOptions:
        """Returns these options with some changed. None, an empty `label` and an empty `purpose` change nothing."""
        values = {name: value for name, value in changes.items() if value is not None}
        for name in ("label", "purpose"):
            if not values.get(name, True):
                del values[name]
        return replace(self, **values)  # type: ignore[arg-type]  # a TypedDict loses its types here

    def data_label(self, program: Program) -> Label:
        """Returns the strictest label of a program, the options and the caller's context."""
        return join((program.label, self.label or program.label, CURRENT_LABEL.get()))

    def apply(self, program: Program) -> Program:
        """Returns a program with the budget and the sample number of the options."""
        program = with_sample(program, self.sample)
        if self.budget is None:
            return program
        return replace(program, budget=self.budget.with_defaults(program.budget))

    @property
    def run_id(self) -> str:
        """The id of the run with the key; empty without a key. Raises `InputError` E013 for a key that is not valid
        text.
        """
        key = self.idempotency_key
        try:
            return f"k{digest(key.encode())[:19]}" if key else ""
        except UnicodeEncodeError as error:
            raise InputError("E013", f"the key {key!r} has a lone surrogate", hint="a key is a valid text") from error

    @property
    def checked_values(self) -> Mapping[str, Any]:
        """`values`, empty if there are none. Raises `InputError` E033 if they are not a mapping from names."""
        values: object = {} if self.values is None else self.values
        if not isinstance(values, Mapping):
            raise InputError(
                "E033", f"`values` must be a mapping by node, not {type(values).__name__}", hint=_VALUES_HINT
            )
        for name in values:
            if not isinstance(name, str):
                raise InputError("E033", f"`values` has {name!r}, which is not the name of a node", hint=_VALUES_HINT)
        return values

    @property
    def unset_nodes(self) -> frozenset[str]:
        """The nodes of `unset`. Raises `InputError` E033 if it is not a collection of names, or shares one with
        `values`.
        """
        if isinstance(self.unset, str) or not all(isinstance(name, str) for name in self.unset):
            raise InputError(
                "E033", f"`unset` must be a collection of node names, not {self.unset!r}", hint='unset=["node"]'
            )
        if checked_values := self.checked_values.keys() & set(self.unset):
            raise InputError(
                "E033",
                f"{min(checked_values)} is in `values` and in `unset`",
                hint="leave one of them out: a new value replaces the old one",
            )
        return frozenset(self.unset)

    def reject_fork_options(self) -> None:
        """Raises `InputError` E033 if `values`, `unset` or `prompts` is stated: they are for forks only."""
        if self.checked_values or self.unset_nodes or self.prompts:
            name = "values" if self.checked_values else "unset" if self.unset else "prompts"
            raise InputError("E033", f"`{name}` is for a fork, and this is not a fork", hint=_VALUES_HINT)

    def to_record(self, budget: Budget | None) -> dict[str, Any]:
        """Returns the options that a resumed run needs, as `RunStarted.options` stores them.

        Args:
            budget: The budget of the run, in which these options and the workflow's limits are merged.
        """
        record: dict[str, Any] = {"tags": dict(self.tags)} if self.tags else {}
        if self.budget is not None and budget is not None:
            record["budget"] = budget.model_dump(mode="json", exclude_none=True)
        if self.accept is not None:
            record["accept"] = self.accept
        if self.memo:
            record["memo"] = True
        if self.purpose:
            record["purpose"] = self.purpose
        if self.sample:
            record["sample"] = self.sample
        if self.again:
            record["again"] = True
        return record


DEFAULT_OPTIONS = RunOptions()
"""The options of a run for which none are stated."""


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The request for one run.

    A caller of `Orchestra.start` states `workflow`, `inputs` and `options`. `Orchestra` fills in the other fields
    before it calls `Engine.start`.
    """

    workflow: Step[..., Any] | str = ""
    """The workflow, agent or tool, or its name. `Engine.start` takes the compiled program instead."""
    inputs: Mapping[str, Any] = {}
    """By name. `Engine.start` expects values that are already checked against the program's types."""
    options: RunOptions = DEFAULT_OPTIONS
    run: str = ""
    """The id of the run; empty for a new one."""
    parent: str = ""
    """The run of which this is a fork; empty if it is not a fork."""
    graph: str = ""
    """The digest of the stored workflow."""
    versions: dict[str, str] = {}
    """The digests of what the workflow calls, by kind and name. All runs of a workflow share the mapping."""
    label: Label = "internal"
    """The strictest label of the workflow, the options and the caller's context."""
    tiers: tuple[str, ...] = ()
    """The fleet's larger models, in the order in which an escalation asks them."""
    overrides: Mapping[str, Override] | None = None
    """Values that persons gave for nodes, by path. Such a node is not run."""
    plan_limits: Mapping[str, Any] = {}
    """What fleet and budget allow the run's plans, as `RunStarted.options` stores it."""
    plan_only: bool = False
    """Whether the run ends when the plan of its request is accepted. Only planners are called, and the output is the
    text of the plan.
    """
    trace: str = ""
    """The W3C `traceparent` of the caller; empty for none."""

    def started_event(self, run: str, workflow: str, budget: Budget | None, at: float) -> RunStarted:
        """Returns the first event of a run with this request.

        Args:
            run: The id of the run.
            workflow: The name of the program.
            budget: The budget of the program.
            at: The wall-clock time.
        """
        return RunStarted(
            seq=1,
            at=at,
            run=run,
            workflow=PLAN_WORKFLOW if self.plan_only else workflow,
            graph=self.graph,
            inputs=dict(self.inputs),
            label=self.label,
            versions=self.versions,
            parent=self.parent,
            options={
                **self.options.to_record(budget),
                **self.plan_limits,
                **({"trace": self.trace} if self.trace else {}),
            },
            tiers=self.tiers,
            overrides=dict(self.overrides) if self.overrides else None,
            plan_only=self.plan_only,
        )

    def key_conflict(self, run: str, started: RunStarted | None) -> InputError | None:
        """Returns why an existing run with the same idempotency key is not the run of this request; None if it is.

        Args:
            run: The id of the existing run.
            started: Its first event; None if that cannot be read.
        """
        key = self.options.idempotency_key
        had = RunStarted(seq=1, at=0, run=run, workflow="", graph="", inputs=None) if started is None else started
        had_values, values = _explicit_values(had.overrides), _explicit_values(self.overrides)
        message = f"the key {key!r} belongs to run {run}"
        if had.parent != self.parent:
            reason = f"{message}, {_parent_text(had.parent)}; this is to be {_parent_text(self.parent)}"
            return InputError("E015", reason, hint=f"give each fork a key of its own, such as {key + '/2'!r}")
        if had.plan_only != self.plan_only:
            difference = "which only plans its request" if had.plan_only else "which also runs its plan"
            return InputError(
                "E015", f"{message}, {difference}", hint="use a key of its own for a plan that is not run"
            )
        if had.graph != self.graph:
            hint = (
                "use a key of its own for each request; "
                "to repeat that run with its workflow of today, fork it under another key"
            )
            return InputError(
                "E015", f"{message}, which is of another workflow, or of this one before it was changed", hint=hint
            )
        if had.inputs != self.inputs or had_values != values:
            difference = "inputs" if had.inputs != self.inputs else "given values"
            return InputError(
                "E015", f"{message}, which has other {difference}", hint="use a key of its own for each request"
            )
        cards = [f"card/{name}" for name in self.options.prompts or ()]
        if any(had.versions.get(name) != self.versions.get(name) for name in cards):
            return InputError(
                "E015", f"{message}, which has other prompts", hint="use a key of its own for each request"
            )
        if had.label != self.label:
            hint = f"options(label={had.label!r}) returns its result; else use another key"
            return InputError(
                "E015", f"{message}, of data that is labelled {had.label}, and this is labelled {self.label}", hint=hint
            )
        return None


def _explicit_values(overrides: Mapping[str, Override] | None) -> dict[str, Any]:
    """Returns the values that persons gave for nodes, without kept answers to questions: those grow with the parent
    run.
    """
    return {path: override.value for path, override in (overrides or {}).items() if not override.question_digest}


def _parent_text(parent: str) -> str:
    return f"a fork of run {parent}" if parent else "no fork"
