"""The embedded demo: a real visual-instruction dataset, a small LLaVA and a small CLIP, from packages and a seed.

Nothing is fetched. The pictures are photographs and scans that ship inside scikit-learn and matplotlib; the models have
true architectures and random weights, so the demo shows the machinery, not the merit of a selection.
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
    """Make `root`/data.json, images/, model/ and clip/ unless a finished demo of this shape is already there.

    Same rows and seed, same bytes. The marker is written last, so an interrupted build starts over.
    """
    from transformers.utils import logging as transformers_logging

    from tasks.demo.clip import save_clip
    from tasks.demo.model import save_model
    from tasks.demo.questions import write_dataset

    marker, label = root / "complete.txt", f"rows {rows} seed {seed} clip\n"
    if marker.exists() and marker.read_text() == label:
        return
    transformers_logging.disable_progress_bar()
    shutil.rmtree(root, ignore_errors=True)
    log.info("demo: writing %d samples to %s", rows, root)
    texts = write_dataset(root, rows, seed)
    log.info("demo: making a small LLaVA in %s", root / "model")
    save_model(root / "model", texts, seed)
    log.info("demo: making a small CLIP in %s", root / "clip")
    save_clip(root / "clip", texts, seed)
    write_text(marker, label)
