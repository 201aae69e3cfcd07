"""Makes the small datasets of conftest_formats.py fixtures of every test here."""

from conftest_formats import folder

__all__ = ["folder"]
