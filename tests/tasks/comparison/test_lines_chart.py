"""A chart of several lines: where points land, degenerate data, names that try to break out."""

import re
from xml.etree import ElementTree

import pytest

from tasks.comparison.chart import Series, lines_chart
from tasks.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH


def test_lines_share_their_axes():
    svg = lines_chart([Series("a", [(1, 0.0), (10, 0.5)]), Series("b", [(10, 0.5), (100, 1.0)], True)], "x", "y")
    first, second = re.findall(r'<polyline points="([^"]+)"', svg)
    middle = f"{(LEFT + WIDTH - RIGHT) / 2:.1f},{(HEIGHT - BOTTOM + TOP) / 2:.1f}"
    assert first == f"{LEFT}.0,{HEIGHT - BOTTOM}.0 {middle}"
    assert second == f"{middle} {WIDTH - RIGHT}.0,{TOP}.0"
    assert svg.count("stroke-dasharray") == 2


@pytest.mark.parametrize("points", [[(1, 0.5)], [(5, 0.0), (10, 0.0)]])
def test_degenerate_data_draw(points):
    svg = lines_chart([Series("<i>", points)], "x", "y")
    ElementTree.fromstring(svg)
    assert "&lt;i&gt;" in svg
    assert "nan" not in svg


def test_without_points_there_is_no_chart():
    assert lines_chart([], "x", "y") == ""
