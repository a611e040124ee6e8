"""Agent cards: a folder with `agent.yaml`, a prompt and data files, or the same declared in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from stat import S_ISREG
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from orchestra.agents import template, tool_prompt
from orchestra.agents.card_file import ELSEWHERE_KEYS, KINDS_WITH_ARRAYS, LATER_KEYS, CardFile, ToolLimits, check_card
from orchestra.agents.card_types import is_plain_text, output_type, project_models, record_schema, resolve_types
from orchestra.agents.computed_fields import OutputForm
from orchestra.agents.contract import Contract, ToolUse
from orchestra.agents.inference.calibration import Calibration
from orchestra.core.errors import InputError, InputErrors, SourceLocation
from orchestra.core.suggestions import closest_match
from orchestra.schema.strict_json import JsonDecodingError, decode_json, digest
from orchestra.schema.strict_yaml import YamlDocument, load_yaml
from orchestra.schema.types import Schema, Validator, subschema

CARD_FILE = "agent.yaml"
MAX_BYTES = 1 << 20
MAX_DATA_BYTES = 64 << 20
MAX_STORED_BYTES = 8 << 20
"""Maximum size of a stored card, in bytes."""


class Card(CardFile):
    """A loaded agent card: checked settings, resolved types, the prompt, and a digest of all of them."""

    input_schema: Schema = Field(default_factory=dict)
    output_schema: Schema = Field(default_factory=dict)
    template: str = ""
    data_digest: str = ""
    """Digest of the data file of an agent with arrays (the data file names the digest of the arrays), or of a
    calibration. Empty for other agents, and before training.
    """
    folder: Path | None = None
    member_cards: tuple[Card, ...] = ()
    """The members of a loaded ensemble (`orchestra.agents.ensemble.join_members`)."""
    digest: str = ""

    @classmethod
    def load(cls, folder: Path, models: Mapping[str, Schema] | None = None) -> Card:
        """Loads the card of a folder.

        Raises:
            InputError: A- and L-codes, with the location of the fault, or of all faults.
        """
        path = folder / CARD_FILE
        yaml_document = load_yaml(_read_file(folder, CARD_FILE, SourceLocation(str(path), 1)), str(path))
        if not isinstance(yaml_document.value, dict):
            raise InputError("A002", "a card is a mapping", location=yaml_document.location(()), hint="name: reader")
        try:
            file = CardFile.model_validate(yaml_document.value)
        except ValidationError as error:
            raise _to_input_error(error, CardFile, yaml_document) from error
        inputs, outputs = _read_types(file, models, yaml_document)
        text = _read_prompt(folder, file.prompt, yaml_document) if file.kind == "model" else ""
        check_card(file, inputs, outputs, text, folder / file.prompt, yaml_document.locate)
        if file.untuned is not None:
            untuned_prompt = _read_prompt(folder, file.untuned, yaml_document, "untuned")
            template.check_system(
                untuned_prompt, inputs.get("properties", {}), SourceLocation(str(folder / file.untuned), 1)
            )
        location = yaml_document.location(("calibration",))
        if (
            file.calibration is not None
            and (calibration_data := _read_if_exists(folder, file.calibration, location)) is not None
        ):
            Calibration.read(
                calibration_data,
                OutputForm.build(outputs, file.computed).choices,
                SourceLocation(str(folder / file.calibration), 1),
            )
        return cls._build(file, inputs, outputs, text, _data_digest(file, folder, yaml_document), folder)

    @classmethod
    def declare(cls, name: str, *, input: Schema, output: Schema, prompt: str, **settings: Any) -> Card:
        """Builds a card in Python.

        Args:
            input: JSON Schema of the input, an object.
            output: JSON Schema of the output.
            prompt: The text of the prompt.
            settings: The other keys of `agent.yaml`.

        Raises:
            InputError: A002 for an unknown or invalid setting, and the codes of
            `orchestra.agents.card_file.check_card`.
        """
        location = SourceLocation(f"the agent {name!r}", 1)
        try:
            file = CardFile.model_validate({"name": name, "output": "str", **settings})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(step) for step in first["loc"])
            near = closest_match(key, CardFile.model_fields)
            hint = f"did you mean {near!r}?" if near and near != key else ""
            if first["type"] == "extra_forbidden" and (holder := _parent_key(key, CardFile)):
                hint = f"it belongs in another key: {holder}={{{key!r}: …}}"
            raise InputError("A002", f"{key}: {first['msg']}", location=location, hint=hint) from error
        check_card(file, input, output, prompt, Path(f"the prompt of {name}"), lambda *_: location)
        return cls._build(file, input, output, prompt)

    @classmethod
    def from_schemas(cls, name: str, input: Schema, output: Schema, folder: Path | None = None) -> Card:
        """Builds a card for a callable that is not an agent, such as a workflow, for code that needs a card."""
        return cls._build(CardFile(name=name, output="str", kind="python"), input, output, "", folder=folder)

    @classmethod
    def _build(
        cls,
        file: CardFile,
        inputs: Schema,
        outputs: Schema,
        text: str,
        data: str = "",
        folder: Path | None = None,
        parts: tuple[Card, ...] = (),
    ) -> Card:
        # Not canonical JSON: a model writes the fields of an output in the order of the schema.
        fields = file.model_dump(
            by_alias=True, exclude={*ELSEWHERE_KEYS, *(key for key in LATER_KEYS if not getattr(file, key))}
        )  # older cards keep their digests
        mark = digest(msgspec.json.encode([fields, inputs, outputs, text, data]))
        attributes = {
            "input_schema": inputs,
            "output_schema": outputs,
            "template": text,
            "data_digest": data,
            "folder": folder,
            "digest": mark,
        }
        return cls.model_validate({**dict(file), **attributes, "member_cards": parts})

    def with_members(self, parts: Sequence[Card]) -> Card:
        """Returns the ensemble with its members. `orchestra.agents.ensemble.join_members` finds and checks them."""
        return self._build(
            self._file,
            self.input_schema,
            self.output_schema,
            self.template,
            _members_digest(parts),
            self.folder,
            tuple(parts),
        )

    @property
    def _file(self) -> CardFile:
        return CardFile.model_validate(self._settings)

    @property
    def _settings(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, include=set(CardFile.model_fields))

    def dump(self) -> bytes:
        """Serializes the card for a run: settings, types, prompt and the digest of the data file, without the
        folder.
        """
        return msgspec.json.encode(self._to_stored())

    def _to_stored(self) -> dict[str, Any]:
        stored_fields = {
            "settings": self._settings,
            "input": self.input_schema,
            "output": self.output_schema,
            "prompt": self.template,
        }
        members = {"members": [part._to_stored() for part in self.member_cards]} if self.member_cards else {}
        return {
            "format": "orchestra/card/v1",
            **stored_fields,
            "data": self.data_digest,
            "digest": self.digest,
            **members,
        }

    @classmethod
    def restore(cls, data: bytes, folder: Path | None = None, folders: Mapping[str, Path | None] | None = None) -> Card:
        """Restores a card that `dump` wrote, with the same digest. The bytes are not trusted.

        Args:
            data: The serialized card.
            folder: The folder of the data file and of the adapter.
            folders: The folders of an ensemble's members, by name.

        Raises:
            InputError: A012 if the bytes are not a card, the digest differs, or the data file has changed; A003 or A004
            if
                the data file cannot be read.
        """
        if len(data) > MAX_STORED_BYTES:
            raise invalid_stored_card(f"it has more than {MAX_STORED_BYTES >> 20} MiB")
        try:
            stored_card = _StoredCard.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise invalid_stored_card(
                f"{'.'.join(str(step) for step in first['loc'])}: {first['msg']}".removeprefix(": ")
            ) from error
        return cls._restored(stored_card, folder, folders or {})

    @classmethod
    def _restored(cls, stored_card: _StoredCard, folder: Path | None, folders: Mapping[str, Path | None]) -> Card:
        file, name = stored_card.settings, stored_card.settings.name
        try:
            location = SourceLocation(f"the agent {name!r}", 1)
            prompt = Path(f"the prompt of {name}")
            check_card(
                file,
                stored_card.input,
                stored_card.output,
                stored_card.prompt,
                prompt,
                lambda *_: location,
                stored=True,
            )
        except InputError as error:
            raise invalid_stored_card(error.message, name) from error
        parts = tuple(cls._restored(member, folders.get(member.settings.name), {}) for member in stored_card.members)
        members_match = (
            tuple(part.name for part in parts) == file.members and _members_digest(parts) == stored_card.data
        )
        if (parts or (stored_card.data and file.kind == "ensemble")) and not members_match:
            raise invalid_stored_card("it has other members", name)
        restored_card = cls._build(
            file, stored_card.input, stored_card.output, stored_card.prompt, stored_card.data, folder, parts
        )
        if restored_card.digest != stored_card.digest:
            reason = (
                f"its contents have the digest {restored_card.digest}, but it was stored as "
                f"{stored_card.digest}, so it was damaged"
                " or edited"
            )
            raise invalid_stored_card(reason, name)
        has_data = file.kind in KINDS_WITH_ARRAYS or file.calibration is not None
        if (
            folder is not None
            and has_data
            and (stored_card.data or file.kind in KINDS_WITH_ARRAYS)
            and _data_digest(file, folder) != stored_card.data
        ):
            text = " or ".join(
                file_name
                for file_name in (file.data if file.kind in KINDS_WITH_ARRAYS else "", file.calibration)
                if file_name
            )
            raise InputError("A012", f"{name}: {text} has changed since the run began", hint="orchestra runs fork RUN")
        return restored_card

    def with_settings(self, *, folder: Path | None = None, **settings: Any) -> Card:
        """Returns the card with other settings, or with the files of another folder. The digest is computed anew.

        Raises:
            InputError: A004 if the folder lacks the data file that the card names.
        """
        file = CardFile.model_validate({**self._settings, **settings})
        data = self.data_digest if file.kind in KINDS_WITH_ARRAYS or file.calibration or self.member_cards else ""
        settings_folder = folder or (self.folder if "calibration" in settings else None)
        if settings_folder is not None and file.kind in KINDS_WITH_ARRAYS:
            data = _data_digest(file, settings_folder)
        return self._build(
            file, self.input_schema, self.output_schema, self.template, data, folder or self.folder, self.member_cards
        )

    def with_prompt(self, text: str, file: Path) -> Card:
        """Returns the card with another prompt. `file` is the source of the prompt, for error locations.

        Raises:
            InputError: A005 or A006 if the prompt cannot be rendered.
        """
        template.check(text, self.input_schema.get("properties", {}), file)
        return self._build(self._file, self.input_schema, self.output_schema, text, self.data_digest, self.folder)

    @property
    def is_trained(self) -> bool:
        """Whether the agent can be called: an agent with arrays needs them, an ensemble needs trained members."""
        if self.kind == "ensemble":
            return bool(self.member_cards) and all(part.is_trained for part in self.member_cards)
        return self.kind not in KINDS_WITH_ARRAYS or bool(self.data_digest)

    @property
    def missing_weights(self) -> int:
        """The bytes of the weights that this agent of the package and its members lack; 0 for other agents."""
        from orchestra.core.agent_weights import missing_weights

        own_bytes = sum(missing_weights(self.folder).values())
        return own_bytes + sum(part.missing_weights for part in self.member_cards)

    def require_weights(self) -> None:
        """Raises `FleetError` A025 if the weights of this agent of the package are not installed."""
        from orchestra.core.agent_weights import require_weights

        require_weights(self.name, self.folder)

    @property
    def uses_model(self) -> bool:
        """Whether calls use a model of the fleet."""
        return self.kind == "model" or any(part.kind == "model" for part in self.member_cards)

    def is_model_member(self, name: str) -> bool:
        """Whether the ensemble has a member of this name that uses a model of the fleet."""
        return any(part.name == name and part.kind == "model" for part in self.member_cards)

    @property
    def output_form(self) -> OutputForm:
        """The fields of the output that a model writes, and those that code computes."""
        return OutputForm.build(self.output_schema, self.computed)

    @property
    def has_confidence(self) -> bool:
        """Whether the probability of the text measures the model's confidence.

        It does not for free prose, where many texts have the same meaning.
        """
        return self.kind == "model" and (self.grammar is not None or not is_plain_text(self.output_form.text_schema))

    @property
    def current_calibration(self) -> Calibration | None:
        """The calibration, if it was made for the current adapter or arrays; otherwise None.

        Raises:
            InputError: A014 if the file is not a valid calibration.
        """
        if self.calibration is None or not self.data_digest or self.folder is None:
            return None
        if self.kind in KINDS_WITH_ARRAYS and self.data_digest == self.weights_digest:
            return None  # the digest is of the data alone: the card had no calibration when it was loaded
        location = SourceLocation(str(self.folder / CARD_FILE), 1)
        data = (
            _read_if_exists(self.folder, self.calibration, location, MAX_DATA_BYTES)
            if self.kind in KINDS_WITH_ARRAYS
            else self.read(self.calibration)
        )
        if data is None:
            return None  # the arrays were replaced after loading, and there is no calibration yet
        calibration = Calibration.read(
            data, self.output_form.choices, SourceLocation(str(self.folder / self.calibration), 1)
        )
        return calibration if calibration.adapter == self.weights_digest else None

    @property
    def weights_digest(self) -> str:
        """Digest of the weights, or an empty string if there are none or the digest is unknown.

        For an adapter it is the SHA-256 in the adapter's manifest. For an agent with arrays it is the digest of the
        data file, which names the digest of the arrays. For an ensemble it is a digest of the members' digests.
        """
        if self.member_cards:
            return digest(msgspec.json.encode([part.weights_digest for part in self.member_cards]))
        if self.kind in KINDS_WITH_ARRAYS:
            return digest(self.read(self.data)) if self.folder is not None and self.data_digest else ""
        if self.adapter is None or self.folder is None:
            return ""
        try:
            return decode_json((self.folder / self.adapter / "manifest.json").read_bytes(), _AdapterManifest).sha256
        except (OSError, JsonDecodingError):
            return ""

    @cached_property
    def untuned_card(self) -> Card | None:
        """The card for a model without the adapter, with the digest of this one; None if its prompt is the same.

        Raises:
            InputError: A004 if the file of `untuned` cannot be read.
        """
        if self.untuned is None or self.folder is None:
            return None
        text = self.read(self.untuned, MAX_BYTES).decode("utf-8-sig", "replace")
        if self.system.strip():
            return self.model_copy(update={"system": f"{self.system.strip()}\n\n{text.strip()}", "untuned": None})
        return self.model_copy(update={"template": template.extend_system(self.template, text), "untuned": None})

    @cached_property
    def tool_use_cards(self) -> tuple[Card, Card] | None:
        """The two cards of an agent with tools: one requests the next line, one requests the answer. None for other
        agents.

        Both have the agent's name. Their digests differ.
        """
        if not self.tools and not self.agents:
            return None
        bare = {
            **self._settings,
            "tools": (),
            "agents": (),
            "limits": None,
            "checks": (),
            "accept": None,
            "otherwise": (),
            "untuned": None,
        }
        unlearnt: dict[str, Any] = {"computed": {}, "calls": {}, "calibration": None, "evidence": None}
        line = {
            "output": "str",
            "grammar": tool_prompt.GRAMMAR,
            "max_output": max(tool_prompt.MAX_STEP_TOKENS, self.max_output),
            "min_output": tool_prompt.MIN_STEP_TOKENS,
        }
        step_card = self._build(
            CardFile.model_validate({**bare, **unlearnt, **line}),
            tool_prompt.inject_inputs(self.input_schema, tool_prompt.GRAMMAR),
            {"type": "string"},
            tool_prompt.step_prompt(self.template),
            folder=self.folder,
        )
        return (
            # not in the digest: the functions repeat what the tools and the grammar say, in the form of another server
            step_card.model_copy(update={"input_schema": tool_prompt.with_functions(step_card.input_schema)}),
            self._build(
                CardFile.model_validate({**bare, "evidence": tool_prompt.RESULTS}),
                tool_prompt.inject_inputs(self.input_schema, tool_prompt.RESULTS),
                self.output_schema,
                tool_prompt.answer_prompt(self.template),
                self.data_digest,
                self.folder,
            ),
        )

    @cached_property
    def _tool_use(self) -> ToolUse | None:
        if (forms := self.tool_use_cards) is None:
            return None
        limits = self.limits or ToolLimits()
        limit_fields = {"steps": limits.steps, "width": limits.width, "shown": limits.shown, "repairs": limits.repairs}
        return ToolUse(self.tools, self.agents, forms[0].contract, forms[1].contract, **limit_fields)

    @property
    def contract(self) -> Contract:
        """The contract of the agent."""
        return Contract(
            name=self.name,
            kind="agent",
            input=self.input_schema,
            output=self.output_schema,
            description=self.description,
            max_output=(
                self.max_output if self.kind == "model" else sum(part.contract.max_output for part in self.member_cards)
            ),
            label=self.label,
            checks=self.checks,
            digest=self.digest,
            evidence=self.evidence or "",
            accept=self.accept,
            otherwise=self.otherwise,
            tool_use=self._tool_use,
            model_identity=self._model_identity({}),
        )

    def served_contract(self, models: Mapping[str, Sequence[str]]) -> Contract:
        """Returns the contract in a fleet.

        Args:
            models: The models served under each name. The model identity of the contract covers all of them.
        """
        return replace(self.contract, model_identity=self._model_identity(models)) if models else self.contract

    def _model_identity(self, models: Mapping[str, Sequence[str]]) -> str:
        """Digest of model, adapter and prompt, or of the data file for an agent without a prompt.

        The agent's name and insignificant white space of the prompt are left out. For an ensemble, the members'
        identities are joined by `+`.
        """
        if self.member_cards:
            return "+".join(part._model_identity(models) for part in self.member_cards)
        data = self.data_digest if self.kind in KINDS_WITH_ARRAYS else ""
        templates = [template.normalize_template(text or "") for text in (self.system, self.template)]
        names = models.get(self.model, ()) if self.kind == "model" else ()
        return "+".join(
            digest(msgspec.json.encode([self.kind, name, self.adapter, *templates, data]))
            for name in names or (self.model,)
        )

    def locate(self, *path: str | int) -> SourceLocation:
        """Returns the location of a key in the card's file, or of the nearest enclosing key, for faults found after
        loading.
        """
        if self.folder is None:
            return SourceLocation(f"the agent {self.name!r}", 1)
        file = self.folder / CARD_FILE
        try:
            return load_yaml(_read_file(self.folder, CARD_FILE, SourceLocation(str(file), 1)), str(file)).location(path)
        except InputError:
            return SourceLocation(str(file), 1)

    def read(self, name: str, limit: int = MAX_DATA_BYTES) -> bytes:
        """Reads a file of the card's folder.

        Raises:
            InputError: A003 if the path leads out of the folder, A004 if the file does not exist.
            FleetError: A025 if it belongs to weights of the package that are not installed.
        """
        if self.folder is None:
            raise InputError(
                "A004",
                f"the agent {self.name!r} has no folder, and so no {name}",
                hint="write it as a folder under agents/",
            )
        if not (self.folder / name).exists():
            self.require_weights()
        location = SourceLocation(str(self.folder / CARD_FILE), 1)
        if name == self.data and self.kind in KINDS_WITH_ARRAYS and not (self.folder / name).exists():
            hint = f"orchestra learn train {self.name} --data DATA, then orchestra learn promote"
            raise InputError(
                "A004", f"{self.name} is not trained yet: {self.folder} has no {name}", location=location, hint=hint
            )
        return _read_file(self.folder, name, location, limit)


class _AdapterManifest(msgspec.Struct):
    """The keys of an adapter's manifest that are read here (`orchestra.learn.lora_adapter.AdapterTrainingRecord`)."""

    sha256: str = ""


