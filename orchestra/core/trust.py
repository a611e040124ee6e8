"""Trust in projects: which folders may run code, and what is refused for untrusted ones.

A project needs trust for what its settings execute or access: modules, MCP servers, a journal outside the folder, a
remote endpoint or collector of traces, and symbolic links that lead out of the folder. A person grants it with
`orchestra trust`. The record holds the folder and a digest of the settings, so that changed settings need trust again.
Records are files in `$XDG_STATE_HOME/orchestra/trust`, one per folder.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from orchestra.core import xdg
from orchestra.core.errors import InputError, OrchestraError

TRUST_VARIABLE = "ORCHESTRA_TRUST"
"""Environment variable that trusts every project, for CI and containers."""
MAX_ENTRIES = 20_000
"""Maximum number of files that are searched for links. A project with more needs trust."""
MAX_RECORD_BYTES = 64 << 10
RequirementKind: TypeAlias = Literal["modules", "mcp", "journal", "endpoint", "otlp", "link"]
TrustPolicy: TypeAlias = Literal["always", "recorded", "never"]
"""Which projects are trusted: all, those with a record (or `ORCHESTRA_TRUST=1`), or none."""


@dataclass(frozen=True, slots=True)
class TrustRequirement:
    """An action that only a trusted project may do."""

    kind: RequirementKind
    text: str
    path: Path | None = None
    """The link, for kind `link`."""

    def __str__(self) -> str:
        return self.text


class UntrustedError(InputError):
    """C060: the project is not trusted."""

    guard: ProjectGuard

    @classmethod
    def of(cls, guard: ProjectGuard, needs: Iterable[TrustRequirement]) -> UntrustedError:
        """Returns the error for these requirements."""
        reason = f"its settings would {'; '.join(map(str, needs))}"
        error = cls("C060", f"the project {guard.folder} is not trusted", why=reason, hint=guard.hint)
        error.guard = guard
        return error


@dataclass(frozen=True, slots=True)
class ProjectGuard:
    """The restrictions of a project that is not trusted."""

    folder: Path
    """The project's folder; the current folder without a project."""
    digest: str
    """Digest of the settings and the links. A record of trust is bound to it."""
    requirements: tuple[TrustRequirement, ...]

    @property
    def hint(self) -> str:
        """Returns how to trust the project."""
        return (
            f"read its files, then: orchestra trust {shlex.quote(str(self.folder))}; in CI: export {TRUST_VARIABLE}=1"
        )

    def error(self, *kinds: RequirementKind) -> UntrustedError | None:
        """Returns the error of the project's requirements of these kinds, or of any kind; None if there are none."""
        needs = [need for need in self.requirements if not kinds or need.kind in kinds]
        return UntrustedError.of(self, needs) if needs else None

    def check_path(self, path: Path) -> None:
        """Checks that a file of the project, or a file in the folder of its name, does not lead out of the project.

        Raises:
            InputError: C061.
        """
        place, root = Path(os.path.abspath(path)), os.path.realpath(self.folder)
        is_in_folder = place.is_relative_to(self.folder) or place.is_relative_to(root)
        if is_in_folder and not is_inside(place, root):
            raise self._link_error(place)
        real = Path(os.path.realpath(place))
        for need in self.requirements:
            if need.path is not None and (
                need.path.is_relative_to(real) or need.path.is_relative_to(real.with_suffix(""))
            ):
                raise self._link_error(need.path)

    def _link_error(self, path: Path) -> InputError:
        return InputError(
            "C061", f"{path} is a symbolic link that leads out of {self.folder}, which is not trusted", hint=self.hint
        )


def is_inside(path: str | Path, root: str | Path) -> bool:
    """Returns whether a path is inside a folder after all links are resolved; `root` is a real path."""
    return Path(os.path.realpath(path)).is_relative_to(root)


