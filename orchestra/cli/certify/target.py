"""What `orchestra certify` is about: an agent, or a workflow as a whole; and how each of them is asked."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra.agents.card import Card
from orchestra.agents.registry import Registry
from orchestra.app import certificates
from orchestra.app.orchestra import Orchestra
from orchestra.app.project import Project
from orchestra.app.workflow_certificates import Whole
from orchestra.cli.learn import evaluate
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings, looks_like_path
from orchestra.learn.certification.labelled_answers import Predictions, asked_once
from orchestra.learn.evaluation.metrics import Case
from orchestra.learn.evaluation.rows import Test, as_record
from orchestra.schema.content import says
from orchestra.verification.certificates.file import Bonds
from orchestra.workflows.python.steps import Agent, Workflow

FAILED = "rows failed, and count as wrong and not accepted"


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is certified. `settings` and `registry` find what lies beside it."""

    card: Card
    """Of an agent; of a workflow its face."""
    settings: Settings
    registry: Registry
    whole: Whole | None = None
    """None for an agent."""
    step: Workflow[..., object] | None = None

    def refuse(self, *, named: bool, combined: bool, recorded: bool) -> None:
        """Raises `InputError` V030 for a workflow that cannot be asked row by row, C010 for options that are about an agent's checks."""
        if self.whole is None:
            return
        if named or combined:
            said = f"--{'checks' if named else 'combined'} is about an agent, and {self.card.name} is a workflow"
            raise InputError("C010", said, hint="leave it out: its score is how sure the least sure is that its output follows from")
        if not recorded and (acts := self.whole.acting):
            hint = "run it where that is meant, and give what came of it: --predictions FILE"
            raise InputError("V030", f"{self.card.name} would act once for each row: {acts}", hint=hint)

    def bonds(self) -> Bonds:
        """What its answers and their scores follow from. Raises `InputError` V007."""
        return certificates.bonds(self.settings, self.registry, self.card.name) if self.whole is None else self.whole.bonds()

    def recorded(self, given: Predictions, checks: tuple[str, ...], test: Test) -> list[Case]:
        """Answers that were recorded. Raises `InputError` V006 for one to no row, and where none of a workflow's has a score."""
        if self.whole is None:
            return given.cases(self.card, checks, test)
        answers = given.given(test)
        scores = [said[1] for said in answers if said is not None]
        if scores and all(score is None for score in scores):
            hint = f"orchestra batch {self.card.name} --accept 0"
            raise InputError("V006", f"no answer of {given.name} says how sure it is", hint=hint)
        return [_case(question.expected, said) for question, said in zip(test.questions, answers, strict=True)]

    async def cases(self, orchestra: Orchestra, checks: tuple[str, ...], test: Test, at_once: int) -> list[Case]:
        """Its answers, asked for once each, with how sure it is of them. Raises `FleetError` where no server can be had."""
        if self.step is None:
            step = Agent.carded(asked_once(self.card, checks))
            arm = await evaluate.metered_arm(orchestra, self.card.name, step, test, at_once, FAILED)
        else:
            arm = await evaluate.metered_arm(orchestra.options(accept=0.0), self.card.name, self.step, test, at_once, FAILED)
        return list(arm.cases)


def _case(expected: dict[str, object], said: tuple[object, float | None] | None) -> Case:
    """A recorded output of a workflow; one that says nothing is withheld, and so is one of which nobody says how sure it is."""
    if said is None or said[1] is None or not says(said[0]):
        return Case(expected, None)
    return Case(expected, as_record(said[0]), said[1])


def whole(project: Project, name: str) -> tuple[Whole, Workflow[..., object]] | None:
    """The workflow of a name or a file; None where that is no workflow's."""
    if not looks_like_path(name) and name not in project.workflow_names():
        return None
    step = project.find(name)
    assert isinstance(step, Workflow), "it is the name of one"
    return Whole.of(project, step.graph), step


def of(project: Project, name: str) -> Subject:
    """What has this name. Raises `InputError` A001 for nothing, and what reading it raises."""
    if (found := whole(project, name)) is None:
        return Subject(project.registry.card(name), project.settings, project.registry)
    one, step = found
    return Subject(one.face, one.settings, one.registry, one, step)
