"""Certificates of a project: what their code digest covers, runs that were cut off, processes that stay open."""

from __future__ import annotations

import ast
import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestra import InputError, Orchestra
from orchestra.app.certificates import (
    CHECK_SOURCES,
    checks_digest,
    default_path,
    dependency_digests,
    find_certificate,
    read_certificate,
)
from orchestra.app.project import Project
from orchestra.app.snapshot import WorkflowSnapshot
from orchestra.app.snapshot_store import restore_program
from orchestra.core.events import AttemptFinished, OutputJudged, RunStarted
from orchestra.core.protocols import CallResult
from orchestra.testing import SimulatedWorkers
from orchestra.verification.certificates.file import FILE_NAME
from tests.unreachable import FLEET, settings, write
from tests.verification.samples import certified

ROOT = Path(__file__).parents[2]
CARD = "name: namer\ninput: {text: str}\noutput: str\n"
WORKFLOW = """
schema: orchestra/v1
name: naming
input: {text: str}
output: ${named}
nodes:
  first: {agent: namer, with: {text: "${input.text}"}}
  named: {agent: namer, with: {text: "${first}"}, checks: [schema, confidence], accept: certified, otherwise: [abstain]}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "agents/namer/agent.yaml": CARD,
        "agents/namer/prompt.md": "Name it: {{ text }}\n",
        "workflows/naming.yaml": WORKFLOW,
    }
    write(tmp_path, files)
    put(tmp_path, 0.8)
    return tmp_path


def put(project: Path, threshold: float) -> None:
    """Writes a valid certificate."""
    import msgspec

    chosen = settings(project)
    now = dependency_digests(chosen, Project.load(chosen).registry, "namer")
    made = msgspec.structs.replace(
        certified("namer", ("schema", "confidence"), threshold), dependencies=now
    ).with_digest()
    (project / "agents" / "namer" / FILE_NAME).write_bytes(made.to_bytes())


@asynccontextmanager
async def opened(project: Path, **simulation: Any) -> AsyncIterator[Orchestra]:
    workers = SimulatedWorkers({"namer": lambda call: CallResult(value="tea", confidence=0.9)}, **simulation)
    async with Orchestra.open(settings(project), workers=workers) as orchestra:
        yield orchestra


async def test_certificate_removed_resume_keeps_threshold(project: Path) -> None:
    async with opened(project, latency=0.05) as orchestra:
        run = await orchestra.start(orchestra.find("naming"), text="leaves")
        async for event in run:
            if isinstance(event, AttemptFinished):
                break
    (project / "agents" / "namer" / FILE_NAME).unlink()
    async with opened(project) as orchestra:
        result = await (await orchestra.resume(run.id))
        events = await orchestra.journal.read(run.id)
        assert (await orchestra.replay(run.id)).first_difference is None
        with pytest.raises(InputError, match="no certificate for 'namer'"):
            await orchestra.run(orchestra.find("naming"), text="leaves")
    assert result.guarantees == {"named": certified("namer").guarantee}
    assert isinstance(events[0], RunStarted)
    assert "certificate/namer" in events[0].versions
    assert [event.accepted for event in events if isinstance(event, OutputJudged)] == [True]


async def test_certificate_voided_noticed_by_open_project(project: Path) -> None:
    async with opened(project) as orchestra:
        naming = orchestra.find("naming")
        assert (await orchestra.run(naming, text="leaves")).guarantees
        put(project, 0.95)
        assert (await (await orchestra.start(naming, text="leaves")).wait()).status == "abstained"
        fleet = project / "configs" / "nowhere.yaml"
        fleet.write_text(FLEET.replace('revision: "1"', 'revision: "of June"'))
        with pytest.raises(InputError, match="void: the model changed"):
            await orchestra.run(naming, text="leaves")


def test_certificate_voided_in_workflow_of_plan_noticed(project: Path) -> None:
    plan = "  p: {plan: Name it., with: {text: '${input.text}'}, workflows: [naming], returns: str}\n"
    files = {
        "workflows/naming.yaml": WORKFLOW.replace("name: naming", "name: naming\ndescription: Names a text."),
        "workflows/planned.yaml": (
            f"schema: orchestra/v1\nname: planned\ninput: {{text: str}}\noutput: ${{p}}\nnodes:\n{plan}"
        ),
    }
    write(project, files)
    stays_open = Project.load(settings(project))
    planned = stays_open.find("planned")
    stays_open.program(planned)
    file = project / "agents" / "namer" / FILE_NAME
    file.write_bytes(read_certificate(file, "namer").mark_void("audits found errors").to_bytes())
    with pytest.raises(InputError, match="void: audits found errors"):
        stays_open.program(planned)


def parcels() -> int:
    """Returns the number of live objects of the type in this process."""
    gc.collect()
    return sum(type(one) is WorkflowSnapshot for one in gc.get_objects())


async def test_certificate_of_run_start_stored(project: Path) -> None:
    path = project / "agents" / "namer" / FILE_NAME
    made = [path.read_bytes()]
    put(project, 0.5)
    made.append(path.read_bytes())
    before = parcels()
    async with opened(project) as orchestra:
        naming = orchestra.find("naming")
        for number in range(10):
            path.write_bytes(made[number % 2])
            os.utime(path, (number, number))
            first = (await orchestra.journal.read((await orchestra.run(naming, text="leaves")).run))[0]
            assert isinstance(first, RunStarted)
            assert await orchestra.journal.get_blob(first.versions["certificate/namer"]) == made[number % 2]
            assert parcels() <= before + 1, "another program may get the address of one that has gone"


async def test_certificate_changed_reported_by_fork(project: Path) -> None:
    async with opened(project) as orchestra:
        run = (await orchestra.run(orchestra.find("naming"), text="leaves")).run
    put(project, 0.85)
    async with opened(project) as orchestra:
        fork = await orchestra.fork(run)
        await fork.run
    assert [(change.node, change.reason) for change in fork.changes] == [("named", "its certificate has changed")]


def test_certificate_of_packaged_agent_stored_in_user_folder(project: Path) -> None:
    chosen = settings(project)
    registry = Project.load(chosen).registry
    assert default_path(chosen, registry, "reader") == project / "agents" / "reader" / FILE_NAME
    assert default_path(chosen, registry, "namer") == project / "agents" / "namer" / FILE_NAME
    assert find_certificate(chosen, registry, "reader") is None
    (project / "agents" / "reader").mkdir()
    (project / "agents" / "reader" / FILE_NAME).write_bytes(certified().to_bytes())
    assert (
        find_certificate(chosen, Project.load(chosen).registry, "reader") == project / "agents" / "reader" / FILE_NAME
    )
    assert "reader" in Project.load(chosen).registry.cards, "the packaged card is still found"


def test_certificate_binds_arrays_without_fleet(project: Path) -> None:
    chosen = settings(project)
    registry = Project.load(chosen).registry
    mine = dependency_digests(chosen, registry, "banking_intent")
    assert (mine.model, mine.adapter) == ("", registry.card("banking_intent").data_digest)


BOTH = "name: both\nkind: ensemble\nmembers: [namer, other]\ninput: {text: str}\noutput: str\n"


def test_certificate_of_ensemble_binds_members(project: Path) -> None:
    other = CARD.replace("name: namer", "name: other")
    write(
        project,
        {
            "agents/both/agent.yaml": BOTH,
            "agents/other/agent.yaml": other,
            "agents/other/prompt.md": "Or so: {{ text }}\n",
        },
    )
    chosen = settings(project)
    before = dependency_digests(chosen, Project.load(chosen).registry, "both")
    (project / "agents" / "other" / "prompt.md").write_text("Or so, then: {{ text }}\n")
    reworded = dependency_digests(chosen, Project.load(chosen).registry, "both")
    assert before.changes(reworded) == ["its card or prompt"]
    fleet = project / "configs" / "nowhere.yaml"
    fleet.write_text(fleet.read_text().replace('revision: "1"', 'revision: "2"'))
    assert reworded.changes(dependency_digests(chosen, Project.load(chosen).registry, "both")) == ["the model"]


async def test_packaged_ensemble_uses_packaged_members(
    project: Path,
) -> None:
    other = CARD.replace("name: namer", "name: extractive_reader").replace("text: str", "invoice: str")
    write(
        project, {"agents/extractive_reader/agent.yaml": other, "agents/extractive_reader/prompt.md": "{{ invoice }}\n"}
    )
    chosen = settings(project)
    known = Project.load(chosen)
    parts = known.registry.card("reader").member_cards
    workers = SimulatedWorkers({"reader": {"answer": "1889"}})
    async with Orchestra.open(chosen, workers=workers) as orchestra:
        run = (await orchestra.run(orchestra.find("reader"), question="When?", context="In 1889.")).run
        first, *_ = await orchestra.journal.read(run)
        assert isinstance(first, RunStarted)
        again = Project.load(chosen)
        await restore_program(again, orchestra.journal, first)
    assert [again.cards_by_digest[part.digest].folder for part in parts] == [part.folder for part in parts]
    assert again.registry.card("extractive_reader").folder == project / "agents" / "extractive_reader"


async def test_run_of_retrained_agent_can_be_forked(tmp_path: Path) -> None:
    project = tmp_path / "project"
    card = "name: sorter\nkind: sklearn\ninput: {text: str}\noutput: str\n"
    write(
        project,
        {"agents/sorter/agent.yaml": card, "agents/sorter/model.json": "{}", "orchestra.toml": 'fleet = "none"\n'},
    )
    chosen = settings(project)
    async with Orchestra.open(chosen, workers=SimulatedWorkers({"sorter": "a"})) as orchestra:
        run = (await orchestra.run(orchestra.find("sorter"), text="x")).run
    write(project, {"agents/sorter/model.json": "{ }"})
    async with Orchestra.open(chosen, workers=SimulatedWorkers({"sorter": "b"})) as orchestra:
        first, *_ = await orchestra.journal.read(run)
        assert isinstance(first, RunStarted)
        with pytest.raises(InputError, match="orchestra runs fork RUN"):
            await restore_program(Project.load(chosen), orchestra.journal, first)
        fork = await orchestra.fork(run)
        assert (await fork.run.wait()).output == "b"


def test_check_code_digest_covers_imported_modules() -> None:
    """The digest covers the modules of `verify` and `values` that the covered files import, except modules for plain
    data, JSON Schema or file formats.
    """
    apart = {
        "verification/certificates/file.py",
        "verification/certificates/row_fingerprints.py",
        "verification/certificates/format.py",
    }
    apart |= {
        "core/outcomes.py",
        "schema/types.py",
        "schema/json_schema.py",
        "schema/validator.py",
        "schema/strict_json.py",
        "core/untrusted_text.py",
    }
    wanted: set[str] = set()
    for name in CHECK_SOURCES:
        for node in ast.walk(ast.parse((ROOT / "orchestra" / name).read_text("utf-8"))):
            packages = ("orchestra.verification", "orchestra.schema", "orchestra.text")
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(packages):
                continue
            module = str(node.module).removeprefix("orchestra.").replace(".", "/")
            whole = (ROOT / "orchestra" / f"{module}.py").is_file()
            wanted |= {f"{module}.py"} if whole else {f"{module}/{alias.name}.py" for alias in node.names}
    assert wanted - apart <= set(CHECK_SOURCES)
    assert all((ROOT / "orchestra" / name).is_file() for name in CHECK_SOURCES)
    assert len(checks_digest()) == 32
