"""`orchestra explain` and `orchestra schema`: what an error means, and the JSON Schemas that editors check files with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orchestra.cli.failure import Verb
from orchestra.cli.screen import print_json, say

if TYPE_CHECKING:
    from collections.abc import Mapping


LISTS = ("after", "checks", "otherwise", "agents", "tools", "options")
"""Keys of nodes whose value is a list, of which one element may stand by itself."""


def register(app: typer.Typer) -> None:
    """Adds the verbs."""

    @app.command(cls=Verb, rich_help_panel="Look it up")
    def explain(
        code: Annotated[str, typer.Argument(help="Such as L003; without one, all codes are listed.", show_default=False)] = "",
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Explain an error: what its code means, an example, and how to mend it."""
        from orchestra import explain as explaining

        found = [explaining.explain(code)] if code else list(explaining.explanations().values())
        if as_json:
            print_json([{"code": one.code, "title": one.title, "text": one.text.strip()} for one in found])
        elif code:
            say(str(found[0]).rstrip())
        else:
            for one in found:
                say(f"{one.code}  {one.title}")

    @app.command(cls=Verb, rich_help_panel="Look it up")
    def schema(
        what: Annotated[Literal["workflow", "fleet", "agent"], typer.Argument(help="Of which kind of file.")] = "workflow",
    ) -> None:
        """Print the JSON Schema of a kind of file, for editors."""
        import json

        sys.stdout.write(json.dumps(schema_of_file(what), indent=2, ensure_ascii=False) + "\n")


def schema_of_file(what: Literal["workflow", "fleet", "agent"]) -> dict[str, Any]:
    """The JSON Schema of a workflow's, a fleet's or an agent's file, as it is written."""
    match what:
        case "fleet":
            from orchestra.fleet.config import FleetConfig

            body = FleetConfig.model_json_schema(by_alias=True)
        case "agent":
            from orchestra.agent.card import CardFile

            body = CardFile.model_json_schema(by_alias=True)
        case "workflow":
            from orchestra.workflow.nodes import Graph

            body = _as_written(Graph.model_json_schema(by_alias=True))
    title = {"workflow": "a workflow", "fleet": "a fleet", "agent": "an agent's card"}[what]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **body, "title": f"Orchestra: {title}"}


def _or_one(listed: dict[str, Any]) -> dict[str, Any]:
    """A list, or one element by itself."""
    return {"anyOf": [listed, listed["items"]], "default": []}


def _as_written(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The model's schema with the short spellings that files may use."""
    definitions = {name: dict(body) for name, body in schema["$defs"].items()}
    for body in definitions.values():
        listed = [key for key in body.get("properties", {}) if key in LISTS]
        body["properties"] = {**body.get("properties", {}), **{key: _or_one(body["properties"][key]) for key in listed}}
    definitions["Input"] = {"anyOf": [{"type": "string", "description": "a type, such as list[Document]"}, definitions["Input"]]}
    definitions["Retry"] = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 10}, definitions["Retry"]]}
    return {**schema, "$defs": definitions, "required": ["schema", "name", "output", "nodes"]}