def is_trusted_by_environment(environ: Mapping[str, str]) -> bool:
    """Returns whether the environment trusts every project.

    Raises:
        InputError: C002 for a value other than `1` and `0`.
    """
    if (value := environ.get(TRUST_VARIABLE, "")) not in ("", "0", "1"):
        raise InputError(
            "C002",
            f"{TRUST_VARIABLE} cannot be {value!r}",
            hint=f"export {TRUST_VARIABLE}=1 trusts every project; 0 or an empty value does not",
        )
    return value == "1"


def trusts_every_project(policy: TrustPolicy, environ: Mapping[str, str]) -> bool:
    """Returns whether a policy trusts every project in this environment. Raises `InputError` C002."""
    return policy == "always" or (policy == "recorded" and is_trusted_by_environment(environ))


def create_guard(
    folder: Path, table: Mapping[str, Any], needs: Iterable[TrustRequirement], links: Iterable[TrustRequirement]
) -> ProjectGuard:
    """Creates the guard of a project from its settings, its requirements and its links."""
    outside_links = tuple(links)
    content = [
        table,
        sorted([str(link.path), _link_target(link.path)] for link in outside_links if link.path is not None),
        len(outside_links),
    ]
    data = json.dumps(content, sort_keys=True, default=str).encode()
    return ProjectGuard(folder, hashlib.sha256(data).hexdigest(), (*needs, *outside_links))


def find_requirements(
    root: Path,
    modules: Sequence[str],
    servers: Mapping[str, Sequence[str]],
    journal: Path | str,
    endpoint: str = "",
    otlp: str = "",
) -> list[TrustRequirement]:
    """Returns the modules, servers, paths and addresses in the settings of a project that need trust.

    `journal` is `off`, and `endpoint` and `otlp` are empty, if they were set outside of the project. Modules and
    servers always count, because the project's folder is searched first.
    """
    requirements = [TrustRequirement("modules", f"import the modules {', '.join(modules)}")] if modules else []
    requirements += [
        TrustRequirement("mcp", f"start the MCP server {name}: {shlex.join(command)}")
        for name, command in servers.items()
    ]
    if endpoint and not is_loopback(endpoint):
        requirements.append(TrustRequirement("endpoint", f"send data and your key to {endpoint}"))
    if otlp.startswith("http") and not is_loopback(otlp):
        requirements.append(TrustRequirement("otlp", f"send traces to {otlp}"))
    if journal == "off":
        return requirements
    if not isinstance(journal, Path) or not is_inside(journal, os.path.realpath(root)):
        requirements.append(TrustRequirement("journal", f"keep the journal at {journal}"))
    elif beside := next(_outside_siblings(journal, root), None):
        requirements.append(
            TrustRequirement("journal", f"keep the journal next to {beside}, a link to {_link_target(beside)}")
        )
    return requirements


def is_loopback(address: str) -> bool:
    """Returns whether a URL has an address of this machine. An invalid one has none.

    Of names only `localhost` counts: the resolver decides where `x.localhost` leads.
    """
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def find_outside_links(folder: Path, searched: Iterable[Path]) -> Iterator[TrustRequirement]:
    """Returns the symbolic links in folders of a project that lead out of it. Links to folders inside are followed."""
    root, visited_folders, remaining_entries = os.path.realpath(folder), set[str](), MAX_ENTRIES
    pending_folders: list[str] = []
    for place in searched:
        if not place.is_relative_to(folder):
            continue
        if not is_inside(place, root):
            yield _link_requirement(place, root)
        else:
            pending_folders.append(os.path.realpath(place))
    while pending_folders:
        if (current_folder := pending_folders.pop()) in visited_folders:
            continue
        visited_folders.add(current_folder)
        for entry in _list_entries(current_folder):
            if (remaining_entries := remaining_entries - 1) < 0:
                yield TrustRequirement(
                    "link", f"use more than {MAX_ENTRIES:,} files, which is too many to search for symbolic links"
                )
                return
            if not entry.is_symlink():
                pending_folders += [entry.path] if entry.is_dir(follow_symlinks=False) else []
            elif not is_inside(entry.path, root):
                yield _link_requirement(Path(entry.path), root)
            else:
                pending_folders.append(os.path.realpath(entry.path))


