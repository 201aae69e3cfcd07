"""Line charts as inline SVG: drawn in the page's own colours, so that they follow light, dark and paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 22, 44
# More points than pixels draw nothing more.
POINTS = 600

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at `x`, with a label."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """Data values from `low` to `high`, laid along pixels `start` to `end`; positive and in decades if logarithmic."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """The pixel of a value."""
        to: Callable[[float], float] = math.log10 if self.logarithmic else float
        span = to(self.high) - to(self.low)
        return self.start + (self.end - self.start) * ((to(value) - to(self.low)) / span if span else 0.5)

    def ticks(self) -> list[float]:
        """Round values inside the range, about five of them; powers of ten on a logarithmic axis."""
        if self.logarithmic:
            decades = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            return [10.0**decade for decade in decades]
        step = _round_step((self.high - self.low) / 5)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def line_chart(
    points: Sequence[Point],
    x_label: str,
    y_label: str,
    marks: Sequence[Mark] = (),
    zero: bool = False,
    logarithmic: bool = False,
) -> str:
    """An SVG element showing one line. `zero`: the vertical axis starts at 0. `logarithmic`: the horizontal one."""
    shown = thin(points)
    xs, ys = [x for x, _ in shown], [y for _, y in shown]
    x_axis = Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT, logarithmic)
    y_axis = Axis(0.0 if zero else min(ys), max(ys), HEIGHT - BOTTOM, TOP)
    path = " ".join(f"{x_axis.place(x):.1f},{y_axis.place(y):.1f}" for x, y in shown)
    floor, first, last = HEIGHT - BOTTOM, x_axis.place(xs[0]), x_axis.place(xs[-1])
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)} by {escape(x_label)}">',
        *_grid(x_axis, y_axis),
        f'<polygon class="area" points="{first:.1f},{floor} {path} {last:.1f},{floor}"/>',
        f'<polyline class="line" points="{path}"/>',
        *(_mark(mark, x_axis) for mark in marks),
        f'<text class="name" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(x_label)}</text>',
        f'<text class="name" x="{LEFT}" y="12">{escape(y_label)}</text>',
        "</svg>",
    ]
    return "".join(parts)


def thin(points: Sequence[Point], count: int = POINTS) -> list[Point]:
    """At most `count` of the points, the first and last among them, spread evenly over the logarithm of the place."""
    if len(points) <= count:
        return list(points)
    last = len(points) - 1
    even = {round(step * last / (count // 2)) for step in range(count // 2 + 1)}
    early = {round(last ** (step / (count // 2 - 2))) for step in range(count // 2 - 1)}
    return [points[place] for place in sorted(even | early)]


def _grid(x_axis: Axis, y_axis: Axis) -> list[str]:
    floor = HEIGHT - BOTTOM
    lines = []
    for value in y_axis.ticks():
        y = y_axis.place(value)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_format(value)}</text>')
    for value in x_axis.ticks():
        x = x_axis.place(value)
        lines.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 5}"/>')
        lines.append(f'<text x="{x:.1f}" y="{floor + 19}" text-anchor="middle">{_format(value)}</text>')
    return lines


def _mark(mark: Mark, axis: Axis) -> str:
    x = axis.place(min(max(mark.x, axis.low), axis.high))
    anchor, shift = ("end", -6) if x > WIDTH / 2 else ("start", 6)
    return (
        f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="label" x="{x + shift:.1f}" y="{TOP + 12}" text-anchor="{anchor}">{escape(mark.label)}</text>'
    )


def _round_step(rough: float) -> float:
    """The 1, 2 or 5 times a power of ten that is at least `rough`."""
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _format(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
