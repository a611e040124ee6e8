"""Options: what a run may be told beside its inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestra.core.errors import InputError
from orchestra.core.labels import Label
from orchestra.schema.strict_json import digest
from orchestra.workflows.model import Budget

if TYPE_CHECKING:
    from orchestra.engine.run import RunRequest
    from orchestra.workflows.python.checks import AcceptThreshold

_VALUES_HINT: Final = 'orchestra.options(values={"node": value}).fork(run)'


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run may be told beside its inputs."""

    idempotency_key: str = ""
    budget: Budget | None = None
    """Limits in the place of the workflow's own; those that it does not state stay."""
    label: Label | None = None
    """Of the inputs; the workflow's own where nobody says one, and the stricter of the two where somebody does."""
    memo: bool = False
    """Whether pure calls that any run has made before are answered from the memo."""
    purpose: str = ""
    """What a run is for that is no work of the user's: `evaluation`."""
    sample: int = 0
    """Which of several samples its agents' answers are, drawn at a temperature above 0; 0 for the sampling of their cards."""
    again: bool = False
    """Whether a fork makes calls with lasting effects again that the run has made before."""
    live: bool = False
    """Whether the text of models can be read while it is written (`Run.text`). It is of this process, and not kept."""
    values: Mapping[str, Any] | None = None
    """What nodes give in a fork, by name, whatever they would come to."""
    unset: Collection[str] = ()
    """Nodes of a fork that come to what they come to, though a person gave them a value in the run before, by name."""
    by: str = ""
    """Who says so; who answers, resumes and cancels, where no other name is told."""
    tags: Mapping[str, str] | None = None
    """Names with values that the run is found by, such as the customer that it is for; those of a fork's parent are the fork's, too."""

    accept: AcceptThreshold | None = None
    """From which score on the output is accepted as a whole, or `certified`; what is not is withheld. None for what the workflow says."""

    def __post_init__(self) -> None:
        """Takes tags as they are kept. Raises `InputError` E040 for what are none, V029 for an `accept` that is none."""
        if self.tags is not None:
            from orchestra.core.tags import validate_tags

            object.__setattr__(self, "tags", validate_tags(self.tags))
        if self.accept not in (None, "certified") and not (isinstance(self.accept, int | float) and 0 <= self.accept <= 1):
            raise InputError("V029", f"accept={self.accept!r} is no score", hint='accept="certified", or a score from 0 to 1')

    @property
    def run_id(self) -> str:
        """The id of the run that has the key; empty without one. Raises `InputError` E013 for a key that is no text."""
        key = self.idempotency_key
        try:
            return f"k{digest(key.encode())[:19]}" if key else ""
        except UnicodeEncodeError as error:
            raise InputError("E013", f"the key {key!r} has a lone surrogate", hint="a key is a valid text") from error

    def key_conflict(self, run: str, had: RunRequest, wanted: RunRequest) -> InputError:
        """Why the key is that of another request: `run` has it, and what it was begun with is not what is wanted now."""
        said = f"the key {self.idempotency_key!r} belongs to run {run}"
        if had.parent != wanted.parent:
            reason = f"{said}, {_parent_text(had.parent)}; this is to be {_parent_text(wanted.parent)}"
            return InputError("E015", reason, hint=f"give each fork a key of its own, such as {self.idempotency_key + '/2'!r}")
        if had.graph != wanted.graph:
            hint = "use a key of its own for each request; to make that run again as its workflow is today, fork it under another key"
            return InputError("E015", f"{said}, which is of another workflow, or of this one before it was changed", hint=hint)
        if had._replace(label=wanted.label) == wanted:
            hint = f"options(label={had.label!r}) gives what it came to; else use another key"
            return InputError("E015", f"{said}, of data that is labelled {had.label}, and this is labelled {wanted.label}", hint=hint)
        other = "inputs" if had.inputs != wanted.inputs else "given values"
        return InputError("E015", f"{said}, which has other {other}", hint="use a key of its own for each request")

    @property
    def checked_values(self) -> Mapping[str, Any]:
        """What a fork is given, by node. Raises `InputError` E033 for `values` that are no mapping of names."""
        values: object = {} if self.values is None else self.values
        if not isinstance(values, Mapping):
            raise InputError("E033", f"`values` are a mapping, by node, and no {type(values).__name__}", hint=_VALUES_HINT)
        for name in values:
            if not isinstance(name, str):
                raise InputError("E033", f"`values` has {name!r}, which is no name of a node", hint=_VALUES_HINT)
        return values

    @property
    def unset_nodes(self) -> frozenset[str]:
        """The nodes of `unset`. Raises `InputError` E033 for what is no collection of names, and for one that `values` has as well."""
        if isinstance(self.unset, str) or not all(isinstance(name, str) for name in self.unset):
            raise InputError("E033", f"`unset` is a collection of names of nodes, and not {self.unset!r}", hint='unset=["node"]')
        if both := self.checked_values.keys() & set(self.unset):
            raise InputError(
                "E033", f"{min(both)} is given a value, and let go", hint="leave one of them out: a new value replaces the old"
            )
        return frozenset(self.unset)

    def reject_fork_options(self) -> None:
        """Raises `InputError` E033 where `values` or `unset` are stated: only a fork takes them."""
        if self.checked_values or self.unset_nodes:
            raise InputError(
                "E033", f"`{'values' if self.checked_values else 'unset'}` are for a fork, and this is none", hint=_VALUES_HINT
            )

    def stored_options(self, budget: Budget | None, tags: Mapping[str, str]) -> dict[str, Any]:
        """What a resumed run must still know; `budget` is the one that holds, `tags` are those of its parent."""
        found: dict[str, Any] = {"tags": told} if (told := {**tags, **(self.tags or {})}) else {}
        if self.budget is not None and budget is not None:
            found["budget"] = budget.model_dump(mode="json", exclude_none=True)
        if self.accept is not None:
            found["accept"] = self.accept
        if self.memo:
            found["memo"] = True
        if self.purpose:
            found["purpose"] = self.purpose
        if self.sample:
            found["sample"] = self.sample
        if self.again:
            found["again"] = True
        return found


def _parent_text(parent: str) -> str:
    return f"a fork of run {parent}" if parent else "no fork"


DEFAULT_OPTIONS = RunOptions()
"""Those of a run that is told nothing."""
