"""Residual networks whose blocks begin with BatchNorm and ReLU (He et al. 2016, "Identity Mappings")."""

from __future__ import annotations

from collections.abc import Callable

from trainables.lazily import nn


def he_normal_(network: nn.Module) -> None:
    """Draw the convolutions' weights as residual networks have them, of variance 2 / (k²·outputs) (He et al. 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def preactivation_resnet(depths: tuple[int, ...], widening: int = 1) -> Callable[[int, int, int, int], nn.Module]:
    """For images of some 32 pixels: a 3×3 convolution, a stage per depth, each half as large and twice as wide as the
    one before, BatchNorm and ReLU, global average pooling, one linear layer.

    The first convolution has the first stage's width over `widening`: WideResNet-40-4 (Zagoruyko and Komodakis 2016)
    is depths (6, 6, 6), width 64 and widening 4.
    """

    def build(channels: int, size: int, classes: int, width: int) -> nn.Module:
        from trainables.models.blocks import PreActivationBlock

        inputs = max(1, width // widening)
        stem = nn.Conv2d(channels, inputs, 3, padding=1, bias=False)
        stages = []
        for stage, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                blocks.append(PreActivationBlock(inputs, width * 2**stage, 2 if stage > 0 and index == 0 else 1))
                inputs = width * 2**stage
            stages.append(nn.Sequential(*blocks))
        network = nn.Sequential(
            stem,
            *stages,
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(inputs, classes),
        )
        he_normal_(network)
        return network

    return build
