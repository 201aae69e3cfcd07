"""The HTML report: one self-contained file made from the records the stages left behind."""

from tasks.report.page import render, write

__all__ = ["render", "write"]
