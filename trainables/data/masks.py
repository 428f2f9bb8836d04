"""Masks of the objects in the test images: Oxford pets' trimaps, and PNG files beside the images of class folders.

A folder's masks lie in `masks/` at its top, each under its image's path with the suffix .png: `masks/cat/1.png` of
`cat/1.jpg`, `masks/test/cat/1.png` of `test/cat/1.jpg`; a pixel is the object's where it is not 0 (black, or the first
colour of a palette; transparency does not count). Image and mask are each turned as their own EXIF data say. Only test
images need one.

[reading] Of a trimap the pet and the border around it are the object, which is all but its background: the border is
where the pet's outline runs.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.command_line import InputError
from trainables.data.pictures import Image, size_of, stored_values

FOLDER = "masks"
TRIMAP_BACKGROUND = 2


@dataclass(frozen=True)
class MaskFile:
    """Where an image and its mask are, and the value of the mask's background."""

    image: str
    mask: str
    background: int = 0

    @property
    def as_stored(self) -> bool:
        """Whether image and mask are taken without regard to EXIF data, as Oxford's pets were published."""
        return self.background == TRIMAP_BACKGROUND

    def read(self) -> Image.Image:
        """The object in white on black, of the image's size. Raises `InputError` for a mask that is missing, damaged,
        or of another size than its image."""
        if not os.path.exists(self.mask):
            raise InputError(f"{self.mask}: missing, the mask of {self.image}")
        values = stored_values(self.mask, upright=not self.as_stored, what="mask")
        size = size_of(self.image, upright=not self.as_stored)
        if values.ndim == 3:
            values = values[..., : 3 if values.shape[2] >= 3 else 1].max(2)
        if values.shape[::-1] != size:
            raise InputError(
                f"{self.mask}: {values.shape[1]}×{values.shape[0]} pixels, allowed are the {size[0]}×{size[1]} of its "
                "image"
            )
        return Image.fromarray(np.where(values == self.background, 0, 255).astype(np.uint8))


def in_folder(top: Path, image: str) -> MaskFile:
    """Where the mask of an image of class folders is to be."""
    path = top / FOLDER / os.path.relpath(image, top)
    return MaskFile(image, str(path.with_suffix(".png")))


def of_pet(image: str) -> MaskFile:
    """Where the trimap of one of Oxford's pets is."""
    path = Path(image)
    return MaskFile(image, str(path.parent.parent / "annotations" / "trimaps" / f"{path.stem}.png"), TRIMAP_BACKGROUND)


def holds_masks(folder: str, classes: Sequence[str], below: Collection[str]) -> bool:
    """Whether a folder among class folders is that of their masks, and no class: it is called so, and there is `below`
    it a folder for one of the classes."""
    return folder == FOLDER and any(f"{folder}/{other}" in below for other in classes if other != folder)


def check(files: Sequence[MaskFile], spec: str) -> None:
    """Raise `InputError` if a mask is missing."""
    missing = [file for file in files if not os.path.exists(file.mask)]
    if missing:
        raise InputError(
            f"dataset: {len(missing)} of {len(files)} test images of {spec} have no mask, allowed is one for each: "
            f"{missing[0].mask} is missing"
        )


def from_grey(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Masks from resized white on black: where at least half of a pixel is the object's."""
    return pixels >= 128
