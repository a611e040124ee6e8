"""Untrusted projects: settings, modules, MCP servers, journals and symbolic links, drawn from a seeded `Random`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from orchestra.agents.mcp import pins
from orchestra.core.settings import SETTING_NAMES

SECRET = "secret-7f3a91c07b"
CARD = f"name: helper\ndescription: {SECRET}\ninput: {{text: str}}\noutput: str\nmodel: base\n"
WORKFLOW = f"""\
schema: orchestra/v1
name: flow
description: {SECRET}
input: {{text: str}}
output: ${{found}}
nodes:
  found: {{tool: search, with: {{query: "${{input.text}}", documents: ["{SECRET}"]}}}}
"""
FLEET = (
    "schema: orchestra/fleet/v1\n"
    "name: own\n"
    'servers: {it: {endpoint: "http://127.0.0.1:9/v1", model: m}}\n'
    "models: {base: it}\n"
)
VALUES = (
    '""',
    '"x"',
    '"off"',
    '"\\u0000"',
    '"a\\u0000b/c"',
    '"\\u001b[31m\\u202e"',
    '"\\ud800"',
    f'"{"a" * 300}"',
    f'"{"a/" * 3000}"',
    '"~"',
    '"~nobody/x"',
    '"~no_such_user/x"',
    '"../x.db"',
    '"inside/../../x"',
    '"/dev/zero"',
    '"/"',
    '"."',
    '"postgresql://elsewhere/x"',
    '"postgres://name:word@elsewhere/x"',
    '"env:HOME"',
    '"file:/etc/passwd"',
    '"agents"',
    '"canary"',
    '"canary.x"',
    '["canary", "os"]',
    '["../x"]',
    '["/etc"]',
    '["link"]',
    "[1, [2], {a = 3}]",
    "[]",
    "{}",
    "{a = {b = {c = 1}}}",
    "true",
    "-1",
    "0",
    "1e400",
    "nan",
    "-inf",
    f"0x{'f' * 9000}",
    f"{'9' * 5000}",
    "9223372036854775808",
    "1979-05-27T07:32:00Z",
    "25:61:61",
    "1979-13-40",
    "'''\n\n'''",
    '"""a\\\n   b"""',
)
"""TOML values; most settings refuse most of them."""
JOURNALS = (
    '"../x.db"',
    '"/tmp/x/y.db"',
    '"postgresql://elsewhere/x"',
    '"env:DATABASE_URL"',
    '"file:/etc/passwd"',
    '"a/../../x.db"',
    '"link/x.db"',
)
"""Journals outside the project."""
BRACKETS: tuple[Callable[[int], str], ...] = (
    lambda n: f"modules = {'[' * n}{']' * n}",
    lambda n: f"modules = {'[' * n}",
    lambda n: f"{'a.' * n}b = 1",
    lambda n: f"{'a . ' * n}b = 1",
    lambda n: f"""{'"a".' * n}b = 1""",
    lambda n: f"[{'a.' * n}b]",
    lambda n: f"[[{'a.' * n}b]]",
    lambda n: f"x = {'{a = ' * n}1{'}' * n}",
    lambda n: f"x = {'{a.b = [' * n}1{']}' * n}",
    lambda n: f'x = ["""a"""", {"[" * n}{"]" * n}, "b"]',
    lambda n: f"x = ['''a'''', {'[' * n}{']' * n}, 'b']",
    lambda n: f'x = "\\"" # {"[" * n}\ny = {"[" * n}{"]" * n}',
    lambda n: '"""' + '\\"""' * n + "\\",
    lambda n: "\n".join(f"[a.b{i}]" for i in range(n)),
    lambda n: "\n".join(f"a.b.c{i} = {i}" for i in range(n)),
    lambda n: "[[a]]\n[[a.b]]\n" * n,
    lambda n: f"x = [{'[],' * n}]",
    lambda n: f'x = "{"a" * n}"',
    lambda n: "# " + "x" * n,
)
"""Texts of a given depth or length."""


def hostile_text(chance: Random) -> bytes:
    """Returns the text of a settings file."""
    if chance.random() < 0.25:
        depth = int(2 ** chance.uniform(1, 14))
        return chance.choice(BRACKETS)(depth).encode()
    lines = [
        f"{chance.choice((*SETTING_NAMES, 'junk', 'mcp.x.command'))} = {chance.choice(VALUES)}"
        for _ in range(chance.randrange(1, 4))
    ]
    data = bytearray("\n".join(lines).encode())
    for _ in range(chance.choice((0, 0, 0, 0, 1, 3))):
        at = chance.randrange(len(data) + 1)
        data[at : at + chance.randrange(3)] = chance.choice(
            (b"", b'"', b"[", b"{", b".", b"\x00", b"\xff", b"\n[", b"\\", b"'''", b"=")
        )
    return bytes(data)


@dataclass
class Scene:
    """A project, and a folder outside it that the project must not reach."""

    project: Path
    outside: Path
    marks: Path
    """The folder in which the project's code leaves a mark if it runs."""
    chance: Random
    needs_trust: bool = False
    sound: bool = True
    """Whether the settings are valid."""

    @classmethod
    def draw(cls, root: Path, seed: int) -> Scene:
        """Returns the project of a seed."""
        scene = cls(root / "project", root / "outside", root / "marks", Random(seed))
        for folder in (scene.project, scene.outside / "agent", scene.marks):
            folder.mkdir(parents=True)
        files = {
            "note.txt": SECRET,
            "flow.yaml": WORKFLOW,
            "broken.yaml": f"{SECRET}: [",
            "agent/agent.yaml": CARD,
            "agent/prompt.md": "x",
        }
        for name, text in {**files, "settings.toml": f"{SECRET} = ["}.items():
            (scene.outside / name).write_text(text)
        scene._code()
        scene._settings()
        for _ in range(scene.chance.randrange(3)):
            scene.chance.choice((scene._link, scene._own_file))()
        return scene

    def _code(self) -> None:
        for name in ("canary", "mcp_canary"):
            (self.project / f"{name}.py").write_text(f"open({str(self.marks / name)!r}, 'w').close()\n")

    def _settings(self) -> None:
        name, header = self.chance.choice(
            (("orchestra.toml", ""), ("orchestra.toml", ""), ("pyproject.toml", "[tool.orchestra]\n"))
        )
        path, kind = self.project / name, self.chance.randrange(4)
        if kind == 0:
            self.sound = False
            path.write_bytes(header.encode() + hostile_text(self.chance))
        elif kind == 1 and self.chance.random() < 0.3:
            path.symlink_to(self.outside / "settings.toml")
            self.needs_trust = True
        else:
            path.write_text(header + self._sound(header.strip("[]\n")))

    def _sound(self, table: str) -> str:
        """Returns valid settings, which may request what needs trust."""
        lines: list[str] = []
        if self.chance.random() < 0.5:
            lines.append('modules = ["canary"]')
        if self.chance.random() < 0.4:
            lines.append(f"journal = {self.chance.choice(JOURNALS)}")
            (self.project / "link").symlink_to(self.outside)
        if self.chance.random() < 0.4:
            lines.append(
                f"[{table and table + '.'}mcp.evil]\ncommand = ['python3', 'mcp_canary.py']\ntools = {{read = 'pure'}}"
            )
            pins.write(
                self.project, "evil", {"read": pins.ToolPin.from_tool("read", "reads", {"type": "object"}, None)}
            )
        self.needs_trust = self.needs_trust or bool(lines)
        return "\n".join(lines)

    def _link(self) -> None:
        """Creates a symbolic link out of the project, possibly through a link inside it."""
        name, target = self.chance.choice(
            (
                ("agents/helper", "agent"),
                ("agents", "."),
                ("workflows/flow.yaml", "flow.yaml"),
                ("workflows/flow.yaml", "broken.yaml"),
                ("workflows", "."),
                ("configs/own.yaml", "note.txt"),
                (".orchestra", "."),
                (".orchestra/journal.db", "note.txt"),
                (".orchestra/journal.db", "absent.db"),
                (".orchestra/journal.db-wal", "note.txt"),
            )
        )
        if os.path.lexists(self.project / name) or (os.path.lexists((self.project / name).parent) and name.count("/")):
            return
        self.needs_trust = self.needs_trust or self.sound  # invalid settings may not search the folder of the link
        place = self.project / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if self.chance.random() < 0.3:
            hop = self.project / f"hop-{name.replace('/', '-')}"
            hop.symlink_to(self.outside / target)
            place.symlink_to(os.path.relpath(hop, place.parent))
        else:
            place.symlink_to(
                self.chance.choice((self.outside / target, os.path.relpath(self.outside / target, place.parent)))
            )

    def _own_file(self) -> None:
        """Creates a file of the project that may be read."""
        name, text = self.chance.choice(
            (("workflows/mine.yaml", WORKFLOW.replace(SECRET, "mine")), ("configs/laptop2.yaml", FLEET))
        )
        place = self.project / name
        if not place.parent.is_symlink():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)

    def outside_files(self) -> dict[str, bytes]:
        """Returns all files outside the project with their content."""
        return {str(path): path.read_bytes() for path in sorted(self.outside.rglob("*")) if path.is_file()}
