"""Makes the small datasets of small_datasets.py fixtures of every test here."""

from small_datasets import folder

__all__ = ["folder"]
