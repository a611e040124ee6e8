"""Settings: values, their sources, and the folders and modules that they name.

Sources, strongest first: overrides (flags), `ORCHESTRA_*` variables, the project's file (`orchestra.toml`, or
`[tool.orchestra]` in `pyproject.toml`, of the nearest parent folder or the named folder), the user's file
(`$XDG_CONFIG_HOME/orchestra/config.toml`), `OPENAI_BASE_URL` and `OPENAI_MODEL`, variables of OpenTelemetry, defaults.
Code is imported only from modules named here and from entry points of the group `orchestra.modules`.

Settings files are TOML with limits of size and nesting, which are checked before parsing. `tomllib` recurses once per
nested array or table and takes quadratic time for a dotted key. The levels are therefore counted without parsing. A
file within the limits is parsed quickly.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import importlib.util
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, TypeAdapter, ValidationError

from orchestra.core import trust, xdg
from orchestra.core.errors import InputError, InputErrors, SourceLocation
from orchestra.core.labels import Label
from orchestra.core.resources import (
    RESOURCE_KINDS,
    ResourceKind,
    builtin_folder,
    is_resource,
    list_resources,
)
from orchestra.core.suggestions import closest_match
from orchestra.core.untrusted_text import escape_invisible, exception_text, shorten


class McpServer(BaseModel):
    """An MCP tool server: a program that speaks MCP on its standard streams. The command is not run by a shell."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    command: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")], ...], Field(min_length=1)
    ]
    environment: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$", max_length=128)], ...] = ()
    """Names of environment variables for the server, besides PATH, HOME and LANG."""
    timeout: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 30.0
    """Time limit of a call in seconds."""
    label: Label = "internal"
    """The strictest label of data that the server may receive. A server may send data on."""
    tools: Mapping[
        Annotated[str, Field(pattern=r"^[A-Za-z_]([A-Za-z0-9_./-]{0,126}[A-Za-z0-9_])?$")],
        Literal["pure", "idempotent", "once"],
    ]
    """Allowed tools and their effects. Other tools of the server are not available."""


MAX_BYTES = 64 << 10
"""Maximum size of a settings file in bytes."""
MAX_LEVELS = 16
"""Maximum nesting of a settings file: the parts of a table's name and of a dotted key, plus nested arrays and tables.
"""
MAX_INTEGER = 1 << 63
"""TOML guarantees 64-bit integers; Python refuses to print integers of more than 4,300 digits."""
SECTION = "tool.orchestra"
"""The table of `pyproject.toml` that holds settings."""
_TOKENS = re.compile(
    r"""
      (?P<string> \"{3} (?: [^\\\"] | \\. | \"(?!\"\") )*+ (?: \"{3,5} | \\?\Z )
                | '{3} (?: [^'] | '(?!'') )*+ (?: '{3,5} | \Z )
                | \" (?: [^"\\\n] | \\. )*+ (?: \" | (?=\n) | \Z )?
                | ' [^'\n]*+ (?: ' | (?=\n) | \Z ) )
    | (?P<comment> \# [^\n]*+ )
    | (?P<mark> [\[\]{}=.,\n] )
    """,
    re.VERBOSE | re.DOTALL,
)
"""The tokens that determine the nesting of a TOML text. An unterminated string extends as far as TOML allows; text
behind it is not parsed.
"""


@dataclass(frozen=True)
class SettingsFile:
    """The content of a settings file."""

    path: Path
    table: Mapping[str, Any]
    lines: tuple[str, ...]
    header: str
    """The TOML table that holds the settings; empty for the top level."""

    def location(self, key: str, start: Path) -> SourceLocation:
        """Returns the line of a key. `tomllib` keeps no lines, so the key is searched; else the header of its table,
        else line 1.
        """
        name = str(self.path.relative_to(start)) if self.path.is_relative_to(start) else str(self.path)
        inside, fallback = not self.header, 1
        pattern = re.compile(rf"""\s*(["']?){re.escape(key)}\1\s*[=.]""")
        for number, line in enumerate(self.lines, 1):
            if table := re.match(r"\s*\[+\s*([^]]*?)\s*\]", line):
                if (inside and table[1] == key) or table[1] == f"{self.header}.{key}":
                    return SourceLocation(name, number, line.index("[") + 1, line, len(line.strip()))
                inside = table[1] == self.header
                fallback = number if inside else fallback
            elif inside and pattern.match(line):
                return SourceLocation(name, number, len(line) - len(line.lstrip()) + 1, line, len(key))
        return SourceLocation(name, fallback, 1, self.lines[fallback - 1] if self.lines else "")