class _StoredCard(BaseModel):
    """The format of `Card.dump`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True, defer_build=True)

    format: Literal["orchestra/card/v1"]
    settings: CardFile
    input: Schema
    output: Schema
    prompt: str
    data: str
    digest: str
    members: tuple[_StoredCard, ...] = ()


def _members_digest(parts: Sequence[Card]) -> str:
    return digest(msgspec.json.encode([part.digest for part in parts]))


def invalid_stored_card(why: str, name: str = "") -> InputError:
    """Returns the error for a stored card that cannot be used."""
    whose = f"the card of {name!r} that was" if name else "a card that was"
    hint = "restore the journal from a backup, or start a new run"
    return InputError("A012", f"{whose} stored with this run cannot be used: {why}", hint=hint)


def _read_types(
    file: CardFile, models: Mapping[str, Schema] | None, yaml_document: YamlDocument
) -> tuple[Schema, Schema]:
    types = resolve_types(file.types, {**project_models(), **(models or {})}, partial(yaml_document.locate, "types"))
    inputs = _input_schema(file, types, partial(yaml_document.locate, "input"))
    outputs = output_type(file.output, types, partial(yaml_document.locate, "output"))
    return inputs, outputs


def _input_schema(file: CardFile, types: Mapping[str, Schema], at: Callable[[str], SourceLocation]) -> Schema:
    """Returns the inputs as a record schema in which inputs with a default are optional.

    Raises:
        InputError: A002 if a default is not of its type.
    """
    schema = record_schema(
        {
            name: input_type if isinstance(input_type, str) else input_type.type
            for name, input_type in file.input.items()
        },
        types,
        at,
    )
    for name, input_type in file.input.items():
        if isinstance(input_type, str):
            continue
        field = schema["properties"][name]
        if fault := Validator(subschema(schema, field)).check(input_type.default):
            raise InputError(
                "A002",
                f"the default of {name!r}: {fault}",
                location=at(name),
                hint="a default is a value of the input's type",
            )
        schema["properties"][name] = {**field, "default": input_type.default}
        schema["required"].remove(name)
    return schema


def _data_digest(file: CardFile, folder: Path, yaml_document: YamlDocument | None = None) -> str:
    """Returns the digest of a card's data file, of its calibration, or of both. Empty if neither exists.

    `yaml_document` is the card's file at first loading, when the data file may not exist yet.

    Raises:
        InputError: A003 or A004, as `_read_file`.
    """
    data_keys = ["data"] if file.kind in KINDS_WITH_ARRAYS else []
    data_keys += ["calibration"] if file.calibration is not None else []
    file_digests: list[str] = []
    for key in data_keys:
        name = str(getattr(file, key))
        location = (
            SourceLocation(str(folder / CARD_FILE), 1) if yaml_document is None else yaml_document.location((key,))
        )
        read_file = _read_file if yaml_document is None and key == "data" else _read_if_exists
        if (
            data := read_file(folder, name, location, MAX_DATA_BYTES if yaml_document is None else MAX_BYTES)
        ) is not None:
            file_digests.append(digest(data))
        elif key == "data":  # a missing data file is made by training
            return ""
    return (
        file_digests[0] if len(file_digests) == 1 else digest(msgspec.json.encode(file_digests)) if file_digests else ""
    )


def _read_prompt(folder: Path, name: str, yaml_document: YamlDocument, key: str = "prompt") -> str:
    location = yaml_document.location((key,))
    try:
        return _read_file(folder, name, location, MAX_BYTES).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InputError("A004", f"{name} is not UTF-8", location=location, hint="save it as UTF-8") from error


def _read_if_exists(folder: Path, name: str, location: SourceLocation, limit: int = MAX_BYTES) -> bytes | None:
    """Returns the bytes of a file as `_read_file` does, or None if it does not exist."""
    try:
        return _read_file(folder, name, location, limit)
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise


def _read_file(folder: Path, name: str, location: SourceLocation, limit: int = MAX_BYTES) -> bytes:
    """Reads a file inside a folder. Symbolic links are followed and checked."""
    try:
        root, path = folder.resolve(), (folder / name).resolve()
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # ValueError for a NUL; Python 3.11 raises RuntimeError for a cycle of links
        raise InputError(
            "A004", f"cannot read {folder / name}: {error}", location=location, hint=f"create {name} in {folder}"
        ) from error
    if not path.is_relative_to(root):
        raise InputError(
            "A003", f"{name!r} leads out of the card's folder", location=location, hint="put the file beside agent.yaml"
        )
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):  # reading a pipe would block
            raise InputError(
                "A004", f"{folder / name} is not a file", location=location, hint=f"create {name} in {folder}"
            )
        if status.st_size > limit:
            raise InputError(
                "A004", f"{name} has more than {limit >> 20} MiB", location=location, hint="a card's files are small"
            )
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            "A004", f"cannot read {folder / name}: {reason}", location=location, hint=f"create {name} in {folder}"
        ) from error


def _to_input_error(error: ValidationError, model: type[BaseModel], yaml_document: YamlDocument) -> InputError:
    """Converts a validation error of a file to one error with a location for each fault."""
    errors = [_located_error(entry, model, yaml_document) for entry in error.errors(include_url=False)]
    return _merge_errors(errors)


def _merge_errors(errors: Sequence[InputError]) -> InputError:
    """Returns a single error, or all errors sorted by location."""
    ordered_errors = sorted(
        errors, key=lambda error: (error.location.line, error.location.column) if error.location else (0, 0)
    )
    return ordered_errors[0] if len(ordered_errors) == 1 else InputErrors(list(ordered_errors))


def _located_error(entry: ErrorDetails, model: type[BaseModel], yaml_document: YamlDocument) -> InputError:
    path = yaml_document.path(entry["loc"], missing=entry["type"] == "missing")
    name = ".".join(str(step) for step in path) or "the card"
    if entry["type"] == "extra_forbidden":
        known_keys = _known_keys(model, path[:-1])
        near, holder = (
            closest_match(str(path[-1]), known_keys),
            _parent_key(str(path[-1]), model) if len(path) == 1 else "",
        )
        hint = f"did you mean {near!r}?" if near else f"keys here: {', '.join(known_keys)}" if known_keys else ""
        hint = f"it belongs in another key: `{holder}: {{{name}: …}}`" if holder else hint
        return InputError(
            "A002", f"a card has no key {name!r}", location=yaml_document.location(path, key=True), hint=hint
        )
    if entry["type"] == "missing":
        return InputError(
            "A002",
            f"the key {name!r} is missing",
            location=yaml_document.location(path[:-1]),
            hint=f"add `{path[-1]}:`",
        )
    reason = str(entry["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    return InputError(
        "A002",
        f"{name}: expected {reason}" if "should be" in entry["msg"] else f"{name}: {reason}",
        location=yaml_document.location(path),
    )


def _parent_key(name: str, model: type[BaseModel]) -> str:
    """Returns the top-level key whose record has this key, such as `sampling` for `temperature`; empty if none has."""
    return next((key for key in model.model_fields if name in _known_keys(model, (key,))), "")


def _known_keys(model: type[BaseModel], path: Iterable[Any]) -> list[str]:
    for step in path:
        info = model.model_fields.get(str(step))
        inner = info.annotation if info else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return [info.alias or name for name, info in model.model_fields.items()]
