"""The embedded demo: a real visual-instruction dataset and a small LLaVA, made from installed packages and a seed.

Nothing is fetched. The pictures are photographs and scans that ship inside scikit-learn and matplotlib; the model has
the true LLaVA architecture and random weights, so the demo shows the machinery, not the merit of a selection.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from tasks.atomic import write_text

log = logging.getLogger(__name__)

ROWS = 3000
SEED = 20260211


def build(root: Path, rows: int = ROWS, seed: int = SEED) -> None:
    """Make `root`/data.json, `root`/images/ and `root`/model/ unless a finished demo of this shape is already there.

    Same rows and seed, same bytes. The marker is written last, so an interrupted build starts over.
    """
    from tasks.demo.model import save_model
    from tasks.demo.questions import write_dataset

    marker, label = root / "complete.txt", f"rows {rows} seed {seed}\n"
    if marker.exists() and marker.read_text() == label:
        return
    shutil.rmtree(root, ignore_errors=True)
    log.info("demo: writing %d samples to %s", rows, root)
    texts = write_dataset(root, rows, seed)
    log.info("demo: making a small LLaVA in %s", root / "model")
    save_model(root / "model", texts, seed)
    write_text(marker, label)
