"""`orchestra explain` and `orchestra schema`: what an error means, and the JSON Schemas that editors check files with."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import typer

from orchestra.cli.options import JsonOption
from orchestra.cli.output import print_json, print_text
from orchestra.cli.typer_adapter import add_command


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    add_command(app, explain, panel="Look it up")
    add_command(app, schema, panel="Look it up")


def explain(
    code: Annotated[
        str, typer.Argument(help="Such as L003; without one, all codes are listed.", show_default=False)
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Explain an error: what its code means, an example, and how to mend it."""
    from orchestra.core import error_help as explaining

    found = [explaining.explain(code)] if code else list(explaining.load_explanations().values())
    if as_json:
        print_json([{"code": one.code, "title": one.title, "text": one.text.strip()} for one in found])
    elif code:
        print_text(str(found[0]).rstrip())
    else:
        for one in found:
            print_text(f"{one.code}  {one.title}")


def schema(
    what: Annotated[Literal["workflow", "fleet", "agent"], typer.Argument(help="Of which kind of file.")] = "workflow",
) -> None:
    """Print the JSON Schema of a kind of file, for editors."""
    import json

    sys.stdout.write(json.dumps(file_schema(what), indent=2, ensure_ascii=False) + "\n")


def file_schema(what: Literal["workflow", "fleet", "agent"]) -> dict[str, Any]:
    """The JSON Schema of a workflow's, a fleet's or an agent's file, as it is written."""
    match what:
        case "fleet":
            from orchestra.fleet.config import FleetConfig

            body = FleetConfig.model_json_schema(by_alias=True)
        case "agent":
            from orchestra.agents.card_file import CardFile

            body = CardFile.model_json_schema(by_alias=True)
        case "workflow":
            from orchestra.workflows.yaml import json_schema

            return json_schema.workflow_schema()
    title = "a fleet" if what == "fleet" else "an agent's card"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **body, "title": f"Orchestra: {title}"}
