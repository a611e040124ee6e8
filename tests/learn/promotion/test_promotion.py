"""`orchestra learn promote` and `rollback`: significantly better candidates are promoted, and one command undoes it; on
simulated workers.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import array_errors, load_arrays, pack_arrays
from orchestra.agents.inference.linear import LinearClassifier
from orchestra.agents.inference.text_classifier import TextClassifierConfig
from orchestra.core.protocols import CallRequest
from orchestra.learn.evaluation.bootstrap import paired_difference
from orchestra.learn.evaluation.metrics import Case, MetricConfig, build_metric
from orchestra.learn.promotion.promotion import (
    FAMILY_ERROR_RATE,
    RECORD_FILES,
    AdapterStore,
    PromotionRecord,
    last_promotion,
    significance_level,
    weights_digest,
)
from tests.cli.shell import Said, Shell
from tests.cli.stage import AGENT, TEXT, Simulated, furnish

pytestmark = pytest.mark.slow

AGENTS = Path(__file__).resolve().parents[3] / "agents"
MEASURED = "metrics: {EM: {of: exact, field: answer}}\n"


def answer(call: CallRequest) -> Any:
    """The candidate answers 9 of 10 rows, the agent one of 2."""
    number = int(call.inputs["question"])
    knows = number % 10 if call.name == "answerer_candidate" else number % 2
    return {"answer": "1889" if knows else "in", "quote": "in 1889"}


def adapter(folder: Path, content: str) -> Path:
    """An adapter of one safetensors file without tensors; `content` distinguishes it."""
    folder.mkdir(parents=True)
    header = json.dumps({"__metadata__": {"made": content}}).encode()
    (folder / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    return folder


def weights() -> str:
    path = Path("agents/answerer/adapter/adapter_model.safetensors")
    return json.loads(path.read_bytes()[8:])["__metadata__"]["made"] if path.exists() else ""


@pytest.fixture
def shell(shell: Shell) -> Shell:
    furnish()
    lines = [
        {"id": f"r{n}", "input": {"question": str(n), "context": TEXT}, "expected": {"answer": "1889"}}
        for n in range(40)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("agents/answerer/evaluation.yaml").write_text(MEASURED)
    shell.opener = Simulated(answer)
    adapter(Path("new/adapter"), "new")
    return shell


def raises(kind: type[BaseException], call: Callable[[], object]) -> bool:
    try:
        call()
    except kind:
        return True
    return False


def promote(shell: Shell, *more: str, candidate: str = "new/adapter") -> Said:
    return shell("learn", "promote", "answerer", candidate, "--data", "rows.jsonl", *more)


def test_promote_better_candidate_and_roll_back(shell: Shell) -> None:
    said = promote(shell)
    assert said.code == 0, said.err
    assert "significantly better: EM +0.400" in said.out
    assert weights() == "new"
    assert "adapter: adapter\n" in Path("agents/answerer/agent.yaml").read_text()
    adapter(Path("newer/adapter"), "newer")
    assert promote(shell, "--force", candidate="newer/adapter").code == 0
    assert weights() == "newer"
    assert shell("learn", "rollback", "answerer").code == 0
    assert weights() == "new"
    log = [json.loads(line) for line in Path("agents/answerer/promotions.jsonl").read_text().splitlines()]
    assert [line["verb"] for line in log] == ["promote", "promote", "rollback"]
    assert log[2]["new_digest"] == log[0]["new_digest"] == log[1]["previous_digest"]


def test_rollback_to_no_adapter_removes_card_line(shell: Shell) -> None:
    before = Path("agents/answerer/agent.yaml").read_text()
    promote(shell)
    assert shell("learn", "rollback", "answerer", "--json").json["new_digest"] == ""
    assert Path("agents/answerer/agent.yaml").read_text() == before == AGENT
    assert weights() == ""


def test_rollback_restores_records(shell: Shell) -> None:
    promote(shell)
    Path("agents/answerer/adapter/manifest.json").write_text('{"base": "tiny"}')
    adapter(Path("newer/adapter"), "newer")
    promote(shell, "--force", candidate="newer/adapter")
    assert not Path("agents/answerer/adapter/manifest.json").exists()
    assert shell("learn", "rollback", "answerer").code == 0
    assert Path("agents/answerer/adapter/manifest.json").read_text() == '{"base": "tiny"}'


def test_promote_keeps_adapter_name_of_card(shell: Shell) -> None:
    card, own = Path("agents/answerer/agent.yaml"), Path("agents/answerer/v1/adapter_model.safetensors")
    card.write_text(AGENT + "adapter: v1\n")
    adapter(own.parent, "first")
    assert promote(shell, "--force").code == 0
    assert (b"new" in own.read_bytes(), card.read_text()) == (True, AGENT + "adapter: v1\n")
    assert shell("learn", "rollback", "answerer").code == 0
    assert (b"first" in own.read_bytes(), card.read_text()) == (True, AGENT + "adapter: v1\n")


def test_rollback_restores_fleet_adapter_name(shell: Shell) -> None:
    card = Path("agents/answerer/agent.yaml")
    card.write_text(AGENT + "adapter: house_style\n")
    assert promote(shell, "--force").code == 0
    assert card.read_text() == AGENT + "adapter: adapter\n"
    assert shell("learn", "rollback", "answerer").code == 0
    assert (card.read_text(), weights()) == (AGENT + "adapter: house_style\n", "")
    assert shell("learn", "rollback", "answerer").err.startswith("N303: every promotion of answerer is rolled back")
    assert (card.read_text(), weights()) == (AGENT + "adapter: house_style\n", "")


def test_rollback_twice_goes_further_back(shell: Shell) -> None:
    for name in ("one", "two", "three"):
        adapter(Path(name), name)
        assert promote(shell, "--force", candidate=name).code == 0
    for had in ("two", "one", ""):
        assert shell("learn", "rollback", "answerer").code == 0
        assert weights() == had
    assert shell("learn", "rollback", "answerer").err.startswith("N303")
    assert promote(shell, "--force", candidate="two").code == 0
    assert shell("learn", "rollback", "answerer").code == 0
    assert weights() == ""


def test_rollback_of_old_style_rollback() -> None:
    """Earlier versions restored what had just been rolled back."""
    one, back, again = (
        PromotionRecord(at="", verb=v, new_digest=t, previous_digest=g)
        for v, t, g in (("promote", "b", "a"), ("rollback", "a", "b"), ("rollback", "b", "a"))
    )
    assert last_promotion([one]) == one
    assert last_promotion([one, back]) is None
    assert last_promotion([one, back, again]) == again


def intents(folder: Path, *, factor: float = 1) -> Path:
    """An agent with two files of arrays and two model files; the weights are multiplied by a factor."""
    shutil.copytree(AGENTS / "banking_intent", folder)
    card, whole = Card.load(folder), json.loads((folder / "model.json").read_bytes())
    linear = json.loads((folder / "linear.json").read_bytes())
    for layout in (linear, whole):
        read = load_arrays(card, layout["arrays"], layout["sha256"])
        few = {name: array for name, array in read.items() if not name.startswith(("down.", "up."))}  # makes it large
        arrays = {
            name: array * array.dtype.type(factor) if array.dtype.kind == "f" else array for name, array in few.items()
        }
        told, data = pack_arrays(layout, arrays)
        (folder / layout["arrays"]).write_bytes(data)
        if layout is linear:
            (folder / "linear.json").write_text(told)
            whole["linear"]["sha256"] = hashlib.sha256(told.encode()).hexdigest()
        else:
            (folder / "model.json").write_text(told)
    return folder


def in_use(folder: Path) -> tuple[str, str]:
    """Returns the digests of the arrays that an agent in this folder would use. Raises `InputError` A011 if files do
    not fit.
    """
    card = Card.load(folder)
    with array_errors(card):
        layout, _ = TextClassifierConfig.read(card)
    assert layout.linear is not None
    return layout.sha256, LinearClassifier.load(card, layout.linear.file, layout.linear.sha256).config.sha256


def test_promote_killed_leaves_old_or_new_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = intents(tmp_path / "new", factor=0.5)
    old = intents(tmp_path / "old")
    was, will_be, found = in_use(old), in_use(new), []
    assert len({*was, *will_be}) == 4
    for step in range(99):
        folder = shutil.copytree(old, tmp_path / f"agent{step}")
        shelf = AdapterStore.for_agent(Card.load(folder), tmp_path / f"shelf{step}")
        line = PromotionRecord(
            at="now", verb="promote", new_digest=weights_digest(shelf.card, new), previous_digest=shelf.current_digest
        )
        left = iter(range(step))
        real = os.replace

        def killed(source: Any, target: Any, left: Iterator[int] = left, real: Any = real) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            real(source, target)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", killed)
            whole = not raises(KeyboardInterrupt, partial(shelf.promote, new, line))
        found.append(in_use(folder))
        assert found[-1] in (was, will_be)
        if shelf.promotions():
            assert shelf.roll_back("later").new_digest == line.previous_digest
            assert in_use(folder) == was
        shelf.promote(new, line)
        assert in_use(folder) == will_be
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
        if whole:
            break
    assert len(found) > 8
    assert found == sorted(found, key=[was, will_be].index), "the new ones come with one step"


def desks(tmp_path: Path) -> list[Path]:
    """The folder of an agent, and that of a candidate."""
    folders = [tmp_path / name for name in ("desk", "candidate")]
    for folder in folders:
        folder.mkdir()
        digest = hashlib.sha256(folder.name.encode()).hexdigest()
        (folder / "model.json").write_text(json.dumps({"arrays": "weights.npz", "sha256": digest}))
        (folder / "weights.npz").write_text(folder.name)
    (folders[0] / "agent.yaml").write_text("name: desk\nkind: sklearn\ninput: {text: str}\noutput: {intent: str}\n")
    return folders


def test_promote_keeps_files_with_similar_names(tmp_path: Path) -> None:
    folder, candidate = desks(tmp_path)
    others = [".model.json.swp", ".weights.npz.dvc", ".model.json.license", ".other.json.0123456789abcdef"]
    for name in (*others, ".model.json.0123456789abcdef", "..weights.npz.0123456789abcdef.fedcba9876543210"):
        (folder / name).write_text("mine")
    (folder / ".model.json.d").mkdir()
    shelf = AdapterStore.for_agent(Card.load(folder), tmp_path / "shelf")
    shelf.promote(
        candidate,
        PromotionRecord(
            at="now",
            verb="promote",
            new_digest=weights_digest(shelf.card, candidate),
            previous_digest=shelf.current_digest,
        ),
    )
    assert (folder / "weights.npz").read_text() == "candidate"
    assert sorted(path.name for path in folder.glob(".*")) == sorted([*others, ".model.json.d"])


def test_promote_moves_records_with_weights(tmp_path: Path) -> None:
    folder, candidate = desks(tmp_path)
    for name in RECORD_FILES:
        (candidate / name).write_text("the candidate's")
    shelf = AdapterStore.for_agent(Card.load(folder), tmp_path / "shelf")
    shelf.promote(
        candidate,
        PromotionRecord(
            at="now",
            verb="promote",
            new_digest=weights_digest(shelf.card, candidate),
            previous_digest=shelf.current_digest,
        ),
    )
    assert {(folder / name).read_text() for name in RECORD_FILES} == {"the candidate's"}
    shelf.roll_back("later")
    assert not any((folder / name).exists() for name in RECORD_FILES), "what is there now was made without them"


def test_rollback_interrupted_promotion_of_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = desks(tmp_path)
    shelf = AdapterStore.for_agent(Card.load(folders[0]), tmp_path / "shelf")
    before = shelf.current_digest
    line = PromotionRecord(
        at="now", verb="promote", new_digest=weights_digest(shelf.card, folders[1]), previous_digest=before
    )
    real = os.replace

    def broken(source: Any, target: Any) -> None:
        if Path(target) == folders[0] / "model.json":
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", broken)
        with pytest.raises(KeyboardInterrupt):
            shelf.promote(folders[1], line)
    assert (folders[0] / "weights.npz").read_text() == "desk"
    assert shelf.roll_back("later").new_digest == before
    assert (folders[0] / "weights.npz").read_text() == "desk"
    assert shelf.current_digest == before


def test_promote_insignificant_candidate_rejected(shell: Shell) -> None:
    said = promote(shell, "--rows", "3")
    assert said.code == 1
    assert "not significantly better" in said.out
    assert weights() == ""
    (line,) = [json.loads(line) for line in Path("agents/answerer/promotions.jsonl").read_text().splitlines()]
    assert (line["verb"], line["tries"], line["previous_digest"]) == ("try", 1, "")
    assert shell("learn", "rollback", "answerer").err.startswith("N303: answerer was never promoted")


def test_promote_level_falls_with_candidates_on_rows(shell: Shell) -> None:
    assert "candidate 1 on these rows needs less than 0.025" in promote(shell, "--rows", "3").out
    second = promote(shell, "--rows", "4", "--seed", "1", "--json").json
    assert (second["tries"], second["level"], second["promoted"]) == (2, pytest.approx(0.05 / 6), False)
    assert "candidate 3 on these rows needs less than 0.00417" in promote(shell).out
    assert weights() == "new"
    for name in ("newer", "newest"):
        adapter(Path(name, "adapter"), name)
    text = Path("rows.jsonl").read_text()
    Path("rows.jsonl").write_text("\n" + text.replace('"r0"', '"other"'))
    assert "candidate 4 on these rows" in promote(shell, candidate="newer/adapter").out, "an empty line, and another id"
    Path("rows.jsonl").write_text(text.replace('"question": "', '"question": "5'))
    assert "candidate 1 on these rows" in promote(shell, candidate="newest/adapter").out
    log = [json.loads(line) for line in Path("agents/answerer/promotions.jsonl").read_text().splitlines()]
    assert [line["verb"] for line in log] == ["try", "try", "promote", "promote", "promote"]
    for had in ("newer", "new", ""):
        assert shell("learn", "rollback", "answerer").code == 0
        assert weights() == had
    assert shell("learn", "rollback", "answerer").err.startswith("N303: every promotion")


def test_promote_repeated_candidate_counts_once(shell: Shell) -> None:
    known = {"answerer": set[str](), "answerer_candidate": set("012345")}
    shell.opener = Simulated(
        lambda call: {"answer": "1889" if call.inputs["question"] in known[call.name] else "in", "quote": "in 1889"}
    )
    assert "candidate 1 on these rows needs less than 0.025" in promote(shell).out
    assert (weights(), shell("learn", "rollback", "answerer").code) == ("new", 0)
    adapter(Path("worse/adapter"), "worse")
    known["answerer_candidate"] = set("0123")
    for _ in range(2):
        assert "not significantly better" in (said := promote(shell, candidate="worse/adapter")).out
        assert "candidate 2 on these rows" in said.out, "who comes to the same has no other chance to be lucky"
    known["answerer_candidate"] = set("0123456")
    assert "candidate 1 on these rows" in promote(shell).out, "it was taken before, and sent back"
    assert (weights(), shell("learn", "rollback", "answerer").code) == ("new", 0)
    known["answerer_candidate"] = set("01234")
    assert "candidate 3 on these rows" in promote(shell, candidate="worse/adapter").out, "other answers"


def test_promote_ten_equal_candidates_keep_family_error_rate() -> None:
    exact, chances = build_metric("EM", MetricConfig(of="exact", field="answer")), random.Random(2)
    taken, once = 0, 0
    for _ in range(300):
        old = answers(chances)
        found = [paired_difference(exact, old, answers(chances), resamples=2).p_value for _ in range(10)]
        taken += any(chance < significance_level(tries) for tries, chance in enumerate(found, 1))
        once += any(chance < FAMILY_ERROR_RATE for chance in found)
    assert taken <= 0.05 * 300
    assert once > 0.15 * 300  # with the level of a single candidate


def answers(chances: random.Random) -> list[Case]:
    """A hundred and fifty, six of ten correct."""
    return [Case({"answer": "a"}, {"answer": "a" if chances.random() < 0.6 else "b"}) for _ in range(150)]


def test_promote_invalid_adapter_refused_first(shell: Shell) -> None:
    Path("new/adapter/adapter_model.bin").write_bytes(b"")
    assert promote(shell).err.startswith("F007")
    Path("new/adapter/adapter_model.bin").unlink()
    with Path("new/adapter/adapter_model.safetensors").open("ab") as file:
        file.truncate(11_000_000)
    assert promote(shell).err.startswith("N301")
    assert promote(shell, candidate="nowhere").err.startswith("N301")
    assert isinstance(shell.opener, Simulated)
    assert not shell.opener.opened


def test_promote_current_adapter_refused(shell: Shell) -> None:
    promote(shell)
    assert promote(shell, "--force").err.startswith("N304")


def test_rollback_without_promotion_refused(shell: Shell) -> None:
    assert shell("learn", "rollback", "answerer").err.startswith("N303")
