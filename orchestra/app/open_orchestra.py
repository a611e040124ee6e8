"""What planning and threads use of an open `Orchestra`, so that neither imports the composition root."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, Unpack

if TYPE_CHECKING:
    from orchestra.agents.registry import Registry
    from orchestra.app.costs import CostReport
    from orchestra.app.run import Run
    from orchestra.core.labels import Label
    from orchestra.core.protocols import Journal, RunSummary
    from orchestra.core.settings import Settings
    from orchestra.core.tags import Tags
    from orchestra.engine.request import OptionChanges
    from orchestra.workflows.program import Program
    from orchestra.workflows.python.steps import Step


class OpenOrchestra(Protocol):
    """An open `Orchestra`, whose members `orchestra.app.orchestra` documents."""

    settings: Settings
    journal: Journal

    @property
    def registry(self) -> Registry:
        """The agents and tools, by name."""
        ...

    @property
    def label(self) -> Label:
        """The label of the data of its runs."""
        ...

    @property
    def has_key(self) -> bool:
        """Whether its runs have an idempotency key."""
        ...

    def options(self, **changes: Unpack[OptionChanges]) -> OpenOrchestra:
        """Returns the same one with other options for its runs."""
        ...

    def workflows(self) -> list[str]:
        """Returns the names of all workflows."""
        ...

    def find(self, name: str, /) -> Step[..., Any]:
        """Returns a workflow, an agent or a tool by name."""
        ...

    def program(self, step: Step[..., Any], /) -> Program:
        """Compiles a step."""
        ...

    async def start(self, step: Step[..., Any], /, *args: Any, **inputs: Any) -> Run[Any]:
        """Starts a run."""
        ...

    async def plan(self, step: Step[..., Any], /, **inputs: Any) -> Run[str]:
        """Starts a run of a request that ends when its plan is accepted."""
        ...

    async def runs(self, *, limit: int = 50, tags: Tags | None = None) -> Sequence[RunSummary]:
        """Returns the latest runs, newest first."""
        ...

    async def costs(self, *, tags: Tags | None = None) -> CostReport:
        """Sums the costs of runs."""
        ...
