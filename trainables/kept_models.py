"""Trained networks that are kept with the record, as safetensors: `<sweep>/models/<trial_id>.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from analysis.command_line import InputError
from analysis.lazily import lazily
from analysis.records import open_place, write_file

if TYPE_CHECKING:
    from safetensors import torch as safetensors
    from torch import Tensor, nn

    from trainables.data import Images, StreamedImages
else:
    safetensors = lazily("safetensors.torch")


@dataclass(frozen=True)
class KeptModel:
    """Weights and buffers by name, and what the network was trained for: its input's channels, pixels a side, and per
    channel mean and deviation, and its classes."""

    url: str
    state: dict[str, Tensor]
    channels: int
    size: int
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def load_into(self, model: nn.Module) -> None:
        """Give the weights to a network. Raises `InputError` if it is of another architecture."""
        try:
            model.load_state_dict(self.state)
        except RuntimeError as error:
            raise InputError(f"{self.url}: of another network ({' '.join(str(error).split())[:200]})") from None


def model_file(sweep: str, trial_id: str) -> str:
    """Where a trial's weights are kept."""
    return f"{sweep.rstrip('/')}/models/{trial_id}.safetensors"


def write_model(url: str, model: nn.Module, data: Images | StreamedImages) -> None:
    """Keep a network trained on `data`, written atomically."""
    state = {name: values.detach().cpu().contiguous() for name, values in model.state_dict().items()}
    trained_for: dict[str, Any] = {"channels": data.channels, "size": data.size, "classes": data.classes}
    trained_for |= {"mean": data.mean, "std": data.std}
    # under one key: the order of several changes from run to run
    write_file(url, safetensors.save(state, {"trained_for": json.dumps(trained_for)}))


def without_model(sweep: str, trial_ids: Iterable[str]) -> list[str]:
    """Those of the trials whose network was not kept."""
    fs, folder = open_place(f"{sweep.rstrip('/')}/models")
    there = {path.rsplit("/", 1)[-1] for path in fs.ls(folder, detail=False)} if fs.exists(folder) else set()
    return [trial_id for trial_id in trial_ids if f"{trial_id}.safetensors" not in there]


def read_model(url: str) -> KeptModel:
    """Raises `InputError`, one line that names the file, if it is missing, damaged, or not one of `write_model`."""
    fs, path = open_place(url)
    try:
        content = fs.cat_file(path)
    except FileNotFoundError:
        raise InputError(f"{url}: missing") from None
    try:
        state = safetensors.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        known = json.loads(header["__metadata__"]["trained_for"])
        known |= {"mean": tuple(known["mean"]), "std": tuple(known["std"])}
        return KeptModel(url, state, **known)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{url}: damaged ({' '.join(str(error).split())})") from None
