"""The pytest plugin: tests of workflows in virtual time, with many seeds, and with recorded replies.

    @pytest.mark.seeds(100)
    async def test_answers(simulated: SimulatedOrchestra) -> None:
        simulated.set_answers({"reader": {"answer": "1889"}})
        result = await simulated.run(my_workflow, question="…")
        assert result.output.text == "1889"

    async def test_answers_of_the_model(cassette: CassetteOrchestra) -> None:  # record once: pytest --record
        result = await cassette.run(my_workflow, question="…")

pytest loads it if Orchestra is installed, so it imports nothing until a test uses it.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from orchestra.testing.simulation import CassetteOrchestra, SimulatedOrchestra
    from orchestra.testing.virtual_clock import VirtualClock

FIXTURES = ("simulated", "cassette")
_RECORDED = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options of this plugin."""
    group = parser.getgroup("orchestra", "tests of Orchestra's workflows")
    group.addoption(
        "--seed",
        type=int,
        dest="orchestra_seed",
        metavar="N",
        help="run tests with `simulated` or `cassette` with this seed",
    )
    mode: dict[str, Any] = {"action": "store_const", "dest": "orchestra_mode"}
    group.addoption(
        "--record",
        const="record",
        help="call the real fleet and rewrite the cassettes of tests with `cassette`",
        **mode,
    )
    group.addoption(
        "--replay",
        const="replay",
        help="reply from cassettes only (the default); overrides an earlier --record",
        **mode,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers of this plugin."""
    config.stash[_RECORDED] = []
    config.addinivalue_line(
        "markers", "seeds(count): run a test with `simulated` or `cassette` with the seeds 0 to count - 1"
    )
    config.addinivalue_line("markers", "cassette(label='internal'): the highest label of data in the test's cassette")


@pytest.fixture
def simulated(request: pytest.FixtureRequest) -> SimulatedOrchestra:
    """An `Orchestra` whose agents and tools give scripted replies, in virtual time. The test is an `async def`."""
    _require_async_test(request.node)
    from orchestra.testing.simulation import SimulatedOrchestra

    return SimulatedOrchestra(_isolated_settings(request.node))


@pytest.fixture
def real_workers() -> Any:
    """The workers for `--record`; None means the project's own fleet and tools. Override it to record other workers."""
    return None


@pytest.fixture
def cassette(request: pytest.FixtureRequest) -> CassetteOrchestra:
    """An `Orchestra` with recorded replies of the project's real workers. The test is an `async def`."""
    _require_async_test(request.node)
    from orchestra.core.settings import Settings
    from orchestra.testing.simulation import CassetteMode, CassetteOrchestra

    item = request.node
    mode: CassetteMode = "record" if request.config.getoption("orchestra_mode") == "record" else "replay"
    settings = Settings.load(start=item.path.parent) if mode == "record" else _isolated_settings(item)
    real = request.getfixturevalue("real_workers") if mode == "record" else None
    mark = item.get_closest_marker("cassette")
    cassette_orchestra = CassetteOrchestra(
        settings, cassette_path(item), mode, real_workers=real, **(mark.kwargs if mark else {})
    )
    cassette_orchestra.record_command = f"{_pytest_command(item)} --record"
    cassette_orchestra.former_path = former_path(item)
    return cassette_orchestra


def cassette_path(item: pytest.Item) -> Path:
    """Returns the path of a test's cassette: `cassettes/MODULE/TEST.jsonl` beside the test. A class name is put before
    the test's name.

    If characters of the name are not allowed in file names, a digest keeps tests apart whose names are equal without
    them.
    """
    test_name = f"{_class_prefix(item)}{item.name}"
    test, bracket, case = test_name.partition("[")
    name = f"{test}.{case.removesuffix(']')}" if bracket else test
    plain = _UNSAFE_CHARACTERS.sub("-", name)
    if plain != name:
        from orchestra.schema.strict_json import digest

        plain = f"{plain}-{digest(test_name.encode(errors='surrogatepass'))[:8]}"
    return _cassette_file(item, plain)


def former_path(item: pytest.Item) -> Path:
    """Returns the path of a test's cassette before such names got a digest."""
    return _cassette_file(
        item, _UNSAFE_CHARACTERS.sub("-", f"{_class_prefix(item)}{item.name}".replace("[", ".").removesuffix("]"))
    )


_UNSAFE_CHARACTERS = re.compile(r"[^\w.=,+-]+")


def _class_prefix(item: pytest.Item) -> str:
    return f"{item.cls.__name__}." if isinstance(item, pytest.Function) and item.cls is not None else ""


def _cassette_file(item: pytest.Item, name: str) -> Path:
    if len(name) > 120:
        from orchestra.schema.strict_json import digest

        name = f"{name[:100]}-{digest(name.encode())[:12]}"
    return item.path.parent / "cassettes" / item.path.stem / f"{name}.jsonl"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pycollect_makeitem(collector: Any, name: str, obj: object) -> Generator[None, Any, Any]:
    """Collects async tests that use a fixture of this plugin. It runs after other plugins for async tests."""
    items = yield
    if isinstance(items, list):
        return [_wrap_item(item) for item in items]
    return _wrap_item(items)


def _wrap_item(item: Any) -> Any:
    if (
        not isinstance(item, pytest.Function)
        or not inspect.iscoroutinefunction(item.obj)
        or not _uses_own_fixture(item)
    ):
        return item
    info = item._fixtureinfo
    simulated_test = SimulatedTest.from_parent(
        item.parent,
        name=item.name,
        callspec=getattr(item, "callspec", None),
        callobj=item.obj,
        fixtureinfo=info,
        keywords=item.keywords,
        originalname=item.originalname,
    )
    simulated_test.own_markers = [mark for mark in item.own_markers if mark.name != "asyncio"]
    return simulated_test


def _uses_own_fixture(item: pytest.Function) -> bool:
    """Whether a test uses a fixture of this plugin. A fixture with the same name may be another one, or one that
    depends on ours.
    """
    fixture_defs = item._fixtureinfo.name2fixturedefs
    for name in FIXTURES:
        for fixture in reversed(fixture_defs.get(name, ())):
            if fixture.func.__module__ == __name__:
                return True
            if name not in fixture.argnames:
                break
    return False


class SimulatedTest(pytest.Function):
    """An async test in an event loop of this plugin: in virtual time, once per seed; or in real time when
    it records.
    """

    def runtest(self) -> None:
        """Runs the test until a seed fails."""
        __tracebackhide__ = True
        from orchestra.testing.simulation import CassetteOrchestra, SimulatedOrchestra

        stages: list[Any] = [
            self.funcargs[name]
            for name in FIXTURES
            if isinstance(self.funcargs.get(name), SimulatedOrchestra | CassetteOrchestra)
        ]
        if len(stages) != 1:
            from orchestra.core.errors import InputError

            hint = "use `simulated` for scripted replies, `cassette` for recorded ones"
            raise InputError("C036", f"{self.name} uses both `simulated` and `cassette`", hint=hint)
        stage = stages[0]
        if isinstance(stage, CassetteOrchestra) and stage.mode == "record":
            self._record(stage)
            return
        for seed in self._seeds():
            self._simulate(stage, seed)

    def _seeds(self) -> range:
        option = self.config.getoption("orchestra_seed")
        if option is not None:
            return range(option, option + 1)
        mark = self.get_closest_marker("seeds")
        return range(1) if mark is None else range(_seed_count(mark))

    def _simulate(self, stage: SimulatedOrchestra | CassetteOrchestra, seed: int) -> None:
        __tracebackhide__ = True
        from orchestra.testing.cassette_file import CassetteError
        from orchestra.testing.virtual_clock import run_simulated

        async def scenario(clock: VirtualClock) -> None:
            __tracebackhide__ = True
            async with stage.open(clock, seed):
                await self._test(stage)

        try:
            run_simulated(scenario, seed=seed)
        except BaseException as error:
            notes = [
                note for note in getattr(error, "__notes__", ()) if not note.startswith("reproduce: run_simulated")
            ]
            chance = not isinstance(error, pytest.skip.Exception | CassetteError)
            error.__notes__ = [*notes, f"reproduce: {_pytest_command(self)} --seed {seed}"] if chance else notes
            raise

    def _record(self, stage: CassetteOrchestra) -> None:
        """Runs the test with its real workers. The replies are saved if it passes."""
        __tracebackhide__ = True
        import asyncio

        async def scenario() -> None:
            __tracebackhide__ = True
            async with stage.open(seed=self._seeds()[0]):
                await self._test(stage)

        path = (
            stage.path.relative_to(self.config.rootpath)
            if stage.path.is_relative_to(self.config.rootpath)
            else stage.path
        )
        recorded_paths = self.config.stash[_RECORDED]
        is_kept = True
        try:
            asyncio.run(scenario())
        except BaseException as error:
            # A failed test may have made only part of its calls, so its replies must not replace a complete cassette.
            is_kept = isinstance(error, AssertionError) and self.get_closest_marker("xfail") is not None
            if not is_kept and not isinstance(error, pytest.skip.Exception):
                recorded_paths.append(
                    f"{path} {'is unchanged' if stage.path.exists() else 'was not written'}: its test did not pass"
                )
            raise
        finally:
            if is_kept and (calls := stage.save()):
                recorded_paths.append(f"{path} ({calls} call{'s' if calls > 1 else ''})")

    async def _test(self, stage: SimulatedOrchestra | CassetteOrchestra) -> None:
        """Runs the test function. An error of the fixture takes precedence over the test's result."""
        __tracebackhide__ = True
        try:
            await self.obj(**{name: self.funcargs[name] for name in self._fixtureinfo.argnames})
        except Exception as error:
            if stage.errors:
                raise stage.errors[0] from error
            raise
        if stage.errors:
            raise stage.errors[0]

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Returns the report of a failure.

        An error of the fixture is shown without a traceback, which would not help.
        """
        from orchestra.core.errors import OrchestraError

        error = excinfo.value
        errors = [tool_errors for name in FIXTURES for tool_errors in getattr(self.funcargs.get(name), "errors", ())]
        notes = "\n".join(getattr(error, "__notes__", ()))
        if isinstance(error, OrchestraError) and (error.code in ("C030", "C036") or error in errors):
            return f"{error}\n{notes}".rstrip()
        representation = super().repr_failure(excinfo)
        return f"{representation}\n{notes}" if isinstance(representation, str) and notes else representation


def _seed_count(mark: pytest.Mark) -> int:
    """Returns the number of seeds of a marker. Raises `InputError` C036 for zero, because a test that never runs would
    pass.
    """
    match mark.args, mark.kwargs:
        case [(int(count),), {**rest}] if count >= 1 and not isinstance(count, bool) and not rest:
            return count
    from orchestra.core.errors import InputError

    text = ", ".join([*map(repr, mark.args), *(f"{name}={value!r}" for name, value in mark.kwargs.items())])
    raise InputError(
        "C036",
        f"seeds({text}) is not a valid number of seeds",
        hint="one integer of at least 1: @pytest.mark.seeds(100)",
    )


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Reports the cassettes that were written, and those that were not although requested."""
    if recorded_paths := config.stash.get(_RECORDED, []):
        terminalreporter.section("recorded", sep="-")
        for line in recorded_paths:
            terminalreporter.line(line)


def _require_async_test(item: pytest.Item) -> None:
    """Fails the test if it is not a coroutine function."""
    if not isinstance(item, SimulatedTest):
        from orchestra.core.errors import InputError

        hint = "write it as `async def`; under @given call run_simulated of orchestra.testing"
        pytest.fail(str(InputError("C036", f"{item.name} cannot be run in simulation", hint=hint)), pytrace=False)


def _isolated_settings(item: pytest.Item) -> Any:
    """Returns the settings of the test's project, without the user's files and the environment."""
    from orchestra.core.settings import Settings

    nowhere = str(item.path.parent / "cassettes" / ".none")
    return Settings.load(
        start=item.path.parent, environ={"HOME": nowhere, "XDG_CONFIG_HOME": nowhere, "XDG_STATE_HOME": nowhere}
    )


def _pytest_command(item: pytest.Item) -> str:
    """Returns the command that runs one test, from the folder where pytest was started."""
    _, parts, rest = item.nodeid.partition("::")
    path = os.path.relpath(item.path, item.config.invocation_params.dir)
    return f"pytest {shlex.quote(path + parts + rest)}"
