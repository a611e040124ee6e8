"""Requirements on metrics, which make a command fail if they are not met; with a JUnit XML report for CI."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.suggestions import closest_match
from orchestra.learn.evaluation.bootstrap import IntervalEstimate

_PATTERN = re.compile(r"\s*(?P<metric>.+?)\s*(?P<sign>>=|<=)\s*(?P<bound>[0-9.]+)\s*")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A bound on a metric: `EM >= 0.65`."""

    metric: str
    is_minimum: bool
    """Whether the bound is a lower bound."""
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {'>=' if self.is_minimum else '<='} {self.bound:g}"

    def is_met(self, figures: Mapping[str, IntervalEstimate]) -> bool:
        """Returns whether the results meet the bound; an unknown value does not."""
        value = figures[self.metric].value
        return value >= self.bound if self.is_minimum else value <= self.bound


def parse_requirement(text: str, metrics: Sequence[str]) -> Requirement:
    """Parses a requirement from the command line.

    Raises:
        InputError: N203 if it is invalid.
    """
    match = _PATTERN.fullmatch(text)
    try:
        bound = float(match["bound"]) if match else None
    except ValueError:
        bound = None
    if match is None or bound is None:
        raise InputError("N203", f"{text!r} is not a requirement", hint=f"--require '{metrics[0]} >= 0.65'")
    if match["metric"] not in metrics:
        raise InputError(
            "N203", f"there is no metric {match['metric']!r}", hint=_suggest_metric(match["metric"], metrics)
        )
    return Requirement(match["metric"], match["sign"] == ">=", bound)


def _suggest_metric(metric_name: str, metrics: Sequence[str]) -> str:
    """Returns a suggestion for an unknown metric. Default metrics of texts were once named `NAME exact`."""
    field = metric_name.removesuffix(" exact")
    if (same_metric := f"{field} same") in metrics and field != metric_name:
        hint = f"evaluation.yaml keeps the old one: metrics: {{{metric_name}: {{of: exact, field: {field}}}}}"
        return f"{same_metric!r} has taken its place, which drops no punctuation and no articles; {hint}"
    near = closest_match(metric_name, metrics)
    return f"did you mean {near!r}?" if near else f"metrics: {', '.join(metrics)}"


def junit_report(
    agent: str, test: str, requirements: Sequence[Requirement], figures: Mapping[str, IntervalEstimate]
) -> bytes:
    """Returns the requirements as a test suite in the format that CI services read
    (https://github.com/testmoapp/junitxml).
    """
    failure_count = sum(not requirement.is_met(figures) for requirement in requirements)
    suite = _suite(f"{agent} on {test}", len(requirements), failure_count, 0)
    for requirement in requirements:
        case = ElementTree.SubElement(suite, "testcase", classname=f"orchestra.learn.{agent}", name=str(requirement))
        result = f"{requirement.metric} is {figures[requirement.metric]}"
        if not requirement.is_met(figures):
            ElementTree.SubElement(case, "failure", message=result).text = f"required: {requirement}"
        else:
            ElementTree.SubElement(case, "system-out").text = result
    return _encode_xml(suite)


def junit_error_report(agent: str, error: OrchestraError) -> bytes:
    """Returns the report of an evaluation that failed. It replaces the report of an earlier evaluation."""
    suite = _suite(agent, 1, 0, 1)
    case = ElementTree.SubElement(suite, "testcase", classname=f"orchestra.learn.{agent}", name="evaluation")
    ElementTree.SubElement(case, "error", message=f"{error.code}: {error.message}").text = str(error)
    return _encode_xml(suite)


def _suite(name: str, tests: int, failures: int, errors: int) -> ElementTree.Element:
    return ElementTree.Element("testsuite", name=name, tests=str(tests), failures=str(failures), errors=str(errors))


def _encode_xml(suite: ElementTree.Element) -> bytes:
    xml: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return xml
