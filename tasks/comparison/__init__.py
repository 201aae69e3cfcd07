"""Many methods and budgets over features extracted once: what their subsets share, cover, repeat and cost."""

from tasks.comparison.comparison import PAGE, RECORD, compare, is_current

__all__ = ["PAGE", "RECORD", "compare", "is_current"]
