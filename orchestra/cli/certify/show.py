"""What `orchestra certify AGENT` shows without --data: the certificate that there is, of whole answers or of their parts."""

from __future__ import annotations

from collections.abc import Iterator

from orchestra.app.certificates import AgentCertificates, ClaimsCertificates, find_certificate
from orchestra.app.project import Project
from orchestra.cli.output import print_json, print_text
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings
from orchestra.core.untrusted_text import escape_invisible
from orchestra.verification.certificates.certify import format_percent
from orchestra.verification.certificates.claims_file import FILE_NAME as CLAIMS
from orchestra.verification.certificates.claims_file import ClaimsCertificate
from orchestra.verification.certificates.file import FILE_NAME, Certificate


def show_certificate(settings: Settings, agent: str, *, claims: bool, as_json: bool) -> None:
    """Shows the certificate that there is. Raises `InputError` where it does not hold, L119 where there is none."""
    from orchestra.cli.certify import target

    project = Project.load(settings)
    one: Certificate | ClaimsCertificate | None
    if (whole := target.find_workflow(project, agent)) is not None:
        one, file = whole[0].certificate(), whole[0].certificate_path
    else:
        registry = project.registry
        registry.card(agent)
        held = (
            ClaimsCertificates(settings, lambda: registry) if claims else AgentCertificates(settings, lambda: registry)
        )
        one, file = held.get(agent), find_certificate(settings, registry, agent, CLAIMS if claims else FILE_NAME)
    if one is None:
        raise missing_certificate(agent, claims=claims)
    if as_json:
        print_json({"file": str(file), "guarantee": one.guarantee, "certificate": one})
        return
    print_text(f"{agent}: {one.guarantee}", style="green")
    print_text(f"\n  threshold  {one.threshold:.6g}, {one.score}")
    for line in _claims_lines(one) if isinstance(one, ClaimsCertificate) else _answers_lines(one):
        print_text(escape_invisible(line))
    print_text(escape_invisible(f"  made       {one.created_at}\n  file       {file}, digest {one.digest}"))


def missing_certificate(agent: str, *, claims: bool) -> InputError:
    """The error of looking for a certificate where there is none."""
    of, option = (f"of {agent!r} about claims", " --claims") if claims else (f"for {agent!r}", "")
    return InputError("L119", f"there is no certificate {of}", hint=f"orchestra certify {agent}{option} --data FILE")


def _answers_lines(one: Certificate) -> Iterator[str]:
    data, judged = one.data, one.held_out
    yield f"  checks     {', '.join(one.checks)}"
    yield f"  data       {data.name}, digest {data.digest}; right by {', '.join(data.metrics)}"
    yield f"  rows       {data.tuning:,} tuned, {data.calibration:,} calibrated, {data.held_out:,} judged; seed {data.seed}"
    yield f"  accepted   {one.accepted:,} of those that calibrated, {one.errors:,} of them wrong"
    share = f"[{format_percent(judged.low)}, {format_percent(judged.high)}]"
    yield f"  judged     {judged.accepted:,} of {judged.rows:,} accepted, {judged.errors:,} wrong, {share}"
    if one.attempt:
        yield f"  attempt    number {one.attempt:,} on these rows, tested at {format_percent(one.spent_delta)} of {format_percent(one.delta)}"
    if data.duplicates or data.grouped:
        yield f"  left out   {data.duplicates or 0:,} rows with the input of another, {data.grouped or 0:,} of one group with another"


def _claims_lines(one: ClaimsCertificate) -> Iterator[str]:
    data, judged = one.data, one.held_out
    yield f"  check      {one.check}"
    yield f"  data       {data.name}, digest {data.digest}"
    yield f"  answers    {data.calibration:,} calibrated, {data.held_out:,} judged; seed {data.seed}"
    wrong = f"something wrong kept in {judged.violations:,} of {judged.answers:,}, [{format_percent(one.low)}, {format_percent(one.high)}]"
    yield f"  judged     {wrong}; {judged.kept:,} of {judged.parts:,} parts kept"
