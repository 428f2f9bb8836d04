"""Class activation maps (CAM) and how sparse they are, for any method (Top-GAP's paper, Section 4.2, Appendix C).

The CAM of a Top-GAP network is its class map; that of any other network is GradCAM (Definition 3.4). Both are enlarged
to the image's size and scaled to [0, 1] in the same way.

Notation: B images, C channels, H×W pixels, D classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.command_line import InputError
from trainables.lazily import nn, torch
from trainables.metrics.chunks import in_chunks
from trainables.metrics.moment import EVALUATION_BATCH, FORWARD, Measured, Moment
from trainables.models.class_maps import enlarged
from trainables.models.feature_maps import cut

if TYPE_CHECKING:
    from torch import Tensor


def grad_cam(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """GradCAM (Selvaraju et al. 2019; Definition 3.4) of the classes `labels` (B,) at the last feature map X:
    ReLU(Σ_k W_k X_k), W_k the mean over locations of ∂logit/∂X_k; (B, h, w), at least 0."""
    parts = cut(network)
    with torch.no_grad():
        features = parts.features(images)
    with torch.enable_grad():
        features = features.detach().requires_grad_(True)
        # a copy, which a layer that works in place may overwrite
        logits = parts.classify(features.clone())
        (gradients,) = torch.autograd.grad(logits.gather(1, labels.unsqueeze(1)).sum(), features)
    weights = gradients.mean((2, 3), keepdim=True)
    return (weights * features.detach()).sum(1).relu()


def cams(model: nn.Module, images: Tensor, labels: Tensor, *, chunk: int | None = None) -> Tensor:
    """The class activation maps of the classes `labels` (B,) in [0, 1], (B, H, W), of the images' size: the class maps
    of a Top-GAP network, GradCAM of any other; nan of maps of a single pixel, which locate nothing. So many images at
    once as fill 128 MiB, or `chunk` of them."""
    from trainables.models.top_gap import TopGapNetwork

    def some(part: Tensor, classes: Tensor) -> Tensor:
        if isinstance(model, TopGapNetwork):
            return model.cam(part, classes)
        maps = grad_cam(model, part, classes)
        return enlarged(maps, part.shape[-2], part.shape[-1])

    with torch.no_grad():
        return in_chunks(some, model, images, labels, chunk=chunk)


def first_of_classes(labels: Tensor, number: int) -> list[int]:
    """Rising indices of the first images of `number` classes, each of another one, in the order of `labels` (N,)."""
    first: dict[int, int] = {}
    for index, label in enumerate(labels.tolist()):
        first.setdefault(label, index)
    return list(first.values())[:number]


@dataclass(frozen=True)
class ClassActivation:
    """On the test split of the trained network: `cam_sparsity`, the mean over images, with its deviation, of the mean
    |CAM| of the image's true class, in [0, 1] (Section 4.2). Maps: `cam/<index in the test split>`, the image, its
    channels averaged, `image/<index>`, and its class, 1 × 1, `label/<index>`."""

    images: int = 1000
    """The first so many test images, whose order is shuffled and fixed."""
    panels: int = 4
    """Images whose CAMs are kept: the first ones of so many classes, the same for every trial."""

    def __post_init__(self) -> None:
        if self.images < 1:
            raise InputError(f"images: {self.images}, allowed are whole numbers of at least 1")
        if self.panels < 0:
            raise InputError(f"panels: {self.panels}, allowed are whole numbers of at least 0")

    def image_passes(self, features: int) -> float:
        return self.images * FORWARD

    def measure(self, moment: Moment) -> Measured:
        from trainables.models.top_gap import TopGapNetwork

        if moment.split != "test":
            if moment.epoch == 0 and not isinstance(moment.model, TopGapNetwork):
                cut(moment.model)  # a network that cannot be cut is refused before it is trained
            return Measured()
        sparsities, seen = [], []
        for images, labels in moment.data.batches("test", EVALUATION_BATCH, device=moment.device, limit=self.images):
            sparsities.append(cams(moment.model, images, labels).abs().mean((1, 2)).double())
            seen.append(labels.cpu())
        values = torch.cat(sparsities)
        values = values[values.isfinite()]  # maps of one pixel have none
        row: dict[str, Any] = {"metric": "cam_sparsity", "component": "", "level": None}
        row |= {"value": float(values.mean()) if len(values) else None}
        row |= {"std": float(values.std()) if len(values) > 1 else None, "n": len(values)}
        measured = Measured({}, [{**row, "unit": "fraction", "direction": "min"}])
        shown = first_of_classes(torch.cat(seen), self.panels)
        if shown and len(values):
            images, labels = moment.data.select("test", torch.tensor(shown), device=moment.device)
            found = cams(moment.model, images, labels)
            for index, image, label, cam in zip(shown, images, labels, found, strict=True):
                measured.maps |= {f"image/{index}": image.mean(0), f"cam/{index}": cam}
                measured.maps[f"label/{index}"] = label.float().reshape(1, 1)
        return measured
