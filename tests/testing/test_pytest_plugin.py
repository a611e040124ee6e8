"""The pytest plugin as a user runs it: the documented example in a folder of its own, in a separate pytest process."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points

import pytest

from tests.docs.blocks import ROOT, blocks

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]

EXAMPLE = ROOT / "examples" / "testing_your_workflow"
PAGE = {
    block.text.partition("\n")[0].removeprefix("# "): block.text
    for block in blocks(ROOT / "docs" / "how-to" / "testing.md")
    if block.mark == "pytest"
}
"""The files of the documentation page, by the name in their first line."""
INSTALLED = bool(entry_points(group="pytest11", name="orchestra"))
"""Whether the installed package has the entry point; else the tests name the plugin."""

Pytest = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Pytest:
    """Runs pytest in the test's folder, in a separate process. pytest-asyncio is in strict mode by default."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(pytester.path / "home"))
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")

    def run(*arguments: str) -> pytest.RunResult:
        plugin = () if INSTALLED else ("-p", "orchestra.testing.pytest_plugin")
        return pytester.runpytest_subprocess(*plugin, "-W", "error", *arguments)

    return run


def page(pytester: pytest.Pytester, *names: str) -> None:
    for name in names:
        (pytester.path / name).write_text(PAGE[name], "utf-8")


def test_plugin_documented_example_passes(pytester: pytest.Pytester, run: Pytest) -> None:
    page(pytester, "asking.py", "test_asking.py")
    run().assert_outcomes(passed=3)


def test_plugin_documented_service_example_passes(pytester: pytest.Pytester, run: Pytest) -> None:
    page(pytester, "service.py", "test_service.py")
    run().assert_outcomes(passed=3)


SHORT = """
import asyncio
import pytest
from orchestra import tool, workflow

@tool(effect="pure")
def first(text: str) -> str:
    return text.split()[0]

@tool(effect="once")
def send(text: str) -> str:
    raise AssertionError("sent")

@workflow()
def short(text: str) -> str:
    return first(text=text)

@workflow()
def sent(text: str) -> str:
    return send(text=text)
"""


def test_plugin_failing_seed_prints_repeat_command(pytester: pytest.Pytester, run: Pytest) -> None:
    pytester.makepyfile(
        SHORT
        + """
@pytest.mark.seeds(100)
async def test_seeds(simulated):
    await simulated.run(short, text="a b")
    assert simulated.seed < 17 or simulated.seed > 20
"""
    )
    result = run()
    result.assert_outcomes(failed=1)
    # In CI pytest repeats complete messages in its summary, without the E.
    lines = [line for line in result.outlines if "reproduce" in line and line.startswith("E")]
    command = re.fullmatch(r"E +reproduce: pytest (\S+ --seed 17)", lines[0])
    assert command is not None
    assert len(lines) == 1
    run(*command[1].split()).assert_outcomes(failed=1)
    run(*command[1].replace("17", "3").split()).assert_outcomes(passed=1)


def test_plugin_seed_is_reproducible(pytester: pytest.Pytester, run: Pytest) -> None:
    pytester.makepyfile(
        SHORT
        + """
async def test_story(simulated):
    async def count(name):
        for _ in range(3):
            story.append(name)
            await asyncio.sleep(0)
    story = []
    await asyncio.gather(*(count(name) for name in "abc"))
    run = await simulated.start(short, text="a b")
    print("story:", "".join(story), simulated.clock.random(), run.id)
"""
    )

    def story(seed: int) -> list[str]:
        return [line for line in run("-s", "--seed", str(seed)).outlines if "story:" in line]

    assert story(5) == story(5) != story(6)


@pytest.mark.parametrize(
    ("said", "shown"),
    [("(0)", "(0)"), ("()", "()"), ("", "()"), ("(2, 5)", "(2, 5)"), ("(True)", "(True)"), ("(n=3)", "(n=3)")],
)
def test_plugin_invalid_seed_count_fails_test(said: str, shown: str, pytester: pytest.Pytester, run: Pytest) -> None:
    pytester.makepyfile(f"import pytest\n\n@pytest.mark.seeds{said}\nasync def test_never(simulated):\n    pass\n")
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"C036: seeds{shown} is not a valid number of seeds"])


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_plugin_coexists_with_pytest_asyncio(mode: str, pytester: pytest.Pytester, run: Pytest) -> None:
    pytester.makepyfile(
        SHORT
        + """
import pytest_asyncio

@pytest_asyncio.fixture
async def text():
    await asyncio.sleep(0)
    return "a b"

@pytest.mark.asyncio
async def test_in_a_real_loop(text):
    assert type(asyncio.get_running_loop()).__name__ != "VirtualLoop"

@pytest.mark.asyncio
@pytest.mark.parametrize("words", ["a", "a b"])
async def test_in_virtual_time(simulated, text, words):
    assert type(asyncio.get_running_loop()).__name__ == "VirtualLoop"
    await asyncio.sleep(86_400)
    assert (await simulated.run(short, text=words)).output == "a"

class TestInAClass:
    async def test_in_virtual_time(self, simulated):
        await asyncio.sleep(86_400)
"""
    )
    run(f"--asyncio-mode={mode}").assert_outcomes(passed=4)