def settings_path(folder: Path) -> Path | None:
    """Returns the settings file of a folder: `orchestra.toml`, else a `pyproject.toml`, which may have no settings."""
    return next((path for name in ("orchestra.toml", "pyproject.toml") if os.path.isfile(path := folder / name)), None)


def find_settings_file(folder: Path, policy: trust.TrustPolicy, environ: Mapping[str, str]) -> SettingsFile | None:
    """Returns the settings of a folder, or None.

    Raises:
        InputError: C003 for a file that cannot be read, C061 for a link out of a folder that is not trusted.
    """
    if (path := settings_path(folder)) is None:
        return None
    if policy == "recorded":
        trust.check_settings_file(path, environ)
    return read_settings_file(path)


def read_settings_file(path: Path) -> SettingsFile | None:
    """Returns the settings of a file; None for a `pyproject.toml` without the table `tool.orchestra`.

    Raises:
        InputError: C003 for a file that cannot be read, is too large, has too many levels, or is not TOML.
    """
    is_shared = path.name == "pyproject.toml"
    data = _read_bytes(path, MAX_BYTES << 4 if is_shared else MAX_BYTES)
    if is_shared and b"orchestra" not in data:
        return None
    if len(data) > MAX_BYTES:
        hint = (
            "move [tool.orchestra] into an orchestra.toml; an empty one next to this file is enough"
            if is_shared
            else "keep other data out of settings files"
        )
        raise InputError("C003", f"{path} is larger than {MAX_BYTES >> 10} KiB", hint=hint)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("C003", f"{path} cannot be read: {error}") from error
    table: Any = _parse(path, text)
    header = SECTION if is_shared else ""
    for part in header.split(".") if header else ():
        table = table.get(part) if isinstance(table, Mapping) else None
    if is_shared and table is None:
        return None
    if not isinstance(table, Mapping):
        raise InputError("C003", f"{path}: {header} is not a table")
    if _has_large_integer(table):
        raise InputError("C003", f"{path}: an integer has more than 64 bits")
    return SettingsFile(path, table, tuple(text.splitlines()), header)


def check_levels(path: Path, text: str) -> None:
    """Counts the levels of a TOML text.

    Raises:
        InputError: C003 with the location where the text exceeds `MAX_LEVELS`.
    """
    table = depth = dots = 0
    header, is_value, outer = False, False, list[tuple[int, bool]]()
    for token in _TOKENS.finditer(text):
        mark = token["mark"]
        if mark == ".":
            dots += not is_value  # the dot of a number is not a level
        elif mark == "[" and not (outer or header) and _is_line_start(text, token.start()):
            header, dots = True, 0
        elif mark == "\n":
            if header:
                table, header = dots + 1, False
            depth = depth if outer else table
            dots, is_value = 0, _in_array(outer)
        elif mark is None or header:
            continue
        elif mark == "=":
            is_value = True
        elif mark in "[{":
            outer.append((depth, mark == "["))
            depth, dots, is_value = depth + dots + 1, 0, mark == "["
        else:
            depth = outer.pop()[0] if mark in "]}" and outer else depth
            dots, is_value = 0, _in_array(outer)
        if mark in ".[{=" and (0 if header else depth) + dots + 1 > MAX_LEVELS:
            from orchestra.core.settings_errors import depth_error

            raise depth_error(path, text, token.start(), MAX_LEVELS)


def _in_array(outer: Sequence[tuple[int, bool]]) -> bool:
    return bool(outer) and outer[-1][1]


def _is_line_start(text: str, at: int) -> bool:
    return not text[text.rfind("\n", 0, at) + 1 : at].strip(" \t\r\ufeff")


def _parse(path: Path, text: str) -> Mapping[str, Any]:
    """Parses a TOML text. Raises `InputError` C003."""
    check_levels(path, text)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        from orchestra.core.settings_errors import toml_error

        raise toml_error(path, text, error) from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # an integer of more than 4,300 digits; RecursionError only if `check_levels` has a defect
        raise InputError(
            "C003", f"{path} cannot be read: {error}", hint="keep other data out of settings files"
        ) from error


