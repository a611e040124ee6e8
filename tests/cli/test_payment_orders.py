"""Random sequences of commands, kills and concurrency: no row is paid twice, and each row gets a result."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.paying import BATCH, Starter, results, rows, shop, start
from tests.cli.processes import PATIENCE
from tests.cli.shell import Shell

__all__ = ["shop", "start"]
pytestmark = pytest.mark.slow

ITEMS = ("a", "bad", "unsent", "b", "bad unsent")
COMMANDS = {
    "batch": (*BATCH, "-c", "2"),
    "again": (*BATCH, "-c", "2", "--retry-failed"),
    "fork": ("runs", "fork", "--failed"),
    "resume": ("runs", "resume", "--all"),
    "gc": ("runs", "gc", "--older", "0d", "--yes"),
}
PLACES = ("ready", "paid", "mail")


class House:
    """A project whose servers start and stop, and whose processes are killed."""

    def __init__(self, shop: Shell, start: Starter, move: Callable[[str], None]) -> None:
        self._shop, self._start, self._move = shop, start, move
        self._moves = 0

    def weather(self, chance: random.Random) -> None:
        for name in ("up", "half up"):
            Path(name).touch() if chance.random() < 0.4 else Path(name).unlink(missing_ok=True)

    def killed(self, command: str, place: str) -> None:
        """Is killed when it reaches this place."""
        Path(f"die {place}").touch()
        self._start(*COMMANDS[command]).communicate(timeout=PATIENCE)
        Path(f"die {place}").unlink(missing_ok=True)

    def at_once(self, *commands: str) -> None:
        for process in [self._start(*COMMANDS[command]) for command in commands]:
            process.communicate(timeout=PATIENCE)

    def given(self, command: str) -> None:
        self._shop(*COMMANDS[command])

    def moved(self) -> None:
        """Moves everything to another journal."""
        if runs := [run["run"] for run in self._shop("runs", "list", "-n", "1000", "--json").json]:
            self._shop("runs", "export", *runs, "-o", "runs.jsonl")
            self._moves += 1
            self._move(f"moved{self._moves}.db")
            assert self._shop("runs", "import", "runs.jsonl").code == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_no_row_is_paid_twice(shop: Shell, start: Starter, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chance = random.Random(seed)
    house = House(shop, start, lambda name: monkeypatch.setenv("ORCHESTRA_JOURNAL", name))
    rows(*ITEMS)
    told: list[str] = []
    for _ in range(10):
        house.weather(chance)
        said = chance.choice(["moved", "killed", "killed", "at once", *COMMANDS])
        match said:
            case "moved":
                house.moved()
            case "killed":
                command, place = chance.choice(["batch", "batch", "again", "fork", "resume"]), chance.choice(PLACES)
                said = f"{command} killed at {place}"
                house.killed(command, place)
            case "at once":
                two = chance.choices(["again", "fork", "batch", "resume"], k=2)
                said = " and ".join(two)
                house.at_once(*two)
            case command:
                house.given(command)
        told.append(f"{said} {sorted(path.name for path in Path().glob('*up'))}")
        assert twice() == [], told
    Path("up").touch()
    for command in ("resume", "batch", "again"):
        house.given(command)
    assert twice() == [], told
    assert [one["id"] for one in results()] == list(ITEMS), told


def twice() -> list[str]:
    """The items paid more than once."""
    items = Path("paid.txt").read_text().splitlines() if Path("paid.txt").exists() else []
    return [item for item, many in Counter(items).items() if many > 1]
