"""The models that extraction uses, behind the three questions it asks of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tasks.engines.work import Extractor, Work
from tasks.engines.worker import Worker
from tasks.params import Settings
from tasks.vlm import grouping
from tasks.vlm.description import Description
from tasks.vlm.digests import Digests
from tasks.vlm.recall import described, identify

Signals = tuple[str, ...]


class Models(Protocol):
    """Picklable, so that other processes can load what is described here."""

    def groups(self, settings: Settings) -> list[Signals]:
        """The signals asked for, those that share a model together."""

    def describe(self, settings: Settings, signals: Signals) -> Description:
        """Fingerprints and columns of a group, without loading weights."""

    def load(self, settings: Settings, signals: Signals, device: str) -> Extractor:
        """The model on a device."""


@dataclass(frozen=True)
class Vlm:
    """The real ones. An unchanged model is described from memory: only work to do brings torch and transformers along.

    memory: a folder that remembers what was found out about models; without one every file is hashed.
    """

    memory: Path | None = None

    def groups(self, settings: Settings) -> list[Signals]:
        """The signals asked for, those that share a model together."""
        return grouping.groups(settings)

    def describe(self, settings: Settings, signals: Signals) -> Description:
        """Fingerprints and columns of a group, without loading weights."""
        if self.memory is None:
            return _describe(settings, signals, Digests())
        model, extract = grouping.model_of(settings, signals[0]), settings.extract.resolved().model_dump(mode="json")
        digests = Digests(self.memory / "weights.json")
        identity = identify(model, signals, extract)
        return described(self.memory / "models", identity, lambda: _describe(settings, signals, digests))

    def load(self, settings: Settings, signals: Signals, device: str) -> Extractor:
        """The model on a device. Raises ModelError, and ParamsError for a device that is not here."""
        from tasks.vlm import clip, devices, extractor

        devices.check_device(device)
        if signals == (grouping.CLIP,):
            return clip.Extractor(settings, device)
        return extractor.Extractor(settings, signals, device)


def _describe(settings: Settings, signals: Signals, digests: Digests) -> Description:
    from tasks.vlm import clip, extractor

    if signals == (grouping.CLIP,):
        return clip.describe(settings, digests)
    return extractor.describe(settings, signals, digests)


@dataclass(frozen=True)
class Loader:
    """Makes a worker on a device: what engines send to their processes."""

    models: Models
    settings: Settings
    signals: Signals
    devices: int = 1

    def __call__(self, device: str) -> Work:
        """Load the model and its preparation."""
        extractor = self.models.load(self.settings, self.signals, device)
        return Worker(extractor, device, self.settings.run, self.devices)