def _read_bytes(path: Path, limit: int) -> bytes:
    """Returns at most `limit + 1` bytes of a file. Raises `InputError` C003."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise InputError("C003", f"{path} cannot be read: {error}") from error


def _has_large_integer(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_large_integer, value.values()))
    if isinstance(value, list):
        return any(map(_has_large_integer, value))
    return isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER


SettingsFinder: TypeAlias = Callable[[Path], SettingsFile | None]
ENVIRONMENT_PREFIX = "ORCHESTRA_"
PROJECT_VARIABLE = "ORCHESTRA_PROJECT"
"""The variable that names the project's folder."""
OPENAI_VARIABLES: Mapping[str, str] = {"endpoint": "OPENAI_BASE_URL", "model": "OPENAI_MODEL"}
"""Settings to the variables of OpenAI's clients that set them."""
OTLP_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Standard variables with the address of a collector of traces."""
ENTRY_POINTS = "orchestra.modules"
DATABASE_PREFIXES = ("postgresql://", "postgres://", "env:", "file:")
"""Prefixes of a journal address that is not a local file."""
_MODULE_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


DATABASE_PATTERN = r"^(postgres(ql)?://[^\s:@/]*(:\d+)?(/[^\s@]*)?|env:[A-Za-z_]\w*|file:.+)$"
DatabaseAddress: TypeAlias = Annotated[str, Field(pattern=DATABASE_PATTERN, max_length=4096)]
"""The address of a Postgres database without user and password, or a reference to it: `env:NAME`, `file:PATH`."""


class Settings(BaseModel):
    """The effective settings. `Settings()` has the defaults; `Settings.load()` reads the user's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    fleet: str = Field("laptop", description="the fleet: the name of a file in configs/, or a path")
    endpoint: str = Field(
        "",
        pattern=r"^(https?://.+)?$",
        max_length=2048,
        description="the address of a model server with OpenAI's API, such as http://127.0.0.1:11434/v1; "
        "it replaces the fleet",
    )
    model: str = Field("", max_length=200, description="the model of the endpoint; needed if the server lists several")
    journal: Path | Literal["off"] | DatabaseAddress = Field(
        default_factory=lambda: _default_journal(None, os.environ),
        description="where runs are recorded: a file, off, postgresql://HOST/NAME, or env:NAME or file:PATH "
        "with such an address",
    )
    durability: Literal["strict", "group", "off"] = Field(
        "group",
        description="strict: calls wait until their inputs are on disk; group: results and effects wait; "
        "off: nothing waits",
    )
    retention: str = Field(
        "off",
        pattern=r"^(off|[0-9]{1,6}[hdw])$",
        description="how long ended runs are kept, such as 30d, or off; `runs gc` deletes older ones",
    )
    modules: tuple[str, ...] = Field((), description="Python modules to import: tools, workflows, agents")
    agents: tuple[Path, ...] = Field((), description="folders of agents, searched before the packaged ones")
    workflows: tuple[Path, ...] = Field((), description="folders of workflows, searched before the packaged ones")
    configs: tuple[Path, ...] = Field((), description="folders of fleets, searched before the packaged ones")
    hub: bool = Field(False, description="whether weights may be downloaded from the model hub")
    constraint: Literal["evidence", "schema", "none"] = Field(
        "evidence",
        description="constraint of the decoding of model outputs: the call's evidence, the output schema, or nothing",
    )
    mcp: Mapping[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")], McpServer] = Field(
        {},
        description="MCP tool servers: [mcp.NAME] with command, environment, timeout, label and "
        "tools with their effects",
    )
    concurrency: int = Field(
        32, ge=1, le=10_000, description="maximum number of concurrent calls of a run, or rows of a batch"
    )
    threads: int = Field(
        256, ge=1, le=10_000, description="maximum number of concurrent tools that are plain functions, over all runs"
    )
    log: Literal["debug", "info", "warning", "error", "off"] = Field(
        "off", description="lowest level of log lines about runs; data of runs is never logged"
    )
    log_as: Literal["text", "json", "logging", "structlog"] = Field(
        "text",
        description="format of log lines: text or JSON on stderr, or the service's own logging or structlog",
    )
    log_reasons: bool = Field(
        False, description="whether reasons of failures, which may quote data of a run, are logged"
    )
    otlp: str = Field(
        "off",
        pattern=r"^(off|host|environment|https?://.+)$",
        max_length=2048,
        description="where traces go: a collector (OTLP over HTTP), such as http://127.0.0.1:4318; environment: where "
        "OTEL_EXPORTER_OTLP_ENDPOINT says, the default if it is set; host: the program's tracer provider; off",
    )
    otlp_content: Literal["off", "public", "internal", "restricted"] = Field(
        "off",
        description="the strictest label of runs whose inputs, prompts and outputs are in traces; off: of none",
    )

    project: Path | None = Field(None, description="the folder of the project's file; not a setting")
    start: Path | None = Field(None, description="the folder in which the search for a project started; not a setting")
    sources: Mapping[str, str] = Field({}, description="where each value came from; not a setting")
    guard: SkipValidation[trust.ProjectGuard | None] = Field(
        None, exclude=True, description="what an untrusted project may not do; not a setting"
    )

    @classmethod
    def load(
        cls,
        overrides: Mapping[str, Any] | None = None,
        *,
        project: str | Path | None = None,
        start: Path | None = None,
        environ: Mapping[str, str] | None = None,
        trusted: trust.TrustPolicy = "always",
    ) -> Settings:
        """Loads the settings of a project.

        Args:
            start: Folder in which the work starts; the current folder by default.
            project: Folder of the project. Default: `ORCHESTRA_PROJECT`, else the nearest project from `start` upwards.
            overrides: The strongest values; None counts as not set.
            environ: Environment variables.
            trusted: `always` trusts the project, as a program does. `recorded` trusts projects trusted with `orchestra
                trust`, as the command line does. `guard` holds the restrictions of an untrusted project.

        Raises:
            InputError: C001 unknown key, C002 wrong value, C003 unreadable file, C006 a folder outside the project,
                C045 no project in the named folder, C050 no home for the journal, C052 a project of another user that
                was not named, C061 a settings file that is a link out of an untrusted project.
            InputErrors: Several of these.
        """
        environment = os.environ if environ is None else environ
        start = (start or Path.cwd()).absolute()
        look = partial(find_settings_file, policy=trusted, environ=environment)
        project_path, by = (
            (environment.get(PROJECT_VARIABLE, ""), PROJECT_VARIABLE) if project is None else (project, "project=")
        )
        file = _named_project(project_path, start, by, look) or _find_project(start, look, environment)
        layers = _with_one_fleet(
            [
                _override_layer(overrides or {}, start),
                _environment_layer(environment, start),
                *([_file_layer(file, start, inside=file.path.parent)] if file else []),
                *([_file_layer(user, start, inside=None)] if (user := _find_user_file(environment)) else []),
                _openai_layer(environment, start),
                _otel_layer(environment, start),
            ]
        )
        values, sources = _merge_layers(layers)
        if values.get("model") and not values.get("endpoint"):
            if sources["model"] != OPENAI_VARIABLES["model"]:
                hint = "add --endpoint URL; the models of a fleet are in its file"
                raise InputError("C002", f"model {values['model']!r} is for an endpoint, and there is none", hint=hint)
            del values["model"]
            sources["model"] = "default"
        root = file.path.parent if file else None
        if "journal" not in values:
            values["journal"] = _default_journal(root, environment)
        for kind in RESOURCE_KINDS:
            values.setdefault(kind, ((root or start) / kind,))
        settings = cls(**values, project=root, start=start, sources=sources)
        ownership = {
            key: next((layer.values[key].root is not None for layer in layers if key in layer.values), True)
            for key in ("journal", "endpoint", "otlp")
        }
        if trust.trusts_every_project(trusted, environment):
            return settings
        guard = _create_guard(settings, file, ownership)
        return (
            settings
            if trusted == "recorded" and trust.is_recorded(guard, environment)
            else settings.model_copy(update={"guard": guard})
        )

    @property
    def uses_openai_address(self) -> bool:
        """Whether the endpoint is that of `OPENAI_BASE_URL`."""
        return bool(self.endpoint) and self.sources.get("endpoint") == OPENAI_VARIABLES["endpoint"]

    def trust_error(self, *kinds: trust.RequirementKind) -> trust.UntrustedError | None:
        """Returns error C060 if the project may not do what its settings of these kinds, or of any kind, ask for; else
        None.
        """
        return None if self.guard is None else self.guard.error(*kinds)

    def require_trust(self, *kinds: trust.RequirementKind) -> None:
        """Raises `InputError` C060 if the project lacks trust for its settings of these kinds, or of any kind."""
        if (error := self.trust_error(*kinds)) is not None:
            raise error

    def check_path(self, path: Path) -> None:
        """Raises `InputError` C061 if a file is a link out of an untrusted project."""
        if self.guard is not None and not any(path.is_relative_to(builtin_folder(kind)) for kind in RESOURCE_KINDS):
            self.guard.check_path(path)

    def resources(self, kind: ResourceKind) -> dict[str, Path]:
        """Returns all resources of a kind by name, the user's own first: folders of agents, YAML files of workflows or
        fleets.
        """
        paths: dict[str, Path] = {}
        for path in [*self.own_resources(kind), *list_resources(kind, builtin_folder(kind))]:
            paths.setdefault(path.stem if path.is_file() else path.name, path)
        return paths

    def resource(self, kind: ResourceKind, name: str) -> Path | None:
        """Returns the path of a resource as `resources` has it, without listing the folders; None if there is none."""
        names = (name,) if kind == "agents" else (f"{name}.yaml", f"{name}.yml")
        path = _first_resource(kind, getattr(self, kind), names)
        return _first_resource(kind, [builtin_folder(kind)], names) if path is None else path

    def own_resources(self, kind: ResourceKind) -> list[Path]:
        """Returns the user's own resources of a kind, including those that are shadowed by another of the same name."""
        return [path for folder in getattr(self, kind) for path in list_resources(kind, folder)]

    def find_resource(self, kind: ResourceKind, name: str) -> Path:
        """Returns the path of an agent (its folder), a workflow or a fleet (its file) by name; `name` may also be a
        path.

        Raises:
            InputError: C004 for an unknown name, with the most similar one.
        """
        if looks_like_path(name):
            path = Path(name)
            if os.path.exists(path):
                self.check_path(path)
                return path
            raise InputError("C004", f"{name}: no such file", hint=_name_hint(name, self.resources(kind)))
        paths = self.resources(kind)
        if name in paths:
            self.check_path(paths[name])
            return paths[name]
        raise unknown_name_error(_KIND_NAMES[kind], name, paths, "C004")


