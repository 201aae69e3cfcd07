"""Lineage, the whole of it: what the manifest records, walking a row back, and checking the record.

manifest.py   what export writes, and what is added after the last stage
finished.py   a finished selection, opened again
trace.py      one row, back to weights and parameters
verify.py     hash everything again; recompute.py: measure and score again
"""

from tasks.findings import Finding, Verification
from tasks.finished import Finished, open_finished
from tasks.manifest import complete, digest_file
from tasks.trace import Step, Trace, trace
from tasks.verify import verify

__all__ = [
    "Finding",
    "Finished",
    "Step",
    "Trace",
    "Verification",
    "complete",
    "digest_file",
    "open_finished",
    "trace",
    "verify",
]
