"""Cards: what a specialist is. A folder with `agent.yaml`, its prompt, and its data; or a Python declaration of the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestra.agent import template
from orchestra.agent.contract import Contract
from orchestra.agent.faults import faults
from orchestra.agent.types import declared, output_type, project_models, record
from orchestra.errors import InputError, Place
from orchestra.values.fields import QUOTE, mentions
from orchestra.values.json import digest
from orchestra.values.labels import Label
from orchestra.values.types import Schema, Validator, nearest
from orchestra.values.yaml import Marked, load

FILE = "agent.yaml"
MAX_BYTES = 1 << 20
MAX_DATA_BYTES = 64 << 20
MAX_STORED = 8 << 20
"""Bytes of a stored card at most."""

WITH_ARRAYS = frozenset({"sklearn", "tagger", "encoder"})
"""The kinds whose folder has a data file and arrays."""

Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True, defer_build=True)


class Sampling(_Frozen):
    """How tokens are drawn. At temperature 0 the likeliest is taken."""

    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int | None = None


class CardFile(_Frozen):
    """What `agent.yaml` says."""

    schema_: Literal["orchestra/v1"] = Field(default="orchestra/v1", alias="schema")
    name: Name
    description: str = ""
    kind: Literal["model", "sklearn", "tagger", "encoder", "python"] = "model"
    input: Mapping[Name, str] = {}
    output: str | Mapping[Name, str]
    types: Mapping[str, Mapping[str, Any]] = {}
    prompt: str = "prompt.md"
    """A file of the folder."""
    system: str = ""
    model: str = "base"
    """A name in the fleet; of kind `encoder`, the encoder that it stands on."""
    adapter: str | None = None
    sampling: Sampling = Sampling.model_construct()
    max_output: Annotated[int, Field(ge=1, le=1 << 20)] = 256
    min_output: Annotated[int, Field(ge=1, le=1 << 20)] = 16
    """Output tokens, at most and at least, that a budget must leave."""
    checks: tuple[str, ...] = Field(default=(), strict=False)
    accept: Literal["certified"] | Annotated[float, Field(ge=0, le=1)] | None = None
    otherwise: tuple[Literal["retry", "escalate", "abstain"], ...] = Field(default=(), strict=False)
    label: Label = "restricted"
    """The strictest label of data that it may see."""
    evidence: str | None = None
    """The input that fields of type `Quote` quote from."""
    data: str = "model.json"
    """Of a classical agent and of an encoder: a file of the folder that says how its arrays are used."""


class Card(CardFile):
    """A specialist, ready: the file with its types read, its prompt checked, and a digest of everything that it says."""

    input_schema: Schema = {}
    output_schema: Schema = {}
    template: str = ""
    data_digest: str = ""
    """Of the data file of an agent with arrays, which in turn names their digest; empty for the others, and before it is trained."""
    folder: Path | None = None
    digest: str = ""

    @classmethod
    def load(cls, folder: Path, models: Mapping[str, Schema] | None = None) -> Card:
        """The card of a folder. Raises `InputError` (A- and L-codes) with the place of the first fault, or of all."""
        path = folder / FILE
        marked = load(_bytes(folder, FILE, Place(str(path), 1)), str(path))
        if not isinstance(marked.value, dict):
            raise InputError("A002", "a card is a mapping", place=marked.place(()), hint="name: reader")
        try:
            file = CardFile.model_validate(marked.value)
        except ValidationError as error:
            raise faults(error, CardFile, marked) from error
        inputs, outputs = _types(file, models, marked)
        text, data = "", ""
        if file.kind == "model":
            text = _text(folder, file.prompt, marked)
            template.check(text, file.input, folder / file.prompt)
        elif file.kind in WITH_ARRAYS and (folder / file.data).exists():  # one that is not there yet is trained first
            data = digest(_bytes(folder, file.data, marked.place(("data",))))
        return cls._made(file, inputs, outputs, text, data, folder)

    @classmethod
    def declared(cls, name: str, *, input: Schema, output: Schema, prompt: str, **settings: Any) -> Card:
        """A card made in Python: schemas of input (an object) and output, the prompt's text, and the other keys of `agent.yaml`.

        Raises `InputError` A002 for a setting that is not one, A005 or A006 for a prompt that cannot be rendered.
        """
        place = Place(f"the agent {name!r}", 1)
        template.check(prompt, input.get("properties", {}), Path(f"the prompt of {name}"))
        try:
            file = CardFile.model_validate({"name": name, "output": "str", **settings})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(step) for step in first["loc"])
            near = nearest(key, CardFile.model_fields)
            hint = f"did you mean {near!r}?" if near and near != key else ""
            raise InputError("A002", f"{key}: {first['msg']}", place=place, hint=hint) from error
        _check_evidence(file, input, output, place)
        return cls._made(file, input, output, prompt)

    @classmethod
    def _made(cls, file: CardFile, inputs: Schema, outputs: Schema, text: str, data: str = "", folder: Path | None = None) -> Card:
        # Not canonical: the order of an output's fields is the order in which a model writes them.
        mark = digest(msgspec.json.encode([file.model_dump(by_alias=True), inputs, outputs, text, data]))
        made = {"input_schema": inputs, "output_schema": outputs, "template": text, "data_digest": data, "folder": folder, "digest": mark}
        return cls.model_validate({**dict(file), **made})

    def dump(self) -> bytes:
        """The card as a run stores it: its settings, its types, its prompt, and the digest of its data file; without its folder."""
        settings = self.model_dump(by_alias=True, include=set(CardFile.model_fields))
        stored = {"settings": settings, "input": self.input_schema, "output": self.output_schema, "prompt": self.template}
        return msgspec.json.encode({"format": "orchestra/card/v1", **stored, "data": self.data_digest, "digest": self.digest})

    @classmethod
    def restore(cls, data: bytes, folder: Path | None = None) -> Card:
        """The card that `dump` wrote, with the same digest. `folder` is where its data file and its adapter are looked for.

        The bytes are not trusted. Raises `InputError` A012 where they are no card, or not the one that they say, or where the data
        file has changed; A003 or A004 where it cannot be read.
        """
        if len(data) > MAX_STORED:
            raise _not_stored(f"they are more than {MAX_STORED >> 20} MiB")
        try:
            stored = _Stored.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise _not_stored(f"{'.'.join(str(step) for step in first['loc'])}: {first['msg']}".removeprefix(": ")) from error
        file, name = stored.settings, stored.settings.name
        try:
            Validator(stored.input), Validator(stored.output)
            if file.kind == "model":
                template.check(stored.prompt, stored.input.get("properties", {}), Path(f"the prompt of {name}"))
            _check_evidence(file, stored.input, stored.output, Place(f"the agent {name!r}", 1))
        except InputError as error:
            raise _not_stored(error.message) from error
        made = cls._made(file, stored.input, stored.output, stored.prompt, stored.data, folder)
        if made.digest != stored.digest:
            raise _not_stored(f"{name} has the digest {made.digest}, and they say {stored.digest}")
        if folder is not None and file.kind in WITH_ARRAYS and digest(made.read(file.data)) != stored.data:
            raise InputError("A012", f"{name}: {file.data} has changed since the run began", hint="orchestra runs fork")
        return made

    def varied(self, *, folder: Path | None = None, **settings: Any) -> Card:
        """The card with some settings of `agent.yaml` otherwise, or with the files of another folder; with a digest of its own.

        Raises `InputError` A004 for a folder without the data file that the card names.
        """
        mine = self.model_dump(by_alias=True, include=set(CardFile.model_fields))
        file = CardFile.model_validate({**mine, **settings})
        data = self.data_digest
        if folder is not None and file.kind in WITH_ARRAYS:
            data = digest(_bytes(folder, file.data, Place(str(folder / file.data), 1)))
        return self._made(file, self.input_schema, self.output_schema, self.template, data, folder or self.folder)

    @property
    def trained(self) -> bool:
        """Whether it can be asked: an agent with arrays has them."""
        return self.kind not in WITH_ARRAYS or bool(self.data_digest)

    @property
    def contract(self) -> Contract:
        """Its typed face."""
        return Contract(
            name=self.name,
            kind="agent",
            input=self.input_schema,
            output=self.output_schema,
            description=self.description,
            max_output=self.max_output if self.kind == "model" else 0,
            label=self.label,
            checks=self.checks,
            digest=self.digest,
            evidence=self.evidence or "",
            accept=self.accept,
            otherwise=self.otherwise,
        )

    def read(self, name: str, limit: int = MAX_DATA_BYTES) -> bytes:
        """A file of the card's folder. Raises `InputError` A003 for a path that leads out of it, A004 where it is not there."""
        if self.folder is None:
            raise InputError("A004", f"the agent {self.name!r} has no folder, and so no {name}", hint="write it as a folder under agents/")
        return _bytes(self.folder, name, Place(str(self.folder / FILE), 1), limit)


