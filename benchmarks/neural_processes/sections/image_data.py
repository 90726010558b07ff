"""Images as tasks: a pixel's place is x, two columns in [0, 1], and whether it has ink is y.

Images come in groups, alphabets or digits, and whole groups are held out.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from bayesmeta import Data

__all__ = ["Asked", "ImageStream", "Images", "asked_about", "digits", "omniglot"]

LEAST_INK = 0.25  # of a pixel, for it to be one
SHARE_HELD_OUT = 0.2  # of groups


@dataclass(frozen=True)
class Images:
    """Binary images of one size.

    Args:
        ink: `(images, pixels)`, zeros and ones in float64.
        group: of each image `(images,)`.
        side: pixels are side x side.
    """

    ink: Tensor
    group: Tensor
    side: int

    @property
    def x(self) -> Tensor:
        """Places of pixels `(pixels, 2)`."""
        unit = torch.linspace(0.0, 1.0, self.side, dtype=torch.float64)
        return torch.cartesian_prod(unit, unit)

    def split(self, generator: Generator) -> tuple["Images", "Images"]:
        """Images of most groups, and of those that are held out."""
        groups = self.group.unique()
        chosen = groups[torch.randperm(len(groups), generator=generator)[: round(SHARE_HELD_OUT * len(groups))]]
        out = torch.isin(self.group, chosen)
        return Images(self.ink[~out], self.group[~out], self.side), Images(self.ink[out], self.group[out], self.side)


def omniglot(folder: Path) -> Images:
    """Characters of alphabets, 14 x 14: a pixel is ink where a quarter of its area is.

    Raises:
        FileNotFoundError: the folder has no such file.

    Source: Lake, Salakhutdinov and Tenenbaum, Human-level concept learning through probabilistic program induction
    (2015).
    """
    with np.load(folder / "omniglot_background_28.npz") as arrays:
        images = torch.from_numpy(arrays["images"]).double() / 255.0
        group = torch.from_numpy(arrays["alphabet"]).long()
    halved = torch.nn.functional.avg_pool2d(images[:, None], 2)[:, 0]
    return Images((halved >= LEAST_INK).double().flatten(1), group, halved.shape[-1])


def digits() -> Images:
    """scikit-learn's digits, 8 x 8."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(found.images) / 16.0
    return Images((images >= 0.5).double().flatten(1), torch.from_numpy(found.target).long(), images.shape[-1])


@dataclass(frozen=True)
class ImageStream:
    """Random images, and random pixels of each."""

    images: Images

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
        ink, x = self.images.ink, self.images.x
        chosen = torch.randint(len(ink), (num_tasks,), generator=generator)
        order = torch.rand(num_tasks, len(x), generator=generator).argsort(-1)[:, :num_rows]
        return Data.of(x[order], ink[chosen].gather(1, order))


@dataclass(frozen=True)
class Asked:
    """Images of which some pixels are known.

    Args:
        ink: `(images, pixels)`.
        order: of pixels, of which the first are known `(images, pixels)`.
        num_known: pixels.
        x: places of pixels.
    """

    ink: Tensor
    order: Tensor
    num_known: int
    x: Tensor

    @property
    def known(self) -> Data:
        at = self.order[:, : self.num_known]
        return Data.of(self.x[at], self.ink.gather(1, at))

    @property
    def asked(self) -> Data:
        at = self.order[:, self.num_known :]
        return Data.of(self.x[at], self.ink.gather(1, at))

    @property
    def is_known(self) -> Tensor:
        """Of each pixel `(images, pixels)`."""
        return torch.zeros_like(self.ink).scatter(1, self.order[:, : self.num_known], 1.0)

    def log_prob(self, probability: Tensor) -> Tensor:
        """Of the pixels that are asked about `(images, asked)`, given the probability of ink `(images, pixels)`."""
        at = self.order[:, self.num_known :]
        return (self.ink * probability.log() + (1.0 - self.ink) * (-probability).log1p()).gather(1, at)

    def __len__(self) -> int:
        return len(self.ink)

    def __getitem__(self, index: slice) -> "Asked":
        return Asked(self.ink[index], self.order[index], self.num_known, self.x)


def asked_about(images: Images, num: int, num_known: int, generator: Generator) -> Asked:
    """So many images at random, with random known pixels."""
    chosen = torch.randperm(len(images.ink), generator=generator)[:num]
    ink = images.ink[chosen]
    return Asked(ink, torch.rand(ink.shape, generator=generator).argsort(-1), num_known, images.x)
