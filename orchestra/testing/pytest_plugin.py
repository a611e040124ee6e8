"""The pytest plugin: tests of your workflows in virtual time, under many seeds, and with recorded answers.

    @pytest.mark.seeds(100)
    async def test_answers(simulated: Simulated) -> None:
        simulated.set_answers({"reader": {"answer": "1889"}})
        result = await simulated.run(my_workflow, question="…")
        assert result.output.text == "1889"

    async def test_answers_of_the_model(cassette: Taped) -> None:       # pytest --record once, replayed ever after
        result = await cassette.run(my_workflow, question="…")

Loaded by pytest wherever Orchestra is installed, so it imports nothing until a test uses it.
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
    """The options of this plugin."""
    group = parser.getgroup("orchestra", "tests of Orchestra's workflows")
    group.addoption(
        "--seed",
        type=int,
        dest="orchestra_seed",
        metavar="N",
        help="run tests with `simulated` or `cassette` under this seed",
    )
    mode: dict[str, Any] = {"action": "store_const", "dest": "orchestra_mode"}
    group.addoption(
        "--record",
        const="record",
        help="ask the real fleet and write the cassettes of tests with `cassette` anew",
        **mode,
    )
    group.addoption(
        "--replay",
        const="replay",
        help="answer from cassettes only (the default); takes back an earlier --record",
        **mode,
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marks of this plugin."""
    config.stash[_RECORDED] = []
    config.addinivalue_line(
        "markers", "seeds(count): run a test with `simulated` or `cassette` under the seeds 0 to count - 1"
    )
    config.addinivalue_line(
        "markers", "cassette(label='internal'): the strictest label of data that may stand in the test's cassette"
    )


@pytest.fixture
def simulated(request: pytest.FixtureRequest) -> SimulatedOrchestra:
    """A stage whose agents and tools do what the test says, in virtual time; the test is an `async def`."""
    _require_async_test(request.node)
    from orchestra.testing.simulation import SimulatedOrchestra

    return SimulatedOrchestra(_isolated_settings(request.node))


@pytest.fixture
def real_workers() -> Any:
    """Whom `--record` asks: None for the project's own fleet and tools. Override it to record other workers."""
    return None


@pytest.fixture
def cassette(request: pytest.FixtureRequest) -> CassetteOrchestra:
    """A stage with recorded answers of the project's real workers; the test is an `async def`."""
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
    """Where a test's cassette lies: `cassettes/MODULE/TEST.jsonl` beside the test, with the class before the test's
    name.

    Where signs of the name are not those of a file's, a digest of it tells tests apart that look alike without them.
    """
    said = f"{_class_prefix(item)}{item.name}"
    test, bracket, case = said.partition("[")
    name = f"{test}.{case.removesuffix(']')}" if bracket else test
    plain = _UNSAFE_CHARACTERS.sub("-", name)
    if plain != name:
        from orchestra.schema.strict_json import digest

        plain = f"{plain}-{digest(said.encode(errors='surrogatepass'))[:8]}"
    return _cassette_file(item, plain)


def former_path(item: pytest.Item) -> Path:
    """Where a test's cassette lay before names with other signs had a digest."""
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
    """Takes over the async tests that use a fixture of this plugin; outermost, so that other plugins for async tests
    had
    their turn.
    """
    found = yield
    if isinstance(found, list):
        return [_wrap_item(one) for one in found]
    return _wrap_item(found)


def _wrap_item(item: Any) -> Any:
    if (
        not isinstance(item, pytest.Function)
        or not inspect.iscoroutinefunction(item.obj)
        or not _uses_own_fixture(item)
    ):
        return item
    info = item._fixtureinfo
    made = SimulatedTest.from_parent(
        item.parent,
        name=item.name,
        callspec=getattr(item, "callspec", None),
        callobj=item.obj,
        fixtureinfo=info,
        keywords=item.keywords,
        originalname=item.originalname,
    )
    made.own_markers = [mark for mark in item.own_markers if mark.name != "asyncio"]
    return made


def _uses_own_fixture(item: pytest.Function) -> bool:
    """Whether a test uses a fixture of this plugin: the name alone may be somebody else's, or of one that is made from
    ours.
    """
    known = item._fixtureinfo.name2fixturedefs
    for name in FIXTURES:
        for one in reversed(known.get(name, ())):
            if one.func.__module__ == __name__:
                return True
            if name not in one.argnames:
                break
    return False


