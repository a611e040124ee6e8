"""What `orchestra certify` is about: an agent, or a workflow as a whole; and how each of them is asked."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra.agents.card import Card
from orchestra.agents.registry import Registry
from orchestra.app import certificates
from orchestra.app.orchestra import Orchestra
from orchestra.app.project import Project
from orchestra.app.workflow_certificates import WorkflowTarget
from orchestra.cli.learn import evaluate
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings, looks_like_path
from orchestra.learn.certification.labelled_answers import Predictions, certification_card
from orchestra.learn.evaluation.metrics import Case
from orchestra.learn.evaluation.rows import EvaluationSet, as_record
from orchestra.schema.content import has_content
from orchestra.verification.certificates.file import DependencyDigests
from orchestra.workflows.python.steps import Agent, Workflow

FAILED_ROWS_NOTE = "rows failed, and count as wrong and not accepted"


@dataclass(frozen=True, slots=True)
class CertificationSubject:
    """Who is certified. `settings` and `registry` find what lies beside it."""

    card: Card
    """Of an agent; of a workflow its face."""
    settings: Settings
    registry: Registry
    workflow: WorkflowTarget | None = None
    """None for an agent."""
    step: Workflow[..., object] | None = None

    def check_supported(self, *, named: bool, combined: bool, recorded: bool) -> None:
        """Raises `InputError` V030 for a workflow that cannot be asked row by row, C010 for options that are about an agent's checks."""
        if self.workflow is None:
            return
        if named or combined:
            said = f"--{'checks' if named else 'combined'} is about an agent, and {self.card.name} is a workflow"
            raise InputError(
                "C010", said, hint="leave it out: its score is how sure the least sure is that its output follows from"
            )
        if not recorded and (acts := self.workflow.effect_reason):
            hint = "run it where that is meant, and give what came of it: --predictions FILE"
            raise InputError("V030", f"{self.card.name} would act once for each row: {acts}", hint=hint)

    def bonds(self) -> DependencyDigests:
        """What its answers and their scores follow from. Raises `InputError` V007."""
        return (
            certificates.dependency_digests(self.settings, self.registry, self.card.name)
            if self.workflow is None
            else self.workflow.dependency_digests()
        )

    def recorded_cases(self, given: Predictions, checks: tuple[str, ...], test: EvaluationSet) -> list[Case]:
        """Answers that were recorded. Raises `InputError` V006 for one to no row, and where none of a workflow's has a score."""
        if self.workflow is None:
            return given.cases_for(self.card, checks, test)
        answers = given.outputs_for(test)
        scores = [said[1] for said in answers if said is not None]
        if scores and all(score is None for score in scores):
            hint = f"orchestra batch {self.card.name} --accept 0"
            raise InputError("V006", f"no answer of {given.name} says how sure it is", hint=hint)
        return [_recorded_case(question.expected, said) for question, said in zip(test.rows, answers, strict=True)]

    async def ask_cases(
        self, orchestra: Orchestra, checks: tuple[str, ...], test: EvaluationSet, concurrency: int
    ) -> list[Case]:
        """Its answers, asked for once each, with how sure it is of them. Raises `FleetError` where no server can be had."""
        if self.step is None:
            step = Agent.from_card(certification_card(self.card, checks))
            arm = await evaluate.ask_arm(orchestra, self.card.name, step, test, concurrency, FAILED_ROWS_NOTE)
        else:
            arm = await evaluate.ask_arm(
                orchestra.options(accept=0.0), self.card.name, self.step, test, concurrency, FAILED_ROWS_NOTE
            )
        return list(arm.cases)


def _recorded_case(expected: dict[str, object], said: tuple[object, float | None] | None) -> Case:
    """A recorded output of a workflow; one that says nothing is withheld, and so is one of which nobody says how sure it is."""
    if said is None or said[1] is None or not has_content(said[0]):
        return Case(expected, None)
    return Case(expected, as_record(said[0]), said[1])


def find_workflow(project: Project, name: str) -> tuple[WorkflowTarget, Workflow[..., object]] | None:
    """The workflow of a name or a file; None where that is no workflow's."""
    if not looks_like_path(name) and name not in project.workflow_names():
        return None
    step = project.find(name)
    assert isinstance(step, Workflow), "it is the name of one"
    return WorkflowTarget.of(project, step.graph), step


def find_subject(project: Project, name: str) -> CertificationSubject:
    """What has this name. Raises `InputError` A001 for nothing, and what reading it raises."""
    if (found := find_workflow(project, name)) is None:
        return CertificationSubject(project.registry.card(name), project.settings, project.registry)
    one, step = found
    return CertificationSubject(one.card, one.settings, one.registry, one, step)
