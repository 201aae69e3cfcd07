"""When ScalSelect does it: the only package that knows Prefect and DVC."""
