"""What `orchestra certify AGENT` shows without --data: the certificate that there is, of whole answers or of their parts."""

from __future__ import annotations

from collections.abc import Iterator

from orchestra.app.certificates import Certificates, Claims, found
from orchestra.app.project import Project
from orchestra.cli.output import print_json, say
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings
from orchestra.core.untrusted_text import visible
from orchestra.verification.certificates.certify import percent
from orchestra.verification.certificates.claims_file import FILE as CLAIMS
from orchestra.verification.certificates.claims_file import ClaimsCertificate
from orchestra.verification.certificates.file import FILE, Certificate


def show(chosen: Settings, agent: str, *, claims: bool, as_json: bool) -> None:
    """Shows the certificate that there is. Raises `InputError` where it does not hold, L119 where there is none."""
    from orchestra.cli.certify import target

    project = Project.load(chosen)
    one: Certificate | ClaimsCertificate | None
    if (whole := target.whole(project, agent)) is not None:
        one, file = whole[0].certificate(), whole[0].found
    else:
        registry = project.registry
        registry.card(agent)
        held = Claims(chosen, lambda: registry) if claims else Certificates(chosen, lambda: registry)
        one, file = held.get(agent), found(chosen, registry, agent, CLAIMS if claims else FILE)
    if one is None:
        raise absent(agent, claims=claims)
    if as_json:
        print_json({"file": str(file), "promise": one.promise, "certificate": one})
        return
    say(f"{agent}: {one.promise}", style="green")
    say(f"\n  threshold  {one.threshold:.6g}, {one.score}")
    for line in _of_claims(one) if isinstance(one, ClaimsCertificate) else _of_answers(one):
        say(visible(line))
    say(visible(f"  made       {one.made}\n  file       {file}, digest {one.digest}"))


def absent(agent: str, *, claims: bool) -> InputError:
    """The error of looking for a certificate where there is none."""
    of, option = (f"of {agent!r} about claims", " --claims") if claims else (f"for {agent!r}", "")
    return InputError("L119", f"there is no certificate {of}", hint=f"orchestra certify {agent}{option} --data FILE")


def _of_answers(one: Certificate) -> Iterator[str]:
    data, judged = one.data, one.judged
    yield f"  checks     {', '.join(one.checks)}"
    yield f"  data       {data.name}, digest {data.digest}; right by {', '.join(data.right)}"
    yield f"  rows       {data.tuning:,} tuned, {data.calibration:,} calibrated, {data.judged:,} judged; seed {data.seed}"
    yield f"  accepted   {one.accepted:,} of those that calibrated, {one.errors:,} of them wrong"
    share = f"[{percent(judged.low)}, {percent(judged.high)}]"
    yield f"  judged     {judged.accepted:,} of {judged.rows:,} accepted, {judged.errors:,} wrong, {share}"
    if one.attempt:
        yield f"  attempt    number {one.attempt:,} on these rows, tested at {percent(one.spent)} of {percent(one.delta)}"
    if data.copies or data.grouped:
        yield f"  left out   {data.copies or 0:,} rows with the input of another, {data.grouped or 0:,} of one group with another"


def _of_claims(one: ClaimsCertificate) -> Iterator[str]:
    data, judged = one.data, one.judged
    yield f"  check      {one.check}"
    yield f"  data       {data.name}, digest {data.digest}"
    yield f"  answers    {data.calibration:,} calibrated, {data.judged:,} judged; seed {data.seed}"
    wrong = f"something wrong kept in {judged.broken:,} of {judged.answers:,}, [{percent(one.low)}, {percent(one.high)}]"
    yield f"  judged     {wrong}; {judged.kept:,} of {judged.parts:,} parts kept"