def test_plugin_fixture_answers_apply_to_all_seeds(pytester: pytest.Pytester, run: Pytest) -> None:
    pytester.makepyfile(
        SHORT
        + """
@pytest.fixture
def answering(simulated):
    simulated.set_answers({"first": "of the fixture"})
    return simulated

@pytest.mark.seeds(3)
async def test_seeds(answering):
    assert (await answering.run(short, text="a b")).output == "of the fixture"
    answering.set_answers({"first": lambda call: call.inputs["text"]})
    assert (await answering.run(short, text="a b")).output == "a b"
"""
    )
    run().assert_outcomes(passed=1)


def test_plugin_tool_with_effects_needs_answer(pytester: pytest.Pytester, run: Pytest) -> None:
    pytester.makepyfile(
        SHORT
        + """
async def test_unanswered(simulated):
    await (await simulated.start(sent, text="a b")).wait()

async def test_answered(simulated):
    simulated.set_answers({"send": "done"})
    assert (await simulated.run(sent, text="a b")).output == "done"
"""
    )
    result = run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["C035: the test has no answer for the tool 'send'; it has no answers"])


def test_plugin_invalid_answers_are_reported(pytester: pytest.Pytester, run: Pytest) -> None:
    pytester.makepyfile(
        SHORT
        + """
async def test_misspelt(simulated):
    simulated.set_answers({"sned": "done"})
    await (await simulated.start(sent, text="a b")).wait()

async def test_mistyped(simulated):
    simulated.set_answers({"send": 7})
    await simulated.run(sent, text="a b")
"""
    )
    result = run()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "*did you mean simulated.set_answers({'send': …}), instead of 'sned'?",
            "*E009: *the simulated answer for send is of another type: *",
            "*send gives str: correct the test's answer*",
        ]
    )


def test_plugin_sync_test_is_refused(pytester: pytest.Pytester, run: Pytest) -> None:
    pytester.makepyfile("def test_plain(simulated): pass\n\nasync def test_both(simulated, cassette): pass")
    result = run()
    result.assert_outcomes(errors=1, failed=1)
    result.stdout.fnmatch_lines(["C036: test_plain cannot be run in simulation", "C036: test_both uses both*"])


def test_plugin_foreign_fixture_is_ignored(pytester: pytest.Pytester, run: Pytest) -> None:
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef cassette():\n    return 'theirs'")
    pytester.makepyfile(
        "import pytest\n\ndef test_plain(cassette):\n    assert cassette == 'theirs'\n\n"
        "@pytest.mark.asyncio\nasync def test_async(cassette):\n    assert cassette == 'theirs'"
    )
    run().assert_outcomes(passed=2)


def test_plugin_recorded_test_replays_without_workers(pytester: pytest.Pytester, run: Pytest) -> None:
    page(pytester, "asking.py", "test_model.py", "conftest.py")
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "C030: there is no cassette *cassettes/test_model/test_the_model_finds_the_year.jsonl",
            "*help: record it: pytest test_model.py::test_the_model_finds_the_year --record",
        ]
    )
    result = run("--record")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["cassettes/test_model/test_the_model_finds_the_year.jsonl (1 call)"])
    (pytester.path / "conftest.py").write_text(
        "import pytest\n\n@pytest.fixture\ndef real_workers():\n    raise AssertionError('asked')\n"
    )
    run().assert_outcomes(passed=1)
    run("--record", "--replay").assert_outcomes(passed=1)
    run("--record").assert_outcomes(errors=1)


def recorded(pytester: pytest.Pytester, run: Pytest) -> None:
    page(pytester, "asking.py", "test_model.py", "conftest.py")
    run("--record").assert_outcomes(passed=1)


