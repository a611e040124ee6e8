"""The shipped specialists on public data: each through its card, beside the best floor without a model and its goal.

    python -m bench.agents --data FOLDER [--rows 400] [--seed 0] [AGENT ...]

FOLDER has one folder a set, with `train.jsonl` (for floors) and `dev.jsonl`, rows `{"id", "input", "expected"}`. `--rows` draws a sample by
the seed, 0 takes all. Every figure has a 95 % interval. Needs the fleet for agents that are language models, and starts it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from orchestra.learn.questions import FILE, read_evaluation

ROOT = Path(__file__).resolve().parents[1]
SETS = {"reader": "xquad_en", "extractor": "restaurant8k", "banking_intent": "banking77", "assistant_intent": "clinc150"}


def measured(agent: str, data: Path, rows: int, seed: int) -> dict[str, Any]:
    """What `orchestra learn evaluate` says of an agent."""
    command = [sys.executable, "-m", "orchestra.cli", "learn", "evaluate", agent, "--json", "--rows", str(rows), "--seed", str(seed)]
    files = ["--data", str(data / SETS[agent] / "dev.jsonl"), "--train", str(data / SETS[agent] / "train.jsonl")]
    done = subprocess.run([*command, *files], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def lines(agent: str, report: dict[str, Any]) -> list[str]:
    """The lines of an agent: one a metric."""
    goals = read_evaluation(ROOT / "agents" / agent / FILE).goals
    arms = {arm["arm"]: arm["metrics"] for arm in report["arms"]}
    own, shown = arms["as it is"], []
    for name, figure in own.items():
        rivals = [metrics[name]["value"] for arm, metrics in arms.items() if arm.startswith("floor") and metrics[name]]
        floor = f"{max(rivals):.3f}" if rivals and name in goals else ""
        base = arms.get("its untuned base", {}).get(name)
        value = f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
        goal = f"{goals[name]:g}{'' if figure['value'] >= goals[name] else ', missed'}" if name in goals else ""
        untuned = f"{base['value']:.3f}" if base else ""
        shown.append(f"| {agent} | {report['rows']:,} | {name} | {floor} | {untuned} | {value} | {goal} |")
    return shown


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agents", nargs="*", choices=[*SETS, []], help="all, where none is named")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print("| agent | rows | measure | best floor | untuned base | the agent | goal |\n|---|---|---|---|---|---|---|")
    for agent in given.agents or SETS:
        print("\n".join(lines(agent, measured(agent, given.data, given.rows, given.seed))), flush=True)


if __name__ == "__main__":
    main()
