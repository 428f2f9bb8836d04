"""What may be held in memory."""

from __future__ import annotations

from analysis.command_line import InputError

MEMORY_LIMIT = 4 * 2**30
"""Bytes of uint8 pixels above which a set of image files is streamed."""


def fits(images: int, channels: int, size: int) -> bool:
    """Whether so many images (channels, size, size) may be held in memory."""
    return images * channels * size * size <= MEMORY_LIMIT


def check_memory(spec: str, images: int, channels: int, size: int) -> None:
    """Raise `InputError` if so many images do not fit."""
    if not fits(images, channels, size):
        raise InputError(
            f"dataset: {spec} has {images} images of {size} pixels, which need more than {MEMORY_LIMIT // 2**30} GiB; "
            "give a smaller --image-size, or unpack them into class folders, which are streamed"
        )
