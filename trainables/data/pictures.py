"""Pictures: files and bytes decoded to arrays, brought to a size. Pillow is imported when the first is opened."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.command_line import InputError
from analysis.lazily import lazily

if TYPE_CHECKING:
    import PIL
    from PIL import Image
else:
    PIL, Image = lazily("PIL"), lazily("PIL.Image")

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images (N, C, H, W) and labels (N,)."""
FOLDER_SIZE = 224
"""Pixels a side of images from folders and Parquet files whose own sizes differ."""


def resized(images: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    """Arrays (N, C, H, W) at `size` pixels a side, by Pillow's antialiased bilinear filter."""
    if size is None or images.shape[2:] == (size, size):
        return images
    pictures = (Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)) for image in images)
    return np.stack([as_array(square(picture, size)) for picture in pictures])


def square(picture: Image.Image, size: int) -> Image.Image:
    """Short side to `size`, then the centre."""
    width, height = picture.size
    if (width, height) != (size, size):
        short = min(width, height)
        shape = (max(size, round(width * size / short)), max(size, round(height * size / short)))
        picture = picture.resize(shape, Image.Resampling.BILINEAR)
        left, top = (shape[0] - size) // 2, (shape[1] - size) // 2
        picture = picture.crop((left, top, left + size, top + size))
    return picture


def as_array(picture: Image.Image) -> NDArray[np.uint8]:
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def opened(source: str | io.BytesIO, name: str | None = None) -> Image.Image:
    """The picture of a file, or of bytes that are called `name`. Raises `InputError` if it is none."""
    try:
        return Image.open(source)
    except PIL.UnidentifiedImageError:
        raise InputError(f"{name or source}: no readable image (no known format)") from None
    except OSError as error:
        raise InputError(f"{name or source}: no readable image ({one_line(error)})") from None


def check_depth(picture: Image.Image, name: str) -> None:
    """Raise `InputError` for pictures of more than 8 bits a channel."""
    # Pillow would cut 16 bits off at 255 without a word
    if picture.mode.startswith(("I", "F")):
        raise InputError(f"{name}: pixels of {picture.mode} mode, allowed are 8 bits a channel")


def converted(picture: Image.Image, mode: str, name: str) -> Image.Image:
    """The picture as grey (L) or RGB. Raises `ValueError` where that would lose what it shows, or it is damaged."""
    check_depth(picture, name)
    if mode == "L" and picture.mode not in ("L", "1"):
        raise InputError(f"{name}: {picture.mode} among grey images, allowed are images that are all grey or in colour")
    try:
        return picture.convert(mode)
    except OSError as error:
        raise InputError(f"{name}: no readable image ({one_line(error)})") from None


def read_files(paths: Sequence[str], labels: NDArray[np.int64], size: int, mode: str) -> Arrays:
    """Picture files as grey (L) or RGB at `size` pixels a side, with their labels."""

    def read(path: str) -> NDArray[np.uint8]:
        with opened(path) as picture:
            return as_array(square(converted(picture, mode, path), size))

    return np.stack(in_threads(read, paths)), labels


def in_threads(function: Callable[..., NDArray[np.uint8]], *items: Sequence[Any]) -> list[NDArray[np.uint8]]:
    """The function of each item, in their order, several at a time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, *items))


def decode(content: bytes, mode: str | None, name: str, size: int | None = None) -> NDArray[np.uint8]:
    """A picture's bytes as an array (C, H, W): grey or RGB as it is, or of a mode; at its size, or at `size`."""
    with opened(io.BytesIO(content), name) as picture:
        whole = converted(picture, mode or ("L" if picture.mode in ("L", "1") else "RGB"), name)
    return as_array(square(whole, size) if size is not None else whole)


def one_line(error: BaseException) -> str:
    """An error's message in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
