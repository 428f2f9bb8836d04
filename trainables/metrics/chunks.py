"""Many images through a model in bounded memory: so many at once as their activations fill 128 MiB.

Values do not depend on the chunks but for rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from trainables.lazily import nn, torch

if TYPE_CHECKING:
    from torch import Tensor

Model = Callable[["Tensor"], "Tensor"]
"""Any callable from images (B, C, H, W) to logits (B, D) that treats images apart."""

ACTIVATION_BYTES = 2**27
LARGEST_CHUNK = 256


def chunk_size(model: Model, images: Tensor) -> int:
    """How many images of (B, C, H, W) may go through the model at once, from one's activations."""
    if not isinstance(model, nn.Module):
        return max(1, min(LARGEST_CHUNK, ACTIVATION_BYTES // (64 * images[0].numel() * images.element_size())))
    held = 0

    def count(_layer: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal held
        if isinstance(output, torch.Tensor):
            held += output.numel() * output.element_size()

    leaves = [layer for layer in model.modules() if not any(layer.children())]
    with torch.no_grad(), hooked(leaves, count):
        model(images[:1])
    return max(1, min(LARGEST_CHUNK, ACTIVATION_BYTES // max(1, held)))


def in_chunks(
    function: Callable[..., Tensor], model: Model, images: Tensor, *rest: Tensor, chunk: int | None = None
) -> Tensor:
    """What `function` makes of images (B, C, H, W) and of the rows of `rest` (B, …) that belong to them, chunk by
    chunk, of `chunk` images or of `chunk_size`, joined."""
    size = chunk or chunk_size(model, images)
    parts = zip(*(rows.split(size) for rows in (images, *rest)), strict=True)
    return torch.cat([function(*part) for part in parts])


@contextlib.contextmanager
def hooked(
    layers: Iterable[nn.Module], after: Callable[..., Any], before: Callable[..., Any] | None = None
) -> Iterator[None]:
    """Every layer with a hook after its pass, and one before it, for the time being."""
    handles = []
    for layer in layers:
        if before is not None:
            handles.append(layer.register_forward_pre_hook(before))
        handles.append(layer.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