def _first_resource(kind: ResourceKind, folders: Iterable[Path], names: Iterable[str]) -> Path | None:
    paths = (folder / name for folder in folders for name in names)
    return next((path for path in paths if is_resource(kind, path)), None)


MCP_HINT = '[mcp.files] with command = ["python3", "-m", "files_server"] and tools = {read = "idempotent"}'
SETTING_NAMES: tuple[str, ...] = tuple(
    key for key in Settings.model_fields if key not in ("project", "start", "sources", "guard")
)
"""Names of the settings that a user can set."""
_KIND_NAMES: Mapping[str, str] = {"agents": "agent", "workflows": "workflow", "configs": "fleet"}


def looks_like_path(name: str) -> bool:
    """Returns whether a text is a path rather than the name of a resource."""
    return "/" in name or os.sep in name or name.endswith((".yaml", ".yml", ".toml", ".py"))


def unknown_name_error(
    what: str, name: str, names: Iterable[str], code: str, location: SourceLocation | None = None
) -> InputError:
    """Returns the error of an unknown name, with the most similar name or all names."""
    known_names = sorted(names)
    near = closest_match(name, known_names)
    hint = (
        f"did you mean {near!r}?"
        if near
        else f"there are: {', '.join(known_names[:20])}"
        if known_names
        else f"there is no {what}"
    )
    return InputError(code, f"no {what} named {name!r}", location=location, hint=hint)


