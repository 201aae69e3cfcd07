"""Many methods and budgets over features extracted once: what their subsets share, cover, repeat and cost."""

from tasks.comparison.comparison import PAGE, compare, read_comparison
from tasks.comparison.trials import choose_methods

__all__ = ["PAGE", "choose_methods", "compare", "read_comparison"]
