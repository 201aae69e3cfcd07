"""Several lines in one chart, as inline SVG with its own colours and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tasks.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Point

GOLDEN_ANGLE = 137.508
"""Turning by it, any number of hues stay apart."""


@dataclass(frozen=True, slots=True)
class Series:
    """A line and its name; a control is drawn dashed."""

    name: str
    points: Sequence[Point]
    control: bool = False


def lines_chart(series: Sequence[Series], x_label: str, y_label: str) -> str:
    """An SVG element with a line for each series, the horizontal axis logarithmic; "" without points."""
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points]
    if not xs:
        return ""
    x_axis = Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT, logarithmic=True)
    y_axis = Axis(min(ys), max(ys), HEIGHT - BOTTOM, TOP)
    lines = [_line(number, one, x_axis, y_axis) for number, one in enumerate(series)]
    legend = [_legend(number, one) for number, one in enumerate(series)]
    height = HEIGHT + 20 * -(-len(series) // 3)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(y_label)} by {escape(x_label)}">'
        f"{_frame(x_axis, y_axis, x_label, y_label)}{''.join(lines)}{''.join(legend)}</svg>"
    )


def _line(number: int, one: Series, x_axis: Axis, y_axis: Axis) -> str:
    path = " ".join(f"{x_axis.place(x):.1f},{y_axis.place(y):.1f}" for x, y in one.points)
    return f'<polyline points="{path}" {_stroke(number, one)}><title>{escape(one.name)}</title></polyline>'


def _legend(number: int, one: Series) -> str:
    x, y = LEFT + 190 * (number % 3), HEIGHT + 14 + 20 * (number // 3)
    return (
        f'<line x1="{x}" x2="{x + 24}" y1="{y - 5}" y2="{y - 5}" {_stroke(number, one)}/>'
        f'<text x="{x + 30}" y="{y}">{escape(one.name)}</text>'
    )


def _stroke(number: int, one: Series) -> str:
    dash = ' stroke-dasharray="5 4"' if one.control else ""
    return f'fill="none" stroke="hsl({number * GOLDEN_ANGLE % 360:.0f} 60% 52%)" stroke-width="2"{dash}'


def _labelled(axis: Axis) -> list[float]:
    """The decades, and each end of the axis that leaves room for its own label."""
    decades = axis.ticks()
    ends = [end for end in {axis.low, axis.high} if all(abs(axis.place(end) - axis.place(one)) > 40 for one in decades)]
    return sorted([*decades, *ends])


def _frame(x_axis: Axis, y_axis: Axis, x_label: str, y_label: str) -> str:
    floor = HEIGHT - BOTTOM
    parts = []
    for value in y_axis.ticks():
        y = y_axis.place(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for value in _labelled(x_axis):
        parts.append(f'<text x="{x_axis.place(value):.1f}" y="{floor + 19}" text-anchor="middle">{value:.3g}</text>')
    parts.append(f'<text class="name" x="{LEFT}" y="12">{escape(y_label)}</text>')
    parts.append(f'<text class="name" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(x_label)}</text>')
    return "".join(parts)
