"""Pictures: the one opener of image files and bytes, and arrays of a size. Pillow is imported when the first is opened.

What a viewer shows is what is trained on: turned as the EXIF data say, and on white where it is transparent. Whatever
is wrong with an image is told under its name.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
"""Pixels a side of images from folders and Parquet files most of which are not squares of one size."""

# what Pillow's readers raise at files that are damaged
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
    zlib.error,
)
# of half the size that it refuses, Pillow warns without a name: it is read
warnings.filterwarnings("ignore", message=r"Image size \(\d+ pixels\) exceeds limit of", category=RuntimeWarning)

_EXIF_ORIENTATION = 0x0112
# Pillow finds a PNG's after having decoded it; without one of these there is none
_MAY_ORIENT_PNG = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")


def resized(images: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    """Arrays (N, C, H, W) at `size` pixels a side, by Pillow's antialiased bilinear filter."""
    if size is None or images.shape[2:] == (size, size):
        return images
    return np.stack([as_array(square(picture, size)) for picture in _pictures(images)])


def with_channels(images: NDArray[np.uint8], channels: int | None) -> NDArray[np.uint8]:
    """Arrays (N, C, H, W) as grey (1) or in colour (3); None: as they are."""
    if channels is None or images.shape[1] == channels:
        return images
    return np.stack([as_array(picture.convert(_mode(channels))) for picture in _pictures(images)])


def _pictures(images: NDArray[np.uint8]) -> Iterator[Image.Image]:
    return (Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)) for image in images)


def _mode(channels: int) -> str:
    return "L" if channels == 1 else "RGB"


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


@contextlib.contextmanager
def _opened(source: str | bytes | None, name: str, what: str = "image") -> Iterator[Image.Image]:
    """Pillow's picture of a file or of bytes. What is raised of it, also by what is done with it, is an `InputError` in
    one line that begins with `name`."""
    if not source:
        raise InputError(f"{name}: no readable {what} (empty)")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            yield picture
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        (pixels,) = re.findall(r"\((\d+) pixels", str(error)) or ["too many"]
        raise InputError(f"{name}: {pixels} pixels, allowed are at most {2 * (Image.MAX_IMAGE_PIXELS or 0)}") from None
    except PIL.UnidentifiedImageError:
        raise InputError(f"{name}: no readable {what} (no known format)") from None
    except _DAMAGED as error:
        raise InputError(f"{name}: no readable {what} ({one_line(error)})") from None


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    except _DAMAGED:
        return 1  # EXIF data that nobody can read turn nothing


def _upright(picture: Image.Image) -> Image.Image:
    """As its EXIF data say that it is to be shown."""
    turns = Image.Transpose
    found = {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_270,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_90,
    }.get(_orientation(picture))
    return picture if found is None else picture.transpose(found)


def _on_white(picture: Image.Image) -> Image.Image:
    """The picture itself where all of it is opaque."""
    if not picture.has_transparency_data:
        return picture
    layers = picture.convert("RGBA")
    if layers.getchannel("A").getextrema() == (255, 255):
        return picture
    white = Image.new("RGBA", layers.size, "white")
    white.alpha_composite(layers)
    return white


def _check_depth(picture: Image.Image, name: str) -> None:
    # Pillow would cut 16 bits off at 255 without a word
    if picture.mode.startswith(("I", "F")):
        raise InputError(f"{name}: pixels of {picture.mode} mode, allowed are 8 bits a channel")


@dataclass(frozen=True)
class Look:
    """What an image is, as it is shown: its size, whether it is grey, whether its EXIF data turn or mirror it, whether
    any of it is transparent; and Pillow's mode of it as it is stored."""

    size: tuple[int, int]
    grey: bool
    turned: bool
    transparent: bool
    mode: str


def look(content: bytes | None, name: str) -> Look:
    """What the image of these bytes is; of most images it reads no more than their heads.

    Raises `InputError` that begins with `name` for what is no image, of more than 8 bits a channel, or of more pixels
    than Pillow's limit.
    """
    with _opened(content, name) as picture:
        assert content is not None
        _check_depth(picture, name)
        size, mode = picture.size, picture.mode
        may_be_turned = picture.format != "PNG" or any(mark in content for mark in _MAY_ORIENT_PNG)
        orientation = _orientation(picture) if may_be_turned else 1
        turned = 2 <= orientation <= 8
        transparent = _on_white(picture) is not picture
    shown = size[::-1] if turned and orientation >= 5 else size
    return Look(shown, mode in ("1", "L", "LA", "La"), turned, transparent, mode)


def picture(source: str | bytes | None, channels: int, name: str, *, as_stored: bool = False) -> Image.Image:
    """The image of a file or of bytes, grey (1 channel) or RGB (3): as it is shown, or `as_stored`, without regard to
    EXIF data and transparency, as sets are that were published so. Raises what `look` raises, and for damaged ones."""
    with _opened(source, name) as opened:
        _check_depth(opened, name)
        opened.load()
        return (opened if as_stored else _on_white(_upright(opened))).convert(_mode(channels))


def stored_values(source: str, *, upright: bool, what: str) -> NDArray[Any]:
    """The values of an image file as they are stored, of a palette its indices (H, W) or (H, W, C)."""
    with _opened(source, source, what) as opened:
        opened.load()
        return np.asarray(_upright(opened) if upright else opened)


def size_of(source: str, *, upright: bool) -> tuple[int, int]:
    """Width and height of an image file, as it is shown or as it is stored."""
    with _opened(source, source) as opened:
        return opened.size[::-1] if upright and 5 <= _orientation(opened) <= 8 else opened.size


def read_files(
    paths: Sequence[str], labels: NDArray[np.int64], size: int, channels: int, *, as_stored: bool = False
) -> Arrays:
    """Image files as grey (1 channel) or RGB (3) at `size` pixels a side, with their labels."""

    def read(path: str) -> NDArray[np.uint8]:
        return as_array(square(picture(path, channels, path, as_stored=as_stored), size))

    return np.stack(in_threads(read, paths)), labels


def in_threads(function: Callable[..., Any], *items: Sequence[Any]) -> list[Any]:
    """The function of each item, in their order, several at a time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, *items))


def one_line(error: BaseException) -> str:
    """An error's message in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
