"""What ScalSelect does: plain functions, files in, files out. Nothing in here knows Prefect or DVC."""
