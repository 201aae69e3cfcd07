"""Performance against budget: one line for each method with its intervals, as inline SVG in the page's own colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from tasks.evaluation.table import FULL, UNTRAINED, Line
from tasks.report.charts import Axis

WIDTH, HEIGHT = 900, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 20, 46
COLOURS = 8
"""Classes c0..c7 of the page's style sheet; further methods start again."""

_APART = 5.0
"""Pixels between the points of neighbouring methods at one budget, so that intervals do not hide each other."""


def performance_chart(lines: Sequence[Line]) -> str:
    """Rel. (%) by budget. Points are means over seeds, bars their 95 % intervals; dashed: full data, no training."""
    subsets = [line for line in lines if line.method not in (FULL, UNTRAINED)]
    controls = [line for line in lines if line.method in (FULL, UNTRAINED)]
    budgets = sorted({float(line.budget) for line in subsets})
    margin = (budgets[-1] - budgets[0]) * 0.08 or budgets[0] * 0.5
    x_axis = Axis(budgets[0] - margin, budgets[-1] + margin, LEFT, WIDTH - RIGHT)
    y_axis = Axis(*_range(subsets), HEIGHT - BOTTOM, TOP)
    methods = list(dict.fromkeys(line.method for line in sorted(subsets, key=lambda one: one.method)))
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Relative performance by budget">',
        *_grid(x_axis, y_axis, budgets),
        *(mark for line in controls for mark in _control(line, y_axis)),
    ]
    for number, method in enumerate(methods):
        own = sorted((line for line in subsets if line.method == method), key=lambda one: one.budget)
        shift = (number - (len(methods) - 1) / 2) * _APART
        parts += _curve(own, x_axis, y_axis, shift, number % COLOURS)
        parts += _label(method, number)
    return "".join([*parts, "</svg>"])


def _range(lines: Sequence[Line]) -> tuple[float, float]:
    """From the lowest interval to the highest, full data included."""
    ends = [end for line in lines for end in (line.interval or (line.relative, line.relative))]
    low, high = min(ends), max([*ends, 100.0])
    room = (high - low) * 0.05 or 1.0
    return low - room, high + room


def _grid(x_axis: Axis, y_axis: Axis, budgets: Sequence[float]) -> Iterator[str]:
    floor = HEIGHT - BOTTOM
    for value in y_axis.ticks():
        y = y_axis.place(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
    for value in budgets:
        x = x_axis.place(value)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 5}"/>'
        yield f'<text x="{x:.1f}" y="{floor + 19}" text-anchor="middle">{value:g}</text>'
    yield f'<text class="name" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">budget</text>'
    yield f'<text class="name" x="{LEFT}" y="12">Rel. (%)</text>'


def _control(line: Line, axis: Axis) -> Iterator[str]:
    """A dashed line across; where it lies below the chart, nothing: the table says it."""
    y = axis.place(line.relative)
    if TOP <= y <= HEIGHT - BOTTOM:
        yield f'<line class="control" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{WIDTH - RIGHT - 4}" y="{y - 5:.1f}" text-anchor="end">{escape(line.method)}</text>'


def _curve(lines: Sequence[Line], x_axis: Axis, y_axis: Axis, shift: float, colour: int) -> Iterator[str]:
    places = [(x_axis.place(float(line.budget)) + shift, y_axis.place(line.relative)) for line in lines]
    yield f'<polyline class="c{colour}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>'
    for (x, y), line in zip(places, lines, strict=True):
        if line.interval:
            low, high = (y_axis.place(end) for end in line.interval)
            yield f'<line class="c{colour}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
        yield f'<circle class="c{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{_say(line)}</title></circle>'


def _label(method: str, number: int) -> Iterator[str]:
    x, y = WIDTH - RIGHT + 20, TOP + 12 + 22 * number
    yield f'<line class="c{number % COLOURS}" x1="{x}" x2="{x + 18}" y1="{y - 4}" y2="{y - 4}"/>'
    yield f'<text class="name" x="{x + 25}" y="{y}">{escape(method)}</text>'


def _say(line: Line) -> str:
    spread = f", {line.interval[0]:.1f} to {line.interval[1]:.1f}" if line.interval else ""
    return escape(f"{line.method} at {line.budget:g}: {line.relative:.1f} %{spread}")
