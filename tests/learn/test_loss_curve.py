"""The loss curve: an SVG that any page can show."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from orchestra.learn.lora.checkpoint import TrainingPoint
from orchestra.learn.loss_curve import render_svg

SVG = "{http://www.w3.org/2000/svg}"


def test_loss_curve_two_lines_and_best_point() -> None:
    points = [
        TrainingPoint(10, 0.5, 2.0, 1.5, 0.1),
        TrainingPoint(20, 1.0, 1.0, 0.5, 0.4),
        TrainingPoint(30, 1.5, 0.5, 0.8, 0.3),
    ]
    picture = ElementTree.fromstring(render_svg(points, 20))
    lines = [line.attrib["points"].split() for line in picture.iter(f"{SVG}polyline")]
    assert [len(line) for line in lines] == [3, 3]
    dot = next(picture.iter(f"{SVG}circle"))
    assert f"{dot.attrib['cx']},{dot.attrib['cy']}" == lines[1][1]
    heights = [float(at.split(",")[1]) for at in lines[0]]
    assert heights == sorted(heights), "a loss that falls goes down the page"


def test_loss_curve_without_tune_split_one_line() -> None:
    points = [TrainingPoint(step, 0.0, 1.0 / step, math.nan, 0.0) for step in (1, 2, 3)]
    lines = [
        line.attrib["points"].split() for line in ElementTree.fromstring(render_svg(points, 0)).iter(f"{SVG}polyline")
    ]
    assert [len(line) for line in lines] == [3, 0]


def test_loss_curve_without_points_is_empty() -> None:
    assert not list(ElementTree.fromstring(render_svg([], 0)).iter(f"{SVG}circle"))
