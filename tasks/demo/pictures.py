"""Real pictures from installed packages, and views of them: crops, blurs, flips, montages of scanned digits."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter


@dataclass(frozen=True)
class Scene:
    """One source picture: what it is called in questions, and its pixels."""

    name: str
    subject: str
    picture: Image.Image


@cache
def scenes() -> tuple[Scene, ...]:
    """The photographs and scans, in a fixed order."""
    import matplotlib as mpl
    import sklearn.datasets

    samples = Path(mpl.get_data_path()) / "sample_data"
    china, flower = sklearn.datasets.load_sample_images().images
    return (
        Scene("temple", "a Chinese temple roof", Image.fromarray(china)),
        Scene("flower", "an orange dahlia flower", Image.fromarray(flower)),
        Scene("portrait", "a naval officer in uniform", Image.open(samples / "grace_hopper.jpg").convert("RGB")),
        Scene("painting", "a painted blue package", _on_white(Image.open(samples / "Minduka_Present_Blue_Pack.png"))),
        Scene("head", "a medical scan of a head", _shades(_magnetic_resonance(samples))),
        Scene("terrain", "a relief map of hills", _shades(np.load(samples / "jacksboro_fault_dem.npz")["elevation"])),
        Scene("ocean", "a map of land and ocean depth", _shades(np.load(samples / "topobathy.npz")["topo"])),
    )


@cache
def digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """scikit-learn's scanned handwritten digits: (1797, 8, 8) shades 0..16 and their labels."""
    import sklearn.datasets

    bunch = sklearn.datasets.load_digits()
    return bunch.images, bunch.target.astype(np.int64)


def crop(scene: Scene, rng: np.random.Generator, edge: int = 160) -> tuple[Image.Image, str]:
    """A random square view of the scene, and the quarter of the picture that its centre lies in."""
    width, height = scene.picture.size
    side = int(min(width, height) * rng.uniform(0.35, 0.75))
    left, top = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
    view = scene.picture.crop((left, top, left + side, top + side)).resize((edge, edge), Image.Resampling.BICUBIC)
    vertical = "upper" if top + side / 2 < height / 2 else "lower"
    horizontal = "left" if left + side / 2 < width / 2 else "right"
    return view, f"{vertical} {horizontal}"


def augment(view: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, str]:
    """The view under one lasting change, and the name of the change."""
    change = str(rng.choice(["none", "mirrored", "upside down", "blurred", "darkened", "brightened", "grey"]))
    altered = {
        "none": lambda: view,
        "mirrored": lambda: view.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "upside down": lambda: view.transpose(Image.Transpose.ROTATE_180),
        "blurred": lambda: view.filter(ImageFilter.GaussianBlur(4)),
        "darkened": lambda: ImageEnhance.Brightness(view).enhance(0.4),
        "brightened": lambda: ImageEnhance.Brightness(view).enhance(1.7),
        "grey": lambda: view.convert("L").convert("RGB"),
    }
    return altered[change](), change


def montage(labels_and_shades: list[NDArray[np.float64]], columns: int, scale: int = 7) -> Image.Image:
    """Scanned digits side by side on paper white, row by row."""
    rows = -(-len(labels_and_shades) // columns)
    paper = np.zeros((rows * 10, columns * 10))
    for place, shades in enumerate(labels_and_shades):
        top, left = 10 * (place // columns) + 1, 10 * (place % columns) + 1
        paper[top : top + 8, left : left + 8] = shades
    grey = Image.fromarray((255 - paper / 16 * 255).astype(np.uint8))
    return grey.resize((grey.width * scale, grey.height * scale), Image.Resampling.BICUBIC)


def dominant_colour(view: Image.Image) -> str:
    """The primary colour that stands out most in the mean pixel, or grey when none does."""
    red, green, blue = np.asarray(view.convert("RGB"), dtype=np.float64).reshape(-1, 3).mean(axis=0)
    spread = {"red": red, "green": green, "blue": blue}
    name = max(spread, key=lambda one: spread[one])
    return name if spread[name] > 1.08 * np.mean([red, green, blue]) else "grey"


def _magnetic_resonance(samples: Path) -> NDArray[np.float64]:
    with gzip.open(samples / "s1045.ima.gz") as file:
        return np.frombuffer(file.read(), ">u2").reshape(256, 256).astype(np.float64)


def _shades(field: NDArray[np.floating]) -> Image.Image:
    values = np.asarray(field, dtype=np.float64)
    low, high = np.percentile(values, [1, 99])
    shaded = Image.fromarray((np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8))
    return shaded.convert("RGB")


def _on_white(picture: Image.Image) -> Image.Image:
    rgba = picture.convert("RGBA")
    paper = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(paper, rgba).convert("RGB")
