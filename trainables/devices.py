"""What an error says of the accelerator: that its memory is full, that it is broken, or that the trial harmed it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainables.lazily import torch

Fault = Literal["memory", "own", "device", "broken"]
"""memory: its memory is full; the trial may fit where it has more of it. own: an assertion of the trial's own kernels
failed. device: the trial's kernels or the device, which cannot be told from one error. broken: no trial can do that.
After all but the first, every further call of the process fails."""

# torch ends each CUDA error with hints, in which "device-side assertions" stands
_MEMORY = re.compile(
    r"(CUDA|HIP|CUBLAS|NCCL)\b.{0,40}out of memory|MemoryAllocation|ERROR_OUT_OF_MEMORY"
    r"|(STATUS|CUFFT)_ALLOC_FAILED|ALLOCATION_FAILED",
    re.IGNORECASE,
)
_OWN = re.compile(r"device-side assert triggered|cudaErrorAssert|CUDA_ERROR_ASSERT|hipErrorAssert", re.IGNORECASE)
_ACCELERATOR = re.compile(
    r"CUDA (driver |unknown |kernel )?error|\bcudaError[A-Z]|\bCUDA_ERROR_|Triton Error \[CUDA\]|CUDA-capable device"
    r"|No CUDA GPUs are available|cuDNN error|CU(DNN|BLAS|SOLVER|SPARSE)_STATUS_|cuFFT error|\bCUFFT_"
    r"|NCCL error|\bnccl\w+Error|\bNVML|GPU is lost|fallen off the bus|HIP error|\bhipError[A-Z]"
)
_MISUSE = re.compile(
    r"_(INVALID_VALUE|NOT_SUPPORTED|BAD_PARAM|INVALID_TYPE|INVALID_SIZE|INVALID_PLAN)|not supported|not permitted"
    r"|invalid (configuration )?argument|invalid resource handle|too many resources requested|captur"
    r"|Error(InvalidValue|InvalidConfiguration|InvalidResourceHandle|LaunchOutOfResources|NotSupported|NotPermitted)",
    re.IGNORECASE,
)
"""Calls that were refused: of them the trial alone is to blame, and the next call works."""
_BROKEN = re.compile(
    r"\bECC\b|ErrorECC|NVLink|GPU is lost|fallen off the bus|no CUDA-capable device|No CUDA GPUs|ErrorNoDevice"
    r"|busy or unavailable|ErrorDevicesUnavailable|system not yet initialized|version mismatch|version is insufficient"
    r"|unknown error|ErrorUnknown|initialization error|driver shutting down",
    re.IGNORECASE,
)
_LITTLE = 2**29  # bytes free below which cuBLAS and cuDNN, which want some at their first call, say "not initialised"
_CONTEXT = 2**30  # of a process's memory on a device, what torch does not count as its own is less


def fault(error: BaseException, device: torch.device) -> Fault | None:
    """What an exception says of the device, by itself or by what it was raised from; None where it says nothing, and
    the device still works."""
    seen: BaseException | None = error
    while seen is not None:
        found = _said(seen)
        if found is not None:
            return found
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    if device.type == "cuda":
        try:
            torch.zeros(1, device=device).item()
        except RuntimeError as failure:
            found = _said(failure)
            return found if found != "memory" else None
    return None


def _said(error: BaseException) -> Fault | None:
    if isinstance(error, torch.OutOfMemoryError):
        return "memory"
    if not (isinstance(error, RuntimeError) or type(error).__name__.startswith("NVMLError")):
        return None
    text = str(error)
    accelerator = isinstance(error, torch.AcceleratorError) or bool(_ACCELERATOR.search(text))
    if _MEMORY.search(text) and (accelerator or "out of memory" in text):
        return "memory"
    if not accelerator and not type(error).__name__.startswith("NVMLError"):
        return None
    # "when calling `cublasSgemm(…)`" and the hints hold other words
    text = first_line(error) + "".join(re.findall(r"`\w+Error\w+'", text))
    if _OWN.search(text):
        return "own"
    if _BROKEN.search(text):
        return "broken"
    if _MISUSE.search(text):
        return None
    return "memory" if "STATUS_NOT_INITIALIZED" in text and _little_free() else "device"


def first_line(error: BaseException) -> str:
    """Of an error of torch what it says, without the hints that follow."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()


def _little_free() -> bool:
    try:
        return torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < _LITTLE
    except RuntimeError:
        return False  # of a device that does not answer it is not memory that is lacking


def held_by_others(device: torch.device) -> bool:
    """Whether other processes hold memory of the device."""
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device) > _CONTEXT


@dataclass(frozen=True)
class Place:
    """A GPU of a node, or all of them."""

    node: str
    """Ray's id of the node."""
    host: str
    gpu: str = ""
    """Ray's id of the GPU; empty: all of the node."""
    uuid: str = ""
    """What the driver calls it, where it can be asked."""

    @property
    def key(self) -> str:
        """Also after the node has started anew, where the GPU has a name of its own."""
        return self.uuid or f"{self.node}/{self.gpu}"

    def __str__(self) -> str:
        name = f"GPU {self.gpu}" if self.gpu else "the GPU"
        return f"{name} ({self.uuid}) of {self.host}" if self.uuid else f"{name} of {self.host}"


def gpus_left(nodes: Iterable[Mapping[str, Any]], out: Iterable[Place]) -> float:
    """How many GPUs the living nodes have, without those that are out."""
    places = {place.key: place for place in out}.values()
    left = 0.0
    for node in nodes:
        here = [place for place in places if place.node == node["NodeID"]]
        if node["Alive"] and all(place.gpu for place in here):
            left += max(0.0, node["Resources"].get("GPU", 0.0) - len(here))
    return left
