"""The certificates of a project's agents, found beside their cards and compared with what they depend on. Calls no
server.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias, TypeVar

from orchestra.agents.card import Card
from orchestra.agents.card_file import KINDS_WITH_ARRAYS
from orchestra.agents.registry import Registry
from orchestra.core.errors import InputError, SourceLocation
from orchestra.core.settings import Settings
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification.certificates.format import (
    CERTIFICATE_FILE,
    CLAIMS_FILE,
    COMBINATION_FILE,
    MAX_BYTES,
    CertificateFile,
)
from orchestra.workflows.program import Program

if TYPE_CHECKING:
    from orchestra.verification.certificates.claims_file import ClaimsCertificate
    from orchestra.verification.certificates.combination import Combination
    from orchestra.verification.certificates.file import Certificate, DependencyDigests

C = TypeVar("C", bound=CertificateFile)
FileStamp: TypeAlias = tuple[str, int, int, int]
"""A file's path, time, inode and size."""

CHECK_SOURCES = (
    "agents/ensemble_voting.py",
    "agents/inference/logprob_confidence.py",
    "verification/acceptance.py",
    "verification/rederivation.py",
    "verification/model_checks.py",
    "verification/partial_answers.py",
    "verification/certificates/combination.py",
    "verification/deterministic.py",
    "verification/entailment.py",
    "verification/equivalence.py",
    "verification/session.py",
    "verification/formats.py",
    "verification/evidence_numbers.py",
    "text/numbers/numbers.py",
    "verification/answer_parts.py",
    "text/quotes.py",
    "verification/check_expression.py",
    "verification/number_match.py",
    "text/numbers/times.py",
    "verification/custom_checks.py",
    "text/numbers/unparsed.py",
    "verification/verdict.py",
    "text/arithmetic.py",
    "schema/assignability.py",
    "text/numbers/iso_codes.py",
    "text/numbers/currencies.py",
    "text/numbers/numerals.py",
    "schema/fields.py",
    "schema/validator.py",
    "text/numbers/words.py",
    "text/numbers/units.py",
    "text/keywords.py",
)
"""The files of the package whose code makes judgements and scores."""


class _AgentFiles(Mapping[str, C]):
    """Files with one name beside agents' cards, read on access."""

    file: ClassVar[str]

    def __init__(self, settings: Settings, registry: Callable[[], Registry]) -> None:
        self._settings, self._registry = settings, registry

    @abstractmethod
    def _read_valid(self, registry: Registry, path: Path, agent: str) -> C:
        """Reads and validates the file; raises `InputError` if it does not apply today."""

    def __getitem__(self, agent: str) -> C:
        registry = self._registry()
        path = find_certificate(self._settings, registry, agent, self.file)
        if path is None:
            raise KeyError(agent)
        return self._read_valid(registry, path, agent)

    def __iter__(self) -> Iterator[str]:
        registry = self._registry()
        return (
            name for name in registry.agents if find_certificate(self._settings, registry, name, self.file) is not None
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)


class AgentCertificates(_AgentFiles["Certificate"]):
    """The certificates by agent, read on access; raises `InputError` V002 to V008 for an invalid one."""

    file = CERTIFICATE_FILE

    def _read_valid(self, registry: Registry, path: Path, agent: str) -> Certificate:
        location, certificate = SourceLocation(str(path), 1), read_certificate(path, agent)
        if certificate.void_reason:
            message = f"the certificate of {agent!r} is void: {certificate.void_reason}"
            raise InputError("V002", message, location=location, hint=certificate.renew_command)
        if changes := certificate.dependencies.changes(dependency_digests(self._settings, registry, agent)):
            message = f"the certificate of {agent!r} is void: {' and '.join(changes)} changed since it was made"
            raise InputError("V002", message, location=location, hint=certificate.renew_command)
        return certificate


