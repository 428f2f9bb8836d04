"""Networks on images in the pixels' own unit, [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.data import Images, StreamedImages
from trainables.data.images import scale_and_offset


class PixelModel(nn.Module):
    """A network with the normalisation of its data inside: from images in [0, 1] to logits."""

    scale: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, data: Images | StreamedImages) -> None:
        super().__init__()
        self.network = network
        scale, offset = scale_and_offset(data.config, data.mean, data.std)
        device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
        for name, values in (("scale", [255 * value for value in scale]), ("offset", offset)):
            self.register_buffer(name, torch.tensor(values, device=device).reshape(1, -1, 1, 1), persistent=False)
        self.training = network.training

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images * self.scale + self.offset)
        return logits

    def pixels(self, inputs: Tensor) -> Tensor:
        """The images in [0, 1], exactly k/255, that the data set gives to the network as `inputs`."""
        return ((inputs - self.offset) / self.scale * 255).round().div(255)