def load_modules(settings: Settings) -> list[ModuleType]:
    """Imports the modules named in the settings and in entry points of installed packages.

    The project's folder is added to `sys.path`. A module that is the running program is not loaded a second time.

    Raises:
        InputError: C005 for a module that cannot be imported, C060 for a project that is not trusted.
    """
    settings.require_trust("modules")
    root = str(settings.project) if settings.project else None
    if settings.modules and root and root not in sys.path:
        sys.path.insert(0, root)
    modules = [
        _import_module(name, f"modules, set by {settings.sources.get('modules', 'default')}")
        for name in settings.modules
    ]
    return [*modules, *installed_modules()]


def installed_modules() -> list[ModuleType]:
    """Imports the modules of entry points of installed packages. Raises `InputError` C005."""
    from importlib.metadata import entry_points

    modules: list[ModuleType] = []
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        package = point.dist.name if point.dist else "?"
        modules.append(_import_module(point.module, f"the entry point {point.name!r} of the package {package}"))
    return modules


def _import_module(name: str, reason: str) -> ModuleType:
    if not _MODULE_NAME.fullmatch(name):
        raise InputError(
            "C005",
            f"{name!r} is not a module name",
            why=reason,
            hint="write it as in an import statement, such as my_tools.search",
        )
    try:
        if (program := _running_program(name)) is not None:
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(importlib.import_module(parent), child, program)
            sys.modules[name] = program  # for modules that import it
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            hint = "put it into the project's folder, or install its package"
            raise InputError("C005", f"there is no module {name!r}", why=reason, hint=hint) from error
        raise InputError(
            "C005", f"{name} imports {missing!r}, which is not installed", why=reason, hint=f"install {missing}"
        ) from error
    except (Exception, SystemExit) as error:  # user code may raise any exception, and may be a program that exits
        location = _error_location(error)
        raise InputError(
            "C005",
            f"importing {name} failed: {type(error).__name__}: {exception_text(error)}",
            location=location,
            why=reason,
        ) from error


