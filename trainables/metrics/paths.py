"""Proposition 1 of PILCRO measured: the landscape averaged over initialisations against the number of paths."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.command_line import InputError
from trainables.lazily import torch
from trainables.metrics.moment import EVALUATION_BATCH, Measured, Moment, derived_seed
from trainables.pilcro import landscape_of_batches, path_importance


@dataclass(frozen=True)
class PathCounts:
    """Pearson's r over pixels between the predicted landscape and the measured one, both averaged over the same
    initialisations, at epoch 0; and the two maps."""

    initialisations: int = 10
    images: int = 256
    """Of the validation split, for the measured landscapes."""

    def __post_init__(self) -> None:
        for name, number in {"initialisations": self.initialisations, "images": self.images}.items():
            if number < 1:
                raise InputError(f"{name}: {number}, allowed are whole numbers of at least 1")

    def measure(self, moment: Moment) -> Measured:
        if moment.epoch != 0 or moment.split == "test":
            return Measured()
        data = moment.data
        batches = [
            images
            for images, _ in data.batches(moment.split, EVALUATION_BATCH, device=moment.device, limit=self.images)
        ]
        shape = (data.channels, *batches[0].shape[-2:])
        measured = torch.zeros(shape[1:], dtype=torch.float64, device=moment.device)
        predicted = torch.zeros_like(measured)
        generator = moment.generator("paths")
        for index in range(self.initialisations):
            model = moment.rebuild(derived_seed(moment.seed, "initialisation", index)).to(moment.device).eval()
            predicted += path_importance(model, shape) / self.initialisations
            measured += landscape_of_batches(model, batches, generator=generator) / self.initialisations
        correlation = float(torch.corrcoef(torch.stack([predicted.flatten(), measured.flatten()]))[0, 1])
        row = {"metric": "path_importance_correlation", "component": "", "level": None, "value": correlation}
        row |= {"std": None, "n": self.initialisations, "unit": "", "direction": "none"}
        return Measured({}, [row], {"path_importance": predicted, "initial_landscape": measured})
