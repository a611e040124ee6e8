"""The certificates of a project's agents: found beside their cards, and held against what they are bound to. Asks no server."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias, TypeVar

from orchestra.agents.card import Card
from orchestra.agents.card_file import WITH_ARRAYS
from orchestra.agents.registry import Registry
from orchestra.core.errors import InputError, Place
from orchestra.core.settings import Settings
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification.certificates.sealed import CERTIFICATE, CLAIMS, COMBINATION, MAX_BYTES, Sealed
from orchestra.workflows.program import Program

if TYPE_CHECKING:
    from orchestra.verification.certificates.claims_file import ClaimsCertificate
    from orchestra.verification.certificates.combination import Combination
    from orchestra.verification.certificates.file import Bonds, Certificate

C = TypeVar("C", bound=Sealed)
Stamp: TypeAlias = tuple[str, int, int, int]
"""A file's path, time, inode and size."""

CHECKED_BY = (
    "agents/ensemble_voting.py",
    "agents/inference/logprob_confidence.py",
    "verification/acceptance.py",
    "verification/rederivation.py",
    "verification/model_checks.py",
    "verification/partial_answers.py",
    "verification/certificates/combination.py",
    "verification/combine_verdicts.py",
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
    "text/numbers/checksums.py",
    "text/numbers/currencies.py",
    "text/numbers/numerals.py",
    "schema/fields.py",
    "schema/string_formats.py",
    "text/numbers/iso_codes.py",
    "text/numbers/months.py",
    "text/negations.py",
    "text/numbers/lexicon.py",
    "text/numbers/phrases.py",
    "text/numbers/words.py",
    "text/numbers/units.py",
    "schema/validator.py",
    "text/keywords.py",
)
"""The files of the package whose code makes a ruling and its score."""


