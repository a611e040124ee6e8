"""A mapped list omits the elements that failed; the result lists them with their reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from orchestra import Orchestra, map_, tool, workflow
from orchestra.app.result import Result
from orchestra.cli.run.result_view import result_data, show_failed_elements
from orchestra.core.events import NodeFinished
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.settings import Settings


@tool(effect="pure")
def amount(text: str) -> float:
    """Reads an amount."""
    return float(text)


@tool(effect="pure")
def half(amount: float) -> float:
    """Halves an amount."""
    return amount / 2


@workflow
def amounts(texts: list[str]) -> list[float]:
    """Reads amounts."""
    return map_(lambda text: amount(text=text), texts)


@workflow
def halves(texts: list[str]) -> list[float]:
    """Reads amounts, and halves them."""
    return map_(lambda text: half(amount=amount(text=text)), texts)


async def came_to(flow: Any, texts: list[str], folder: Path) -> Any:
    async with Orchestra.open(Settings.load({"journal": str(folder / "runs.db")}), fleet="none") as orchestra:
        return await (await orchestra.start(flow, texts=texts)).wait()


@pytest.mark.parametrize(
    ("flow", "value", "path"), [(amounts, [100.0, 5.0], "amount[1]"), (halves, [50.0, 2.5], "mapped[1]")]
)
async def test_map_missing_elements_reported(flow: Any, value: list[float], path: str, tmp_path: Path) -> None:
    result = await came_to(flow, ["100", "2,000", "5"], tmp_path)
    assert (result.value, list(result.left_out)) == (value, [path])
    assert result.left_out[path].startswith("T003: amount raised ValueError")
    assert result_data(result)["left_out"] == result.left_out


async def test_map_complete_list_reports_nothing_missing(tmp_path: Path) -> None:
    assert (await came_to(amounts, ["100"], tmp_path)).left_out == {}


def test_map_command_counts_missing_elements(capsys: pytest.CaptureFixture[str]) -> None:
    show_failed_elements({"bills[1]": "T003: bad", "bills[4]": "T003: worse", "pages[0]/words[2]": "T007: odd"})
    told = " ".join(capsys.readouterr().out.split())
    assert "bills: 2 elements failed, so the list lacks them: T003: bad" in told
    assert "pages[0]/words: 1 element failed, so the list lacks it: T007: odd" in told


class Counted(str):
    """A path that counts comparisons with the start of another path."""

    asked: ClassVar[int] = 0

    def startswith(self, *args: Any) -> bool:
        Counted.asked += 1
        return super().startswith(*args)


def test_map_thousand_failures_reported_in_linear_time() -> None:
    failed = FailedOutcome("T003", "no")
    events = [NodeFinished(seq=at, at=0.0, node=Counted(f"xs[{at}]"), outcome=failed) for at in range(1000)]
    whole = [
        NodeFinished(seq=1000, at=0.0, node="ys[0]", outcome=failed),
        NodeFinished(seq=1001, at=0.0, node="ys", outcome=failed),
    ]
    result: Result[Any] = Result("r", "done", ValueOutcome([]), events=[*events, *whole])
    assert [*result.left_out] == [f"xs[{at}]" for at in range(1000)]
    assert Counted.asked <= 1000


@workflow
def whole(texts: list[str]) -> list[float]:
    """Reads all amounts, or none."""
    return map_(lambda text: half(amount=amount(text=text)), texts, at_least="all")


async def test_map_requiring_all_fails_naming_missing(tmp_path: Path) -> None:
    result = await came_to(whole, ["100", "2,000", "5"], tmp_path)
    assert (result.status, result.left_out) == ("failed", {})
    assert (result.error.code, result.error.node) == ("E034", "mapped")
    assert "mapped[1] failed (T003: amount raised ValueError" in result.error.message
    assert (await came_to(whole, ["100", "5"], tmp_path)).value == [50.0, 2.5]


async def test_map_fork_reuses_finished_elements(tmp_path: Path) -> None:
    """The second word fails once: the fork runs that element and the nodes after it."""
    asked: list[str] = []

    @tool(effect="keyed", version="1")
    def read(text: str, *, idempotency_key: str = "") -> str:
        """Reads a text; the first time `b` is too much."""
        asked.append(text)
        if text == "b" and asked.count("b") == 1:
            raise ValueError("not now")
        return text

    @workflow
    def all_read(texts: list[str]) -> list[str]:
        """Reads one text after the other."""
        return map_(lambda text: read.options(retry=1)(text=text), texts, at_least="all", concurrency=1)

    async with Orchestra.open(Settings.load({"journal": str(tmp_path / "runs.db")}), fleet="none") as orchestra:
        failed = await (await orchestra.start(all_read, texts=["a", "b", "c"])).wait()
        assert (failed.status, asked) == ("failed", ["a", "b"])
        fork = await orchestra.fork(failed.run)
        assert (await fork.run.wait()).value == ["a", "b", "c"]
    assert asked == ["a", "b", "b", "c"]