def _running_program(name: str) -> ModuleType | None:
    """Returns the running program if it is this module's file and the module is not loaded. A second copy would have
    other tools.
    """
    program = sys.modules.get("__main__")
    if name in sys.modules or (file := getattr(program, "__file__", None)) is None:
        return None
    spec = importlib.util.find_spec(name)
    return program if spec and spec.origin and os.path.realpath(spec.origin) == os.path.realpath(file) else None


def _error_location(error: BaseException) -> SourceLocation | None:
    """Returns the location in the user's own code that raised."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return SourceLocation(error.filename, error.lineno, error.offset or 1, (error.text or "").rstrip("\n"))
    trace, location = error.__traceback__, None
    while trace is not None:
        code = trace.tb_frame.f_code
        if (
            not code.co_filename.startswith("<")
            and "importlib" not in code.co_filename
            and code.co_filename != __file__
        ):
            location = SourceLocation(code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    return location


@dataclass(frozen=True)
class _LayerValue:
    """A value of one layer."""

    value: Any
    source: str
    folder: Path
    """Base folder of relative paths."""
    is_text: bool = False
    """Whether the value is text that represents another type."""
    location: SourceLocation | None = None
    root: Path | None = None
    """The folder that search folders must be inside."""


@dataclass(frozen=True)
class _Layer:
    values: Mapping[str, _LayerValue]
    errors: tuple[InputError, ...] = ()


def _override_layer(overrides: Mapping[str, Any], start: Path) -> _Layer:
    errors = tuple(
        unknown_name_error("setting", key, SETTING_NAMES, "C001") for key in overrides if key not in SETTING_NAMES
    )
    values = {key: value for key, value in overrides.items() if value is not None and key in SETTING_NAMES}
    return _Layer(
        {key: _LayerValue(value, "flag", start, is_text=isinstance(value, str)) for key, value in values.items()},
        errors,
    )


def _environment_layer(environ: Mapping[str, str], start: Path) -> _Layer:
    """Variables with the prefix that resemble no setting are ignored, such as secrets of endpoints. An empty variable
    counts as not set.
    """
    values: dict[str, _LayerValue] = {}
    errors: list[InputError] = []
    for name, value in sorted(environ.items()):
        key = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        if not name.startswith(ENVIRONMENT_PREFIX) or name in (PROJECT_VARIABLE, trust.TRUST_VARIABLE) or not value:
            continue
        if key in SETTING_NAMES:
            values[key] = _LayerValue(value, name, start, is_text=True)
        elif near := next(iter(difflib.get_close_matches(key, (*SETTING_NAMES, "project"), n=1, cutoff=0.8)), None):
            errors.append(
                InputError("C001", f"{name} is not a setting", hint=f"did you mean {ENVIRONMENT_PREFIX}{near.upper()}?")
            )
    return _Layer(values, tuple(errors))


def _file_layer(file: SettingsFile, start: Path, inside: Path | None) -> _Layer:
    values: dict[str, _LayerValue] = {}
    errors: list[InputError] = []
    folder = file.path.parent
    for key, value in file.table.items():
        location = file.location(key, start)
        if key not in SETTING_NAMES:
            errors.append(unknown_name_error("setting", key, SETTING_NAMES, "C001", location))
            continue
        values[key] = _LayerValue(value, f"{location.file}:{location.line}", folder, location=location, root=inside)
    return _Layer(values, tuple(errors))


def _otel_layer(environ: Mapping[str, str], start: Path) -> _Layer:
    """Returns the layer of the standard variables of OpenTelemetry."""
    name = next((name for name in OTLP_VARIABLES if environ.get(name)), "")
    is_disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if not name or is_disabled or environ.get("OTEL_TRACES_EXPORTER", "otlp") not in ("", "otlp"):
        return _Layer({})
    return _Layer({"otlp": _LayerValue("environment", name, start, is_text=True)})


def _openai_layer(environ: Mapping[str, str], start: Path) -> _Layer:
    """The variables of OpenAI's clients. They are the weakest source, so that a project with a fleet keeps it."""
    variables = {key: (name, environ.get(name, "")) for key, name in OPENAI_VARIABLES.items()}
    return _Layer(
        {key: _LayerValue(value, name, start, is_text=True) for key, (name, value) in variables.items() if value}
    )


