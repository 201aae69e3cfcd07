"""Does the subset train as well as the whole? Fine-tune on each subset, ask held-out questions, compare."""
