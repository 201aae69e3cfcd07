"""Charts: where points and ticks land, and what degenerate data look like."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.report.charts import BOTTOM, HEIGHT, LEFT, POINTS, RIGHT, TOP, WIDTH, Axis, Mark, line_chart, thin


def coordinates(svg):
    (line,) = re.findall(r'class="line" points="([^"]+)"', svg)
    return [tuple(map(float, point.split(","))) for point in line.split()]


def test_the_line_runs_from_corner_to_corner():
    svg = line_chart([(1, 0.0), (2, 0.5), (3, 1.0)], "x", "y", zero=True)
    assert coordinates(svg) == [(LEFT, HEIGHT - BOTTOM), ((LEFT + WIDTH - RIGHT) / 2, 142.0 - 3), (WIDTH - RIGHT, TOP)]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (3, 17, [5, 10, 15]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round(low, high, ticks):
    assert Axis(low, high, 0, 1).ticks() == pytest.approx(ticks)


def test_a_logarithmic_axis_has_decades_at_even_steps():
    axis = Axis(1, 10_000, 0, 400, logarithmic=True)
    assert [axis.place(tick) for tick in axis.ticks()] == pytest.approx([0, 100, 200, 300, 400])


def test_marks_are_labelled_and_stay_inside():
    svg = line_chart([(1, 1.0), (9, 0.0)], "x", "y", [Mark(5, "k = <5>"), Mark(99, "far")])
    assert "k = &lt;5&gt;" in svg
    places = [float(x) for x in re.findall(r'class="mark" x1="([\d.]+)"', svg)]
    assert places == [(LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT]


@pytest.mark.parametrize("points", [[(1, 0.5)], [(1, 0.0), (2, 0.0)], [(1, -2.0), (2, -3.0)], [(1, 1e-300), (2, 0.0)]])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_degenerate_data_draw(points, logarithmic):
    svg = line_chart(points, "x", "y", logarithmic=logarithmic)
    ElementTree.fromstring(svg)
    assert "nan" not in svg
    assert "inf" not in svg


@given(st.integers(1, 5000))
def test_thinning_keeps_order_ends_and_the_steep_start(count):
    points = [(float(place), -float(place)) for place in range(count)]
    kept = thin(points)
    assert len(kept) <= min(count, POINTS)
    assert kept == sorted(set(kept))
    assert kept[:1] == points[:1]
    assert kept[-1] == points[-1]
    assert kept[: min(count, 20)] == points[:20]
