"""The models that extraction uses, behind the three questions it asks of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from tasks.engines.work import Extractor, Work
from tasks.engines.worker import Worker
from tasks.params import Settings

Signals = tuple[str, ...]


class Description(Protocol):
    """What is known of a group of signals before loading weights: see tasks.vlm.extractor.Description."""

    @property
    def fingerprints(self) -> dict[str, str]:
        """signal -> digest of everything that decides its features."""

    @property
    def record(self) -> dict[str, Any]:
        """What the manifest says about the model."""

    @property
    def matrices(self) -> dict[str, dict[str, int]]:
        """signal -> column -> width."""

    @property
    def statistics(self) -> dict[str, list[tuple[str, pa.DataType]]]:
        """signal -> (column, type)."""


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
    """The real ones. tasks.vlm is imported where it is used: it brings torch and transformers along."""

    def groups(self, settings: Settings) -> list[Signals]:
        """The signals asked for, those that share a model together."""
        from tasks.vlm import clip, extractor

        return [*extractor.groups(settings), *clip.groups(settings)]

    def describe(self, settings: Settings, signals: Signals) -> Description:
        """Fingerprints and columns of a group, without loading weights."""
        from tasks.vlm import clip, extractor

        return clip.describe(settings) if signals == (clip.NAME,) else extractor.describe(settings, signals)

    def load(self, settings: Settings, signals: Signals, device: str) -> Extractor:
        """The model on a device. Raises ModelError, and ParamsError for a device that is not here."""
        from tasks.vlm import clip, devices, extractor

        devices.check_device(device)
        if signals == (clip.NAME,):
            return clip.Extractor(settings, device)
        return extractor.Extractor(settings, signals, device)


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