class ClaimsCertificates(_AgentFiles["ClaimsCertificate"]):
    """The certificates of agents' claims, read on access; raises `InputError` V002 to V007 for an invalid one."""

    file = CLAIMS_FILE

    def _read_valid(self, registry: Registry, path: Path, agent: str) -> ClaimsCertificate:
        location, certificate = SourceLocation(str(path), 1), read_claims_certificate(path, agent)
        void_reason = certificate.void_reason or " and ".join(
            certificate.changes(
                dependency_digests(self._settings, registry, agent),
                dependency_digests(self._settings, registry, certificate.judge),
            )
        )
        if void_reason:
            reason = void_reason if certificate.void_reason else f"{void_reason} changed since it was made"
            raise InputError(
                "V002",
                f"the certificate of {agent!r} about claims is void: {reason}",
                location=location,
                hint=certificate.renew_command,
            )
        return certificate


class AgentCombinations(_AgentFiles["Combination"]):
    """The combinations of agents' checks, read on access; raises `InputError` V002 to V007 for an invalid one."""

    file = COMBINATION_FILE

    def _read_valid(self, registry: Registry, path: Path, agent: str) -> Combination:
        return read_combination(self._settings, registry, path, agent)


def read_certificate(path: Path, agent: str) -> Certificate:
    """Reads a certificate. Raises `InputError` V003, V004, and V005 for one of another agent."""
    from orchestra.verification.certificates.file import Certificate

    location = SourceLocation(str(path), 1)
    return _require_agent(Certificate.from_bytes(_read_bytes(path, agent), location), agent, location)


def read_claims_certificate(path: Path, agent: str) -> ClaimsCertificate:
    """Reads a certificate of claims. Raises as `read_certificate`."""
    from orchestra.verification.certificates.claims_file import ClaimsCertificate

    location = SourceLocation(str(path), 1)
    return _require_agent(ClaimsCertificate.from_bytes(_read_bytes(path, agent), location), agent, location)


def read_combination(settings: Settings, registry: Registry, path: Path, agent: str = "") -> Combination:
    """Reads a combination and compares it with what it depends on; of `agent`, if given. Raises `InputError` V002 to
    V007.
    """
    from orchestra.verification.certificates.combination import Combination

    location = SourceLocation(str(path), 1)
    combination = Combination.from_bytes(_read_bytes(path, agent or "AGENT"), location)
    if agent:
        _require_agent(combination, agent, location)
    judges = {name: judge_dependency_digests(settings, registry, name) for name in combination.judge_dependencies}
    if changed_parts := combination.changes(dependency_digests(settings, registry, combination.agent), judges):
        changes = f"{' and '.join(changed_parts)} changed since it was made"
        message = f"the combination of checks of {combination.agent!r} is void: {changes}"
        raise InputError("V002", message, location=location, hint=combination.renew_command)
    return combination


def _read_bytes(path: Path, agent: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            "V003", f"{path} cannot be read: {error.strerror or error}", hint=f"orchestra certify {agent}"
        ) from error


def _require_agent(certificate: C, agent: str, location: SourceLocation) -> C:
    if certificate.agent != agent:
        reason = (
            f"{Path(location.file).name} is about the agent {certificate.agent!r}, and lies in the folder of {agent!r}"
        )
        raise InputError("V005", reason, location=location, hint=f"orchestra certify {agent} --data FILE")
    return certificate


def find_certificate(settings: Settings, registry: Registry, agent: str, file: str = CERTIFICATE_FILE) -> Path | None:
    """Returns the path of an agent's certificate: in one of the user's folders, else beside its card; None if there is
    none.
    """
    card = registry.cards.get(agent)
    places = [folder / agent for folder in settings.agents]
    if card is not None and card.folder is not None:
        places.append(card.folder)
    return next((place / file for place in places if (place / file).exists()), None)


