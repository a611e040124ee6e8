"""The JSON Schemas of the files that users write: their addresses, and copies in a project for editors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

FileKind: TypeAlias = Literal["workflow", "fleet", "agent"]

SCHEMA_SITE = "https://orchestra-slm.github.io/orchestra/reference/schemas"
"""The folder of the documentation's site that has the schemas. An address names a schema, and nothing is fetched from
it."""
SCHEMA_FOLDER = Path(".orchestra", "schemas")
"""The folder of a project with the copies that editors read."""
_TITLES: Mapping[FileKind, str] = {"workflow": "a workflow", "fleet": "a fleet", "agent": "an agent's card"}


def schema_file_name(kind: FileKind) -> str:
    """Returns the file name of a schema, with the version of the format."""
    return f"{kind}.v1.json"


def file_schema(kind: FileKind) -> dict[str, Any]:
    """Returns the JSON Schema of workflow, fleet or agent files."""
    match kind:
        case "fleet":
            from orchestra.fleet.config import FleetConfig

            body = FleetConfig.model_json_schema(by_alias=True)
        case "agent":
            from orchestra.agents.card_file import CardFile

            body = CardFile.model_json_schema(by_alias=True)
        case "workflow":
            from orchestra.workflows.yaml.json_schema import workflow_schema

            body = workflow_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{SCHEMA_SITE}/{schema_file_name(kind)}",
        **{key: value for key, value in body.items() if key != "$schema"},
        "title": f"Orchestra: {_TITLES[kind]}",
    }


def format_schema(kind: FileKind) -> str:
    """Returns the text of a schema file."""
    return json.dumps(file_schema(kind), indent=2, ensure_ascii=False) + "\n"


def write_schemas(project: Path) -> list[Path]:
    """Writes the schemas of all kinds into a project, for its editors. Returns their paths in the project. Raises
    `OSError`.
    """
    paths = [SCHEMA_FOLDER / schema_file_name(kind) for kind in get_args(FileKind)]
    (project / SCHEMA_FOLDER).mkdir(parents=True, exist_ok=True)
    for kind, path in zip(get_args(FileKind), paths, strict=True):
        (project / path).write_text(format_schema(kind), encoding="utf-8")
    return paths
