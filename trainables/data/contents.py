"""What a data set of files has, found by opening every image once: its fingerprint, its images' sizes and channels, and
what has to be converted, skipped or told."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from trainables.data.pictures import FOLDER_SIZE, Look


@dataclass(frozen=True)
class Contents:
    """JSON values, as they are kept in the cache."""

    fingerprint: str
    classes: list[str]
    images: dict[str, int]
    """By split, as far as the set has it: train, validation, test."""
    rarest: int
    """Images of the rarest class."""
    sizes: list[list[int]]
    """Width, height and the number of images that have them as they are shown, the most frequent first."""
    grey: int
    """Number of grey images; the others are in colour."""
    turned: int
    """Number of images that their EXIF data turn or mirror."""
    transparent: int
    """Number of images that are put on white, as some of them is transparent."""
    copies: dict[str, int]
    """By split, the number of its images that are byte for byte a training image."""
    left_out: list[str] = field(default_factory=list)
    """What is not used of the files, in words."""

    @property
    def number(self) -> int:
        return sum(self.images.values())

    @property
    def channels(self) -> int:
        """Those of most images; in colour where it is even."""
        return 1 if 2 * self.grey > self.number else 3

    @property
    def size(self) -> int:
        """The side of the squares that most images are, else 224."""
        width, height, number = self.sizes[0]
        return width if 2 * number > self.number and width == height else FOLDER_SIZE

    def converted(self, size: int, channels: int) -> list[str]:
        """`3 resized` for each kind of conversion that some images need at this size and with these channels."""
        other = self.number - sum(n for width, height, n in self.sizes if (width, height) == (size, size))
        counts = {
            "grey to colour": self.grey if channels == 3 else 0,
            "colour to grey": self.number - self.grey if channels == 1 else 0,
            f"resized to {size}×{size}": other,
            "turned by their EXIF data": self.turned,
            "transparent, put on white": self.transparent,
        }
        return [f"{number} {what}" for what, number in counts.items() if number]


class Survey:
    """What is counted, image by image."""

    def __init__(self) -> None:
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.looks: Counter[str] = Counter()
        self.digests: dict[str, list[bytes]] = {}

    def add(self, split: str, look: Look, digest: bytes) -> None:
        self.sizes[look.size] += 1
        self.looks.update(name for name in ("grey", "turned", "transparent") if getattr(look, name))
        self.digests.setdefault(split, []).append(digest)

    def contents(
        self, fingerprint: str, classes: Iterable[str], rarest: int, left_out: list[str] | None = None
    ) -> Contents:
        trained = set(self.digests["train"])
        copies = {
            split: sum(digest in trained for digest in digests)
            for split, digests in self.digests.items()
            if split != "train"
        }
        return Contents(
            fingerprint=fingerprint,
            classes=list(classes),
            images={split: len(digests) for split, digests in self.digests.items()},
            rarest=rarest,
            sizes=[[*size, n] for size, n in sorted(self.sizes.items(), key=lambda item: (-item[1], item[0]))],
            copies={split: number for split, number in copies.items() if number},
            left_out=left_out or [],
            **{name: self.looks[name] for name in ("grey", "turned", "transparent")},
        )


def digest_of(content: bytes) -> bytes:
    """What tells one image's bytes from another's."""
    return hashlib.blake2b(content, digest_size=16).digest()