def default_path(settings: Settings, registry: Registry, agent: str, file: str = CERTIFICATE_FILE) -> Path:
    """Returns where to write an agent's certificate: beside its card if that is the user's, else in the user's first
    folder of agents.
    """
    card = registry.cards.get(agent)
    if card is not None and card.folder is not None:
        agent_folder = card.folder.resolve()
        if any(agent_folder.is_relative_to(folder.resolve()) for folder in settings.agents):
            return card.folder / file
    return settings.agents[0] / agent / file


def writable_path(settings: Settings, registry: Registry, agent: str, file: str = CERTIFICATE_FILE) -> Path:
    """Returns where to rewrite an agent's certificate that audits void, with the log of audits: its folder if that is
    the user's, else the default path.
    """
    path = find_certificate(settings, registry, agent, file)
    is_own = path is not None and any(path.resolve().is_relative_to(folder.resolve()) for folder in settings.agents)
    return path if path is not None and is_own else default_path(settings, registry, agent, file)


def dependency_digests(settings: Settings, registry: Registry, agent: str) -> DependencyDigests:
    """Returns the digests on which an agent's answers and scores depend today.

    Raises:
        InputError: V007: one is unknown: a server without a revision, weights that are not here.
    """
    from orchestra.verification.certificates.file import DependencyDigests

    card, code = registry.cards.get(agent), registry.python_agents.get(agent)
    if card is None:
        raise InputError(
            "V007",
            f"{agent!r} has no card that a certificate could be bound to",
            hint="write it as a folder under agents/",
        )
    if card.member_cards:
        return _ensemble_digests(settings, card)
    card_digest, checks = _card_digest(card), checks_digest()
    if card.kind == "model":
        return DependencyDigests(card_digest, *_model_and_adapter_digests(settings, card), checks)
    if card.kind in KINDS_WITH_ARRAYS:
        return DependencyDigests(card_digest, "", card.data_digest, checks)
    version = code.contract.version if code is not None else ""
    if not version:
        raise InputError(
            "V007", f"the code of {agent!r} has no version, and may change unseen", hint='@agent(version="1")'
        )
    return DependencyDigests(card_digest, "", version, checks)


def judge_dependency_digests(settings: Settings, registry: Registry, judge: str) -> DependencyDigests:
    """Returns the digests on which a judge's verdicts depend: an agent by name, or `tool(NAME)`. Raises `InputError`
    V007, V011.
    """
    from orchestra.verification.certificates.file import DependencyDigests
    from orchestra.verification.custom_checks import tool_name

    if not (name := tool_name(judge)):
        return dependency_digests(settings, registry, judge)
    tool = registry.tools.get(name)
    if tool is None:
        raise InputError("V011", f"a check asks the tool {name!r}, and there is none", hint="orchestra validate")
    if not (code := tool.version or tool.source_digest):
        raise InputError(
            "V007", f"the code of the tool {name!r} may change unseen", hint='@tool(effect="pure", version="1")'
        )
    return DependencyDigests(tool.contract.digest, "", code, checks_digest())


def _ensemble_digests(settings: Settings, card: Card) -> DependencyDigests:
    """Returns the digests of an ensemble's members, also if other agents have their names."""
    from orchestra.verification.certificates.file import DependencyDigests

    digest_pairs = [
        _model_and_adapter_digests(settings, part) if part.kind == "model" else ("", part.data_digest)
        for part in card.member_cards
    ]
    models, adapters_digest = (digest(canonical(list(digests))) for digests in zip(*digest_pairs, strict=True))
    content = [[_card_digest(part) for part in card.member_cards], list(card.weights), card.enough, card.evidence]
    return DependencyDigests(digest(canonical(content)), models, adapters_digest, checks_digest())


def _card_digest(card: Card) -> str:
    """Returns the digest of a card without its acceptance."""
    return card.with_settings(description="", checks=(), accept=None, otherwise=(), label="restricted").digest