class _Stored(_Frozen):
    """What `Card.dump` writes."""

    format: Literal["orchestra/card/v1"]
    settings: CardFile
    input: Schema
    output: Schema
    prompt: str
    data: str
    digest: str


def _not_stored(why: str) -> InputError:
    return InputError("A012", f"stored bytes are not the card that they should be: {why}", hint="orchestra runs fork")


def _types(file: CardFile, models: Mapping[str, Schema] | None, marked: Marked) -> tuple[Schema, Schema]:
    def at(*path: str) -> Place:
        return marked.place(path)

    known = declared(file.types, {**project_models(), **(models or {})}, lambda name: at("types", name))
    inputs = record(file.input, known, lambda name: at("input", name))
    outputs = output_type(file.output, known, lambda name: at("output", name) if name != "output" else at("output"))
    for schema, name in ((inputs, "input"), (outputs, "output")):
        _check_schema(schema, at(name))
    _check_evidence(file, inputs, outputs, at("evidence"))
    return inputs, outputs


def _check_schema(schema: Schema, place: Place) -> None:
    """Refuses JSON Schema under `types:` that is no good one, before a call meets it."""
    try:
        Validator(schema)
    except InputError as error:
        raise InputError(error.code, error.message, place=place, hint=error.hint) from error


def _check_evidence(file: CardFile, inputs: Schema, outputs: Schema, place: Place) -> None:
    names = list(inputs.get("properties", {}))
    if file.evidence is not None and file.evidence not in names:
        near = nearest(file.evidence, names)
        hint = f"did you mean {near!r}?" if near else f"inputs: {', '.join(names)}"
        raise InputError("A008", f"evidence: there is no input {file.evidence!r}", place=place, hint=hint)
    if mentions(outputs, QUOTE) and not names:
        raise InputError("A008", "an output of type Quote needs an input to quote from", place=place, hint="input: {context: str}")


def _text(folder: Path, name: str, marked: Marked) -> str:
    place = marked.place(("prompt",))
    try:
        return _bytes(folder, name, place, MAX_BYTES).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InputError("A004", f"{name} is not UTF-8", place=place, hint="save it as UTF-8") from error


def _bytes(folder: Path, name: str, place: Place, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a file that lies in a folder, symbolic links followed and checked."""
    try:
        root, path = folder.resolve(), (folder / name).resolve()
    except (OSError, RuntimeError) as error:  # Python 3.11 says RuntimeError of links that lead in a circle
        raise InputError("A004", f"cannot read {folder / name}: {error}", place=place, hint=f"create {name} in {folder}") from error
    if not path.is_relative_to(root):
        raise InputError("A003", f"{name!r} leads out of the card's folder", place=place, hint="put the file beside agent.yaml")
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):  # a pipe would keep its reader waiting
            raise InputError("A004", f"{folder / name} is not a file", place=place, hint=f"create {name} in {folder}")
        if status.st_size > limit:
            raise InputError("A004", f"{name} has more than {limit >> 20} MiB", place=place, hint="a card's files are small")
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError("A004", f"cannot read {folder / name}: {reason}", place=place, hint=f"create {name} in {folder}") from error