def test_plugin_changed_input_fails_with_difference(pytester: pytest.Pytester, run: Pytest) -> None:
    recorded(pytester, run)
    page_text = PAGE["test_model.py"].replace("When was it completed?", "Which year?")
    (pytester.path / "test_model.py").write_text(page_text, "utf-8")
    result = run()
    result.assert_outcomes(failed=1)
    shown = next(
        block.text for block in blocks(ROOT / "docs" / "how-to" / "testing.md") if block.text.startswith("C034")
    )
    assert shown.strip() in "\n".join(result.outlines)
    assert "reproduce" not in str(result.stdout)


def test_plugin_changed_prompt_fails_renamed_node_passes(pytester: pytest.Pytester, run: Pytest) -> None:
    recorded(pytester, run)
    renamed = PAGE["asking.py"].replace("found", "another_name")
    assert renamed != PAGE["asking.py"]
    (pytester.path / "asking.py").write_text(renamed, "utf-8")
    run().assert_outcomes(passed=1)
    (pytester.path / "asking.py").write_text(PAGE["asking.py"].replace("a few words", "one word"), "utf-8")
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the prompt or the output type of 'finder' has changed since"])


def test_plugin_restricted_data_needs_marker(pytester: pytest.Pytester, run: Pytest) -> None:
    page(pytester, "asking.py", "conftest.py")
    text = PAGE["test_model.py"].replace(
        "await cassette.run(", 'await cassette.orchestra.options(label="restricted").run('
    )
    (pytester.path / "test_model.py").write_text(text, "utf-8")
    result = run("--record")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["C032: *"])
    assert not (pytester.path / "cassettes").exists()
    marked = text.replace("async def test", "@pytest.mark.cassette(label='restricted')\nasync def test").replace(
        "from asking", "import pytest\nfrom asking"
    )
    (pytester.path / "test_model.py").write_text(marked, "utf-8")
    run("--record").assert_outcomes(passed=1)
    run().assert_outcomes(passed=1)


@pytest.mark.parametrize("ends", ["KeyboardInterrupt", "AssertionError('not that')"])
def test_plugin_failed_recording_keeps_cassette(ends: str, pytester: pytest.Pytester, run: Pytest) -> None:
    recorded(pytester, run)
    path = pytester.path / "cassettes" / "test_model" / "test_the_model_finds_the_year.jsonl"
    before = path.read_bytes()
    text = PAGE["test_model.py"] + f"    raise {ends}\n"
    (pytester.path / "test_model.py").write_text(text.replace("When was it completed?", "Which year?"), "utf-8")
    result = run("--record")
    result.stdout.fnmatch_lines(
        ["cassettes/test_model/test_the_model_finds_the_year.jsonl is unchanged: its test did not pass"]
    )
    assert path.read_bytes() == before
    path.unlink()
    run("--record").stdout.fnmatch_lines(["*.jsonl was not written: its test did not pass"])
    assert not path.exists()


def test_plugin_xfail_test_writes_cassette(pytester: pytest.Pytester, run: Pytest) -> None:
    recorded(pytester, run)
    path = pytester.path / "cassettes" / "test_model" / "test_the_model_finds_the_year.jsonl"
    path.unlink()
    text = (
        PAGE["test_model.py"].replace("async def test_the", "import pytest\n\n@pytest.mark.xfail\nasync def test_the")
        + "    assert False\n"
    )
    (pytester.path / "test_model.py").write_text(text, "utf-8")
    run("--record").stdout.fnmatch_lines(["*test_the_model_finds_the_year.jsonl (1 call)"])
    assert path.exists()


TOOLS = """
from orchestra import tool, workflow

@tool(effect="once")
def send(text: str) -> str:
    with open("sent.txt", "a") as file:
        file.write(text)
    return "sent " + text

@workflow()
def sent(text: str) -> str:
    return send(text=text)

async def test_sent(cassette):
    assert (await cassette.run(sent, text="hello")).output == "sent hello"
"""


def test_plugin_project_tools_run_only_in_recording(pytester: pytest.Pytester, run: Pytest) -> None:
    pytester.makepyfile(TOOLS)
    for arguments in (("--record",), (), ()):
        run(*arguments).assert_outcomes(passed=1)
    assert (pytester.path / "sent.txt").read_text() == "hello"


def test_plugin_example_project_passes(pytester: pytest.Pytester, run: Pytest) -> None:
    shutil.copytree(EXAMPLE, pytester.path / "example", ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    run("example").assert_outcomes(passed=4)


def test_plugin_unused_loads_nothing() -> None:
    script = "import pytest, sys, orchestra.testing.pytest_plugin; "
    script += "print(*sorted(name for name in sys.modules if name.startswith('orchestra')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["orchestra", "orchestra.testing", "orchestra.testing.pytest_plugin"]