def dependency_stamps(settings: Settings, registry: Registry, program: Program) -> tuple[FileStamp, ...]:
    """Returns stamps that change when a certificate of a program is replaced, or an adapter, arrays or the fleet file
    on which it depends.

    A long-lived process compiles a program again when the stamps change. Empty without certificates.
    """
    wholes = any(acceptance.whole_workflow for acceptance in program.certified_acceptances)
    certificates = [
        acceptance.certificate
        for acceptance in program.certified_acceptances
        if acceptance.certificate and not acceptance.whole_workflow
    ]
    names = {certificate.agent for certificate in certificates} | (
        {name for name, _ in program.possible_agents} if wholes else set()
    )
    if certificates:
        from orchestra.verification.certificates.claims_file import ClaimsCertificate

        names |= {certificate.judge for certificate in certificates if isinstance(certificate, ClaimsCertificate)}
    for combination in (
        acceptance.combination for acceptance in program.certified_acceptances if acceptance.combination
    ):
        from orchestra.verification.custom_checks import tool_name

        names |= {combination.agent, *(judge for judge in combination.judge_dependencies if not tool_name(judge))}
    paths: list[Path | None] = []
    for name in sorted(names):
        paths += [
            find_certificate(settings, registry, name, file)
            for file in (CERTIFICATE_FILE, CLAIMS_FILE, COMBINATION_FILE)
        ]
        card = registry.cards.get(name)
        for member_card in () if card is None else (card, *card.member_cards):
            if member_card.folder is not None:
                paths += [
                    path
                    for path in sorted((member_card.folder / (member_card.adapter or "")).glob("*"))
                    if path.is_file()
                ]
    if names:
        paths.append(settings.resources("configs").get(settings.fleet))
    return tuple(map(file_stamp, paths))


def file_stamp(path: Path | None) -> FileStamp:
    """Returns the stamp of a file; of a missing file, an empty one."""
    try:
        stat = path.stat() if path is not None else None
    except OSError:
        stat = None
    return (str(path), 0, 0, 0) if stat is None else (str(path), stat.st_mtime_ns, stat.st_ino, stat.st_size)


def checks_digest() -> str:
    """Returns the digest of the code of the checks, independent of line ends."""
    package = resources.files("orchestra")
    return digest(
        canonical([(name, package.joinpath(name).read_text("utf-8").replace("\r\n", "\n")) for name in CHECK_SOURCES])
    )


def _model_and_adapter_digests(settings: Settings, card: Card) -> tuple[str, str]:
    """Returns digests of a card's model and adapter."""
    from orchestra.fleet.call_estimates import CONSTRAINT_VERSION
    from orchestra.fleet.config import Endpoint, configured_fleet
    from orchestra.fleet.model_digests import ModelDigests
    from orchestra.fleet.server_selection import supported_constraint
    from orchestra.fleet.weights.weights import ModelStore

    fleet = configured_fleet(settings)
    names = fleet.servers_for(card.model)
    marks = ModelDigests(ModelStore.from_environment(hub=settings.hub or None))
    models, adapters = set(), set()
    for name in names:
        target = fleet.servers[name]
        model, adapter = marks.base_digest(name, target), marks.adapter_digest(name, target, card)
        if not model or not adapter:
            local = not isinstance(target, Endpoint)
            reason = "its files are not here" if local else "its endpoint has no `revision:`"
            hint = "orchestra fleet start" if local else f"write revision: under servers.{name} of the fleet file"
            raise InputError("V007", f"the model {name!r} of {card.name!r} is unknown: {reason}", hint=hint)
        models.add(f"{model} {supported_constraint(target, settings.constraint)}")
        adapters.add(adapter)
    if not names:
        raise InputError("V007", f"the fleet {fleet.name!r} has no model {card.model!r}", hint="orchestra explain F201")
    return digest(canonical([CONSTRAINT_VERSION, sorted(models)])), digest(canonical(sorted(adapters)))