class _Beside(Mapping[str, C]):
    """What agents have in a file of this name, read when it is asked for."""

    file: ClassVar[str]

    def __init__(self, settings: Settings, registry: Callable[[], Registry]) -> None:
        self._settings, self._registry = settings, registry

    @abstractmethod
    def _held(self, registry: Registry, path: Path, agent: str) -> C:
        """What the file holds; raises `InputError` where it does not hold today."""

    def __getitem__(self, agent: str) -> C:
        registry = self._registry()
        path = found(self._settings, registry, agent, self.file)
        if path is None:
            raise KeyError(agent)
        return self._held(registry, path, agent)

    def __iter__(self) -> Iterator[str]:
        registry = self._registry()
        return (name for name in registry.agents if found(self._settings, registry, name, self.file) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Certificates(_Beside["Certificate"]):
    """The certificates by agent, read when they are asked for; asking raises `InputError` V002 to V008 for one that does not hold."""

    file = CERTIFICATE

    def _held(self, registry: Registry, path: Path, agent: str) -> Certificate:
        place, certificate = Place(str(path), 1), read(path, agent)
        if certificate.void:
            why = f"the certificate of {agent!r} is void: {certificate.void}"
            raise InputError("V002", why, place=place, hint=certificate.command)
        if changed := certificate.bonds.changed(bonds(self._settings, registry, agent)):
            why = f"the certificate of {agent!r} is void: {' and '.join(changed)} changed since it was made"
            raise InputError("V002", why, place=place, hint=certificate.command)
        return certificate


class Claims(_Beside["ClaimsCertificate"]):
    """The certificates of agents' claims, read when they are asked for; raises `InputError` V002 to V007 for one that does not hold."""

    file = CLAIMS

    def _held(self, registry: Registry, path: Path, agent: str) -> ClaimsCertificate:
        place, certificate = Place(str(path), 1), read_claims(path, agent)
        changed = certificate.void or " and ".join(
            certificate.changed(bonds(self._settings, registry, agent), bonds(self._settings, registry, certificate.judge))
        )
        if changed:
            why = changed if certificate.void else f"{changed} changed since it was made"
            raise InputError("V002", f"the certificate of {agent!r} about claims is void: {why}", place=place, hint=certificate.command)
        return certificate


class Combinations(_Beside["Combination"]):
    """The combinations of agents' checks, read when they are asked for; raises `InputError` V002 to V007 for one that does not hold."""

    file = COMBINATION

    def _held(self, registry: Registry, path: Path, agent: str) -> Combination:
        return combination(self._settings, registry, path, agent)


def read(path: Path, agent: str) -> Certificate:
    """The certificate of a file. Raises `InputError` V003, V004, and V005 for one of another agent."""
    from orchestra.verification.certificates.file import Certificate

    place = Place(str(path), 1)
    return _of(Certificate.read(_bytes(path, agent), place), agent, place)


def read_claims(path: Path, agent: str) -> ClaimsCertificate:
    """The certificate of claims of a file. Raises as `read`."""
    from orchestra.verification.certificates.claims_file import ClaimsCertificate

    place = Place(str(path), 1)
    return _of(ClaimsCertificate.read(_bytes(path, agent), place), agent, place)


def combination(settings: Settings, registry: Registry, path: Path, agent: str = "") -> Combination:
    """The combination of a file, held against what it is bound to; of `agent`, where one is named. Raises `InputError` V002 to V007."""
    from orchestra.verification.certificates.combination import Combination

    place = Place(str(path), 1)
    found = Combination.read(_bytes(path, agent or "AGENT"), place)
    if agent:
        _of(found, agent, place)
    judges = {name: judge_bonds(settings, registry, name) for name in found.judges}
    if changed := found.changed(bonds(settings, registry, found.agent), judges):
        why = f"the combination of checks of {found.agent!r} is void: {' and '.join(changed)} changed since it was made"
        raise InputError("V002", why, place=place, hint=found.command)
    return found


def _bytes(path: Path, agent: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError("V003", f"{path} cannot be read: {error.strerror or error}", hint=f"orchestra certify {agent}") from error


def _of(certificate: C, agent: str, place: Place) -> C:
    if certificate.agent != agent:
        reason = f"{Path(place.file).name} is about the agent {certificate.agent!r}, and lies in the folder of {agent!r}"
        raise InputError("V005", reason, place=place, hint=f"orchestra certify {agent} --data FILE")
    return certificate


def found(settings: Settings, registry: Registry, agent: str, file: str = CERTIFICATE) -> Path | None:
    """Where an agent's certificate lies: in a folder of the user's own, else beside its card; None where there is none."""
    card = registry.cards.get(agent)
    places = [folder / agent for folder in settings.agents]
    if card is not None and card.folder is not None:
        places.append(card.folder)
    return next((place / file for place in places if (place / file).exists()), None)


def home(settings: Settings, registry: Registry, agent: str, file: str = CERTIFICATE) -> Path:
    """Where an agent's certificate is put: beside its card, where that is the user's own; else into the user's first folder of agents."""
    card = registry.cards.get(agent)
    if card is not None and card.folder is not None:
        own = card.folder.resolve()
        if any(own.is_relative_to(folder.resolve()) for folder in settings.agents):
            return card.folder / file
    return settings.agents[0] / agent / file


def kept(settings: Settings, registry: Registry, agent: str, file: str = CERTIFICATE) -> Path:
    """Where an agent's certificate is written anew when audits void it, with the log of audits beside it: where it lies, if that folder is
    the user's own; else its home."""
    path = found(settings, registry, agent, file)
    own = path is not None and any(path.resolve().is_relative_to(folder.resolve()) for folder in settings.agents)
    return path if path is not None and own else home(settings, registry, agent, file)


def bonds(settings: Settings, registry: Registry, agent: str) -> Bonds:
    """What an agent's answers and their scores follow from today.

    Raises `InputError` V007 where nobody can tell: a server without a revision, weights that are not here.
    """
    from orchestra.verification.certificates.file import Bonds

    card, code = registry.cards.get(agent), registry.code.get(agent)
    if card is None:
        raise InputError("V007", f"{agent!r} has no card that a certificate could be bound to", hint="write it as a folder under agents/")
    if card.parts:
        return _together(settings, card)
    said, checks = _said(card), checks_digest()
    if card.kind == "model":
        return Bonds(said, *_served(settings, card), checks)
    if card.kind in WITH_ARRAYS:
        return Bonds(said, "", card.data_digest, checks)
    version = code.contract.version if code is not None else ""
    if not version:
        raise InputError("V007", f"the code of {agent!r} has no version, and may change unseen", hint='@agent(version="1")')
    return Bonds(said, "", version, checks)


def judge_bonds(settings: Settings, registry: Registry, judge: str) -> Bonds:
    """What the verdicts of a check's judge follow from: an agent by its name, or `tool(NAME)`. Raises `InputError` V007, V011."""
    from orchestra.verification.certificates.file import Bonds
    from orchestra.verification.custom_checks import asked

    if not (name := asked(judge)):
        return bonds(settings, registry, judge)
    tool = registry.tools.get(name)
    if tool is None:
        raise InputError("V011", f"a check asks the tool {name!r}, and there is none", hint="orchestra validate")
    if not (code := tool.version or tool.code):
        raise InputError("V007", f"the code of the tool {name!r} may change unseen", hint='@tool(effect="pure", version="1")')
    return Bonds(tool.contract.digest, "", code, checks_digest())


def _together(settings: Settings, card: Card) -> Bonds:
    """Of an ensemble: of the members that it has, whatever other agents have their names."""
    from orchestra.verification.certificates.file import Bonds

    served = [_served(settings, part) if part.kind == "model" else ("", part.data_digest) for part in card.parts]
    models, learnt = (digest(canonical(list(one))) for one in zip(*served, strict=True))
    said = [[_said(part) for part in card.parts], list(card.weights), card.enough, card.evidence]
    return Bonds(digest(canonical(said)), models, learnt, checks_digest())


def _said(card: Card) -> str:
    """The digest of a card without what says how its answers are accepted."""
    return card.varied(description="", checks=(), accept=None, otherwise=(), label="restricted").digest


def stamps(settings: Settings, registry: Registry, program: Program) -> tuple[Stamp, ...]:
    """What changes when a certificate of a program is replaced, or an adapter, arrays or the fleet file that it is bound to.

    A process that stays open compiles a program once; with another stamp it does so anew. Empty where nothing is certified.
    """
    wholes = any(one.whole for one in program.certified)
    made = [one.certificate for one in program.certified if one.certificate and not one.whole]
    names = {one.agent for one in made} | ({name for name, _ in program.askable} if wholes else set())
    if made:
        from orchestra.verification.certificates.claims_file import ClaimsCertificate

        names |= {one.judge for one in made if isinstance(one, ClaimsCertificate)}
    for combination in (one.combination for one in program.certified if one.combination):
        from orchestra.verification.custom_checks import asked

        names |= {combination.agent, *(judge for judge in combination.judges if not asked(judge))}
    paths: list[Path | None] = []
    for name in sorted(names):
        paths += [found(settings, registry, name, file) for file in (CERTIFICATE, CLAIMS, COMBINATION)]
        card = registry.cards.get(name)
        for one in () if card is None else (card, *card.parts):
            if one.folder is not None:
                paths += [path for path in sorted((one.folder / (one.adapter or "")).glob("*")) if path.is_file()]
    if names:
        paths.append(settings.resources("configs").get(settings.fleet))
    return tuple(map(stamp, paths))


def stamp(path: Path | None) -> Stamp:
    """Of one file; of none, of what is not there."""
    try:
        stat = path.stat() if path is not None else None
    except OSError:
        stat = None
    return (str(path), 0, 0, 0) if stat is None else (str(path), stat.st_mtime_ns, stat.st_ino, stat.st_size)


def checks_digest() -> str:
    """Of the code of the checks; the same for any ends of lines."""
    package = resources.files("orchestra")
    return digest(canonical([(name, package.joinpath(name).read_text("utf-8").replace("\r\n", "\n")) for name in CHECKED_BY]))


def _served(settings: Settings, card: Card) -> tuple[str, str]:
    """Digests of the model that a card is asked on, and of its adapter."""
    from orchestra.fleet import config
    from orchestra.fleet.call_estimates import RECIPE
    from orchestra.fleet.model_digests import Marks
    from orchestra.fleet.server_selection import held
    from orchestra.fleet.weights.weights import Pantry

    fleet = config.read(Path(settings.find_resource("configs", settings.fleet)))
    names = fleet.serving(card.model)
    marks = Marks(Pantry.of(hub=settings.hub or None))
    models, learnt = set(), set()
    for name in names:
        target = fleet.servers[name]
        model, adapter = marks.model(name, target), marks.adapter(name, target, card)
        if not model or not adapter:
            local = not isinstance(target, config.Endpoint)
            why = "its files are not here" if local else "its endpoint has no `revision:`"
            hint = "orchestra fleet start" if local else f"write revision: under servers.{name} of the fleet file"
            raise InputError("V007", f"nobody can tell what answers as {name!r} for {card.name!r}: {why}", hint=hint)
        models.add(f"{model} {held(target, settings.constraint)}")
        learnt.add(adapter)
    if not names:
        raise InputError("V007", f"the fleet {fleet.name!r} has no model {card.model!r}", hint="orchestra explain F201")
    return digest(canonical([RECIPE, sorted(models)])), digest(canonical(sorted(learnt)))
