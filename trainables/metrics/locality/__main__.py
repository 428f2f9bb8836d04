"""The locality test of any network's filters.

    python -m trainables.metrics.locality --timm resnet50 [--weights FILE | --pretrained] [--layers]
    python -m trainables.metrics.locality --torchvision vgg16 --weights vgg16.pth
    python -m trainables.metrics.locality --weights any_state_dict.safetensors

What is tested: the package's docstring. A network without weights of a file or its library's is as initialised.
safetensors sort their tensors by name: without the network its halves are not known and left out.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from analysis.bounds import SEED, Bound
from analysis.command_line import InputError, parse, run
from analysis.formats import Format, Table, beside, print_tables
from trainables.lazily import torch
from trainables.loco_reg import is_spatial, spatial_convolutions
from trainables.metrics.locality import PARTS, locality_by_part

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Flags:
    """Which network's filters to test: a network by name, a file of weights, or a network with weights from a file."""

    timm: str | None = None
    """A network of timm by its name."""
    torchvision: str | None = None
    """A network of torchvision by its name."""
    weights: Path | None = None
    """Its weights, or any state dict: safetensors, or what torch.save wrote."""
    pretrained: bool = False
    """The library's own weights, downloaded if need be; otherwise, without --weights, the network is as initialised."""
    seed: int = 0
    """Of an initialisation."""
    layers: bool = False
    """A row for each layer, too."""
    format: Format | None = None
    """Print the tables as CSV (numbers in full), Markdown or LaTeX (for booktabs), and all else on standard error."""

    BOUNDS: ClassVar[Mapping[str, Bound]] = {"seed": SEED}


def _is_safetensors(file: Path | None) -> bool:
    return file is not None and file.suffix == ".safetensors"


def state_dict(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises `InputError` for a file that is none."""
    if not file.exists():
        raise InputError(f"weights: no file {file}")
    try:
        if _is_safetensors(file):
            from safetensors.torch import load_file

            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        kinds = (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError)
        if isinstance(error, kinds) or type(error).__name__ == "SafetensorError":
            reason = " ".join(str(error).split())[:150]
            raise InputError(f"weights: {file} is no state dict of torch.save or safetensors ({reason})") from None
        raise
    for key in ("state_dict", "model", "module"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise InputError(f"weights: {file} holds a {type(content).__name__}, allowed is a state dict")
    return {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}


def network(flags: Flags) -> torch.nn.Module:
    """The library's network. Raises `InputError` for an unknown one, or weights that cannot be had."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(flags.seed)
        try:
            if flags.timm is not None:
                import timm

                return timm.create_model(flags.timm, pretrained=flags.pretrained)
            from torchvision import models

            return models.get_model(flags.torchvision, weights="DEFAULT" if flags.pretrained else None)
        except Exception as error:  # noqa: BLE001 - the libraries raise what they like; it is told in one line
            library, name = ("timm", flags.timm) if flags.timm is not None else ("torchvision", flags.torchvision)
            reason = " ".join(str(error).split())[:200]
            way_out = "; fetch the weights elsewhere and give them as --weights" if flags.pretrained else ""
            raise InputError(f"{library}: {name!r} cannot be had: {reason}{way_out}") from None


def filters(flags: Flags) -> dict[str, Tensor]:
    """The weights of the spatial convolutions that the flags name, in order."""
    if flags.timm is not None and flags.torchvision is not None:
        raise InputError("--timm, --torchvision: both given, allowed is one of them")
    if flags.pretrained and flags.weights is not None:
        raise InputError("--pretrained, --weights: both given, allowed is one of them")
    if flags.timm is None and flags.torchvision is None:
        if flags.weights is None:
            raise InputError("nothing to test: give --timm NAME, --torchvision NAME or --weights FILE")
        found = {name: value for name, value in state_dict(flags.weights).items() if is_spatial(value)}
        source = str(flags.weights)
    else:
        model = network(flags)
        source = flags.timm or str(flags.torchvision)
        if flags.weights is not None:
            try:
                model.load_state_dict(state_dict(flags.weights))
            except RuntimeError as error:
                raise InputError(
                    f"weights: {flags.weights} is not of {source}: {' '.join(str(error).split())[:300]}"
                ) from None
        found = {name: module.weight for name, module in spatial_convolutions(model)}
    if not found:
        raise InputError(f"{source}: no convolution with square filters of odd size from 3 on")
    return found


def main() -> None:
    flags = parse(Flags, sys.argv[1:], prog="python -m trainables.metrics.locality", description=__doc__ or "")
    layers = filters(flags)
    ordered = flags.timm is not None or flags.torchvision is not None or not _is_safetensors(flags.weights)
    tables = []
    columns = ("layers", "classes", "m", "", "standard error", "t", "p (m > 0)", "n")
    for size in sorted({weight.shape[-1] for weight in layers.values()}):
        number = sum(weight.shape[-1] == size for weight in layers.values())
        rows, full = [], []
        for (part, (a, b)), result in locality_by_part(layers, size, halves=ordered).items():
            if part not in PARTS and not flags.layers:
                continue
            numbers = f"{result.m:.3f}", result.stars, f"{result.standard_error:.4f}", f"{result.t:.2f}"
            rows.append((part, f"{a}-{b}", *numbers, f"{result.p:.2g}", str(result.n)))
            own = (result.m, result.standard_error, result.t, result.p, result.n)
            full.append(dict(zip(_COLUMNS, (size, part, f"{a}-{b}", *own), strict=True)))
        caption = f"{size}×{size} filters of {number} convolutions"
        tables.append(Table(columns, rows, wrap=(0, 1), caption=caption, data=pa.Table.from_pylist(full)))
    print_tables(tables, flags.format)
    with beside(flags.format):
        print("*** p < .001, ** p < .01, * p < .1; lower and upper: halves of the layers, -slices: of the slices")
        if not ordered:
            print("safetensors are sorted by name: for the halves give --timm or --torchvision, too")


_COLUMNS = ("size", "layers", "classes", "m", "standard_error", "t", "p_value", "n")


if __name__ == "__main__":
    run(main)
