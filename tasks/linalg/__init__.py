"""Blocked numerics over tall matrices: pure functions, no files. Each has a naive twin in tests/tasks/linalg/."""