class SimulatedTest(pytest.Function):
    """An async test that runs in a loop of this plugin: in virtual time, once for each seed, or in real time where it
    records.
    """

    def runtest(self) -> None:
        """The test, until a seed fails."""
        __tracebackhide__ = True
        from orchestra.testing.simulation import CassetteOrchestra, SimulatedOrchestra

        stages: list[Any] = [
            self.funcargs[name]
            for name in FIXTURES
            if isinstance(self.funcargs.get(name), SimulatedOrchestra | CassetteOrchestra)
        ]
        if len(stages) != 1:
            from orchestra.core.errors import InputError

            hint = "take `simulated` for answers that the test makes up, `cassette` for recorded ones"
            raise InputError("C036", f"{self.name} takes both `simulated` and `cassette`", hint=hint)
        stage = stages[0]
        if isinstance(stage, CassetteOrchestra) and stage.mode == "record":
            self._record(stage)
            return
        for seed in self._seeds():
            self._simulate(stage, seed)

    def _seeds(self) -> range:
        given = self.config.getoption("orchestra_seed")
        if given is not None:
            return range(given, given + 1)
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
        """The test with its real workers; their answers are kept once it has passed."""
        __tracebackhide__ = True
        import asyncio

        async def scenario() -> None:
            __tracebackhide__ = True
            async with stage.open(seed=self._seeds()[0]):
                await self._test(stage)

        where = (
            stage.path.relative_to(self.config.rootpath)
            if stage.path.is_relative_to(self.config.rootpath)
            else stage.path
        )
        said = self.config.stash[_RECORDED]
        kept = True
        try:
            asyncio.run(scenario())
        except BaseException as error:
            # What came back may be a part of what the test asks for: it must not take the place of a cassette that is
            # whole.
            kept = isinstance(error, AssertionError) and self.get_closest_marker("xfail") is not None
            if not kept and not isinstance(error, pytest.skip.Exception):
                said.append(
                    f"{where} {'is as it was' if stage.path.exists() else 'was not written'}: its test did not pass"
                )
            raise
        finally:
            if kept and (calls := stage.save()):
                said.append(f"{where} ({calls} call{'s' if calls > 1 else ''})")

    async def _test(self, stage: SimulatedOrchestra | CassetteOrchestra) -> None:
        """The test function; a fault of the stage comes before whatever the test made of it."""
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
        """The report of a failure; of a stage's fault its own words, for the place where it came up says nothing."""
        from orchestra.core.errors import OrchestraError

        error = excinfo.value
        errors = [own for name in FIXTURES for own in getattr(self.funcargs.get(name), "errors", ())]
        notes = "\n".join(getattr(error, "__notes__", ()))
        if isinstance(error, OrchestraError) and (error.code in ("C030", "C036") or error in errors):
            return f"{error}\n{notes}".rstrip()
        shown = super().repr_failure(excinfo)
        return f"{shown}\n{notes}" if isinstance(shown, str) and notes else shown


def _seed_count(mark: pytest.Mark) -> int:
    """The seeds that a mark wants. Raises `InputError` C036 for none at all: a test that never ran would have passed."""
    match mark.args, mark.kwargs:
        case [(int(count),), {**rest}] if count >= 1 and not isinstance(count, bool) and not rest:
            return count
    from orchestra.core.errors import InputError

    given = ", ".join([*map(repr, mark.args), *(f"{name}={value!r}" for name, value in mark.kwargs.items())])
    raise InputError(
        "C036", f"seeds({given}) is not a number of seeds", hint="one whole number from 1 on: @pytest.mark.seeds(100)"
    )


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Which cassettes were written, and which were to be and were not."""
    if recorded := config.stash.get(_RECORDED, []):
        terminalreporter.section("recorded", sep="-")
        for line in recorded:
            terminalreporter.line(line)


def _require_async_test(item: pytest.Item) -> None:
    """Ends the test where it is no coroutine function."""
    if not isinstance(item, SimulatedTest):
        from orchestra.core.errors import InputError

        hint = "write it as `async def`; under @given call run_simulated of orchestra.testing"
        pytest.fail(str(InputError("C036", f"{item.name} cannot be run in simulation", hint=hint)), pytrace=False)


def _isolated_settings(item: pytest.Item) -> Any:
    """The settings of the test's project alone: neither the user's files nor the environment change what a test does."""
    from orchestra.core.settings import Settings

    nowhere = str(item.path.parent / "cassettes" / ".none")
    return Settings.load(
        start=item.path.parent, environ={"HOME": nowhere, "XDG_CONFIG_HOME": nowhere, "XDG_STATE_HOME": nowhere}
    )


def _pytest_command(item: pytest.Item) -> str:
    """What runs one test, from the folder where pytest was started."""
    _, parts, rest = item.nodeid.partition("::")
    path = os.path.relpath(item.path, item.config.invocation_params.dir)
    return f"pytest {shlex.quote(path + parts + rest)}"