def _with_one_fleet(layers: Sequence[_Layer]) -> list[_Layer]:
    """Returns the layers without the fleet or the endpoint that a stronger layer replaces by the other."""
    chosen_layer = next((layer for layer in layers if not layer.values.keys().isdisjoint(("fleet", "endpoint"))), None)
    if chosen_layer is None:
        return list(layers)
    if (endpoint := chosen_layer.values.get("endpoint")) is not None and "fleet" in chosen_layer.values:
        error = InputError(
            "C002",
            "fleet and endpoint exclude each other",
            location=endpoint.location,
            hint="leave one of them out: an endpoint replaces the fleet",
        )
        return [_Layer(chosen_layer.values, (*chosen_layer.errors, error))]
    dropped_key = "endpoint" if "fleet" in chosen_layer.values else "fleet"
    return [
        _Layer({key: value for key, value in layer.values.items() if key != dropped_key}, layer.errors)
        for layer in layers
    ]


def _merge_layers(layers: Sequence[_Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the values of all layers and the source of each setting. The first layer is the strongest.

    Raises:
        InputError: A value or a layer is invalid.
        InputErrors: Several are, in the order of their locations.
    """
    values: dict[str, Any] = {}
    sources = dict.fromkeys(SETTING_NAMES, "default")
    errors: list[InputError] = []
    for layer in reversed(layers):
        for key, layer_value in layer.values.items():
            try:
                values[key] = _validate(key, layer_value)
            except InputError as error:
                errors.append(error)
            sources[key] = layer_value.source
        errors += layer.errors
    if errors:
        errors.sort(key=lambda error: (error.location.file, error.location.line) if error.location else ("", 0))
        raise InputErrors(errors) if len(errors) > 1 else errors[0]
    return values, sources


def _validate(key: str, layer_value: _LayerValue) -> Any:
    """Returns a value of the setting's type, with absolute paths. Raises `InputError` C002 or C006."""
    value: Any = layer_value.value
    field = Settings.model_fields[key]
    if key in ("fleet", "journal") and value == "":
        raise InputError(
            "C002", f"{key} cannot be empty", location=layer_value.location, hint=f"{key} is {field.description}"
        )
    if key == "fleet" and isinstance(value, str | Path):
        value = str(_absolute(value, layer_value.folder)) if looks_like_path(str(value)) else str(value)
    elif key == "journal" and isinstance(value, str | Path) and value != "off":
        return (
            _database_address(value, layer_value)
            if str(value).startswith(DATABASE_PREFIXES)
            else _absolute(value, layer_value.folder)
        )
    elif key in ("modules", *RESOURCE_KINDS):
        value = _split_items(value, layer_value)
        if key in RESOURCE_KINDS and all(isinstance(item, str | Path) for item in value):
            value = tuple(_absolute(item, layer_value.folder) for item in value)
            _check_inside(key, value, layer_value)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
        # Values in tables are validated strictly by their own types; TOML arrays become tuples.
        return adapter.validate_python(
            value, strict=None if key == "mcp" else not (layer_value.is_text and isinstance(value, str))
        )
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        hint = f"{key} is {field.description}"
        if key == "mcp" and (inner := [str(part) for part in problem["loc"] if part != "[key]"]):
            mcp_message = f"{'.'.join(['mcp', *inner])}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
            raise InputError("C002", mcp_message, location=layer_value.location, hint=MCP_HINT) from None
        value_text = repr(layer_value.value) if len(repr(layer_value.value)) < 80 else "this value"
        origin = "" if layer_value.location else f", set by {layer_value.source}"
        message = f"{key} cannot be {value_text}{origin}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
        raise InputError("C002", message, location=layer_value.location, hint=hint) from None


def _database_address(value: Any, layer_value: _LayerValue) -> str:
    """Returns the address of a database without secrets. Raises `InputError` C002."""
    if not re.fullmatch(DATABASE_PATTERN, str(value)):
        hint = (
            "put the address into a variable or a file: journal: env:DATABASE_URL, "
            "or journal: file:/run/secrets/journal"
        )
        raise InputError(
            "C002",
            "the journal's address is invalid, or contains a user or a password",
            location=layer_value.location,
            hint=hint,
        )
    return str(value)


def _split_items(value: Any, layer_value: _LayerValue) -> tuple[Any, ...]:
    if isinstance(value, str) and layer_value.is_text:
        return tuple(item.strip() for item in value.split(",") if item.strip())
    if isinstance(value, Path):
        return (value,)
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _check_inside(key: str, folders: tuple[Path, ...], layer_value: _LayerValue) -> None:
    for folder in folders:
        if layer_value.root and not Path(os.path.normpath(folder)).is_relative_to(layer_value.root):
            hint = "name a folder of the project; a flag, a variable or the user's file may name any folder"
            raise InputError(
                "C006", f"{key}: {folder} is outside the project", location=layer_value.location, hint=hint
            )


def _absolute(path: str | Path, folder: Path) -> Path:
    """Returns an absolute path. Raises `InputError` C002 for a path with a NUL character or one that is too long."""
    absolute_path = folder / xdg.expand_home(path)
    try:
        os.lstat(absolute_path)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            reason = str(error.strerror) if isinstance(error, OSError) else "it has a NUL character"
            raise InputError(
                "C002", f"{shorten(escape_invisible(str(path), keep=''), 80)!r} is not a path", why=reason
            ) from error
    return absolute_path


def _find_project(start: Path, look: SettingsFinder, environ: Mapping[str, str]) -> SettingsFile | None:
    """Returns the settings file of the nearest parent folder.

    Raises:
        InputError: C052 for a project of another user above a folder of this user: its modules and tool servers would
            run.
    """
    file = next((file for folder in (start, *start.parents) if (file := look(folder))), None)
    if file is not None and hasattr(os, "geteuid"):  # Windows has another model of ownership
        user, path = os.geteuid(), file.path
        user_ids = {user, 0} if user or not (by := environ.get("SUDO_UID", "")).isdecimal() else {0, int(by)}
        if start.exists():  # a user inside another user's folder is there on purpose, as is root in a mounted one
            user_ids.add(start.stat().st_uid)
        if not {path.lstat().st_uid, path.stat().st_uid, path.parent.stat().st_uid} <= user_ids:
            hint = f"if you trust its content: export {PROJECT_VARIABLE}={shlex.quote(str(path.parent))}"
            raise InputError(
                "C052", f"{path} or its folder belongs to another user, and can name code to run", hint=hint
            )
    return file


def _named_project(project: str | Path, start: Path, by: str, look: SettingsFinder) -> SettingsFile | None:
    """Returns the settings file of the named project; None if no project was named. Raises `InputError` C045."""
    if project == "":
        return None
    folder = Path(os.path.normpath(_absolute(project, start)))
    if (file := look(folder)) is None:
        reason = "there is no such folder" if not os.path.isdir(folder) else "there is no orchestra.toml in it"
        hint = "name the folder with the project's orchestra.toml; an empty file is enough"
        raise InputError("C045", f"{by} is not a project: {folder}: {reason}", hint=hint)
    return file


def _create_guard(settings: Settings, file: SettingsFile | None, ownership: Mapping[str, bool]) -> trust.ProjectGuard:
    """Returns the restrictions of the project without trust.

    Args:
        loaded: The settings.
        file: The project's file.
        own: By the name of a setting, whether its value is the project's or the default.
    """
    folder = settings.project or settings.start or Path.cwd()
    servers = {name: server.command for name, server in settings.mcp.items()}
    needs = (
        trust.find_requirements(
            folder,
            settings.modules,
            servers,
            settings.journal if ownership["journal"] else "off",
            settings.endpoint if ownership["endpoint"] else "",
            settings.otlp if ownership["otlp"] else "",
        )
        if file
        else []
    )
    search_places = [
        folder / ".orchestra",
        folder / "mcp",
        *(place for kind in RESOURCE_KINDS for place in getattr(settings, kind)),
    ]
    links = trust.find_outside_links(folder, [*([file.path] if file else []), *search_places])
    return trust.create_guard(folder, file.table if file else {}, needs, links)


def _find_user_file(environ: Mapping[str, str]) -> SettingsFile | None:
    try:
        path = xdg.base_folder(environ, "XDG_CONFIG_HOME", ".config") / "orchestra" / "config.toml"
    except InputError:  # without a home there is no user file
        return None
    return read_settings_file(path) if os.path.isfile(path) else None


def _default_journal(project: Path | None, environ: Mapping[str, str]) -> Path:
    if project:
        return project / ".orchestra" / "journal.db"
    return xdg.base_folder(environ, "XDG_STATE_HOME", ".local/state", "ORCHESTRA_JOURNAL") / "orchestra" / "journal.db"


def _name_hint(name: str, paths: Mapping[str, Path]) -> str:
    near = closest_match(Path(name).stem, paths)
    return f"did you mean the name {near!r}?" if near else "write the path relative to the current folder"