def _outside_siblings(path: Path, folder: Path) -> Iterator[Path]:
    """Returns the companion files of a database, such as its log, that lead out of the project."""
    root = os.path.realpath(folder)
    for entry in _list_entries(str(path.parent)):
        if entry.name.startswith(path.name) and entry.is_symlink() and not is_inside(entry.path, root):
            yield Path(entry.path)


def _list_entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:  # not a folder, or not readable: nothing in it is used
        return []


def _link_requirement(path: Path, root: str) -> TrustRequirement:
    display_path = path.relative_to(root) if path.is_relative_to(root) else path
    return TrustRequirement("link", f"follow the symbolic link {display_path} to {_link_target(path)}", path)


def _link_target(path: Path) -> str:
    return os.path.realpath(path)


@dataclass(frozen=True, slots=True)
class TrustRecord:
    """Trust granted by a person."""

    folder: str
    digest: str


@dataclass(frozen=True, slots=True)
class TrustStore:
    """The trust records of a user."""

    folder: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> TrustStore:
        """Returns the store of the user of this environment. Raises `InputError` C050 without a home directory."""
        return cls(xdg.base_folder(environ, "XDG_STATE_HOME", ".local/state", TRUST_VARIABLE) / "orchestra" / "trust")

    def find(self, folder: Path) -> TrustRecord | None:
        """Returns the record of a folder."""
        record = _read_record(self._record_path(folder))
        return record if record is not None and record.folder == os.path.realpath(folder) else None

    def add(self, guard: ProjectGuard) -> None:
        """Trusts a project in its current state. Raises `OrchestraError` C023 if the record cannot be written."""
        from orchestra.core.atomic_files import open_private_file

        path = self._record_path(guard.folder)
        data = json.dumps({"folder": os.path.realpath(guard.folder), "digest": guard.digest}).encode()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open_private_file(path) as file:
                file.write(data)
        except OSError as error:
            raise _write_error(path, error) from error

    def remove(self, folder: Path) -> None:
        """Removes trust. Raises `InputError` C062 if there is no record."""
        try:
            self._record_path(folder).unlink()
        except FileNotFoundError:
            raise InputError("C062", f"{folder} is not trusted", hint="orchestra trust --list") from None
        except OSError as error:
            raise _write_error(self._record_path(folder), error) from error

    def all(self) -> list[TrustRecord]:
        """Returns all records, sorted by folder."""
        trust_records = [
            record
            for entry in _list_entries(str(self.folder))
            if (record := _read_record(Path(entry.path))) is not None
        ]
        return sorted(trust_records, key=lambda record: record.folder)

    def _record_path(self, folder: Path) -> Path:
        return self.folder / f"{hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]}.json"


def is_recorded(guard: ProjectGuard, environ: Mapping[str, str]) -> bool:
    """Returns whether a person has trusted the project in its current state."""
    try:
        record = TrustStore.from_environment(environ).find(guard.folder)
    except InputError:  # without a home directory there are no records
        return False
    return record is not None and record.digest == guard.digest


def check_settings_file(path: Path, environ: Mapping[str, str]) -> None:
    """Checks that a settings file does not lead out of its folder, unless the folder is trusted. Errors quote its
    lines.

    Raises:
        InputError: C061.
    """
    guard = ProjectGuard(path.parent, "", ())
    if not is_inside(path, os.path.realpath(path.parent)) and not is_trusted_by_environment(environ):
        try:
            trust_record = TrustStore.from_environment(environ).find(path.parent)
        except InputError:
            trust_record = None
        if trust_record is None:
            guard.check_path(path)


def _read_record(path: Path) -> TrustRecord | None:
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(MAX_RECORD_BYTES))
        return TrustRecord(str(value["folder"]), str(value["digest"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # a damaged record grants no trust
        return None


def _write_error(path: Path, error: OSError) -> OrchestraError:
    return OrchestraError(
        "C023", f"{path} cannot be written: {error.strerror}", hint="set XDG_STATE_HOME to a folder that you may write"
    )
