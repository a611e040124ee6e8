"""The loss curve of a training as a small SVG: training loss and tune loss by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from orchestra.learn.lora.checkpoint import TrainingPoint

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 480, 220, 44, 92, 14, 34
STYLE = "font: 11px sans-serif; fill: #555"
SERIES: tuple[tuple[str, str, Callable[[TrainingPoint], float]], ...] = (
    ("trained on", "#b5762a", lambda point: point.train),
    ("held out", "#2a6fb5", lambda point: point.tune),
)


def render_svg(points: Sequence[TrainingPoint], best_step: int) -> str:
    """Draws the curve. It needs no font and no script, and is readable on light and dark pages.

    Args:
        points: Measured points; a loss that was not measured is NaN.
        best_step: The step whose weights were kept; 0 for the last step.
    """
    max_step = max((point.step for point in points), default=1)
    losses = [loss for point in points for loss in (point.train, point.tune) if not math.isnan(loss)]
    highest = max(losses, default=1.0) * 1.05

    def to_pixels(step: float, loss: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * step / max_step
        return round(across, 1), round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - loss / highest), 1)

    floor, left = HEIGHT - BOTTOM, LEFT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="loss by step">',
        f'<path d="M{left} {TOP}V{floor}H{WIDTH - RIGHT}" fill="none" stroke="#999"/>',
        f'<text x="{(WIDTH - RIGHT + left) / 2:g}" y="{HEIGHT - 6}" style="{STYLE}" text-anchor="middle">step</text>',
    ]
    for share in (0.0, 0.5, 1.0):
        (x, _), (_, y) = to_pixels(max_step * share, 0), to_pixels(0, highest / 1.05 * share)
        parts.append(
            f'<text x="{x}" y="{floor + 14}" style="{STYLE}" text-anchor="middle">{max_step * share:.0f}</text>'
        )
        parts.append(
            f'<text x="{left - 5}" y="{y + 4:g}" style="{STYLE}" text-anchor="end">{highest / 1.05 * share:.2f}</text>'
        )
    for name, colour, loss in SERIES:
        training_points = [point for point in points if not math.isnan(loss(point))]
        path = " ".join("{:g},{:g}".format(*to_pixels(point.step, loss(point))) for point in training_points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if training_points:
            x, y = to_pixels(training_points[-1].step, loss(training_points[-1]))
            parts.append(
                f'<text x="{x + 6:g}" y="{y + 4:g}" style="font: 11px sans-serif; fill: {colour}">{name}</text>'
            )
    for point in points:
        if point.step == best_step:
            x, y = to_pixels(point.step, point.tune)
            parts.append(
                f'<circle cx="{x:g}" cy="{y:g}" r="3.5" fill="#2a6fb5">'
                f"<title>kept: step {best_step}, {point.tune:.4f}</title></circle>"
            )
    return "\n".join([*parts, "</svg>", ""])
