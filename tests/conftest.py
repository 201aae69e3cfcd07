"""Settings every test runs under: nothing leaves this machine, nothing reports home."""

import os
from pathlib import Path

import pytest
from buckets import bucket, s3, s3_endpoint

__all__ = ["bucket", "s3", "s3_endpoint"]

os.environ.update(
    DO_NOT_TRACK="1",
    DVC_NO_ANALYTICS="1",
    HF_HUB_OFFLINE="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    RAY_USAGE_STATS_ENABLED="0",
    TOKENIZERS_PARALLELISM="false",
)
# Small arrays gain nothing from threads, and threads that wait for each other starve everything else on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference vectors: extraction/ and methods/ inside. SCALSELECT_GOLDEN names another."""
    return Path(os.environ.get("SCALSELECT_GOLDEN", Path(__file__).parent / "golden"))
