"""What an error says of the device it was raised on: texts as torch, CUDA's libraries and NVML have them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from trainables import devices
from trainables.configuration import TrainingConfig
from trainables.devices import Place, fault, first_line, gpus_left, held_by_others
from trainables.training import check_device

CPU = torch.device("cpu")
# torch appends these to every CUDA error
HINTS = (
    "\nSearch for `{}' in https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html for more information."
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable "
    "device-side assertions.\n"
)


def cuda(words: str, name: str) -> RuntimeError:
    return torch.AcceleratorError(f"CUDA error: {words}{HINTS.format(name)}")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total …"), "memory"),
        (cuda("out of memory", "cudaErrorMemoryAllocation"), "memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), "memory"),
        (RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"), "memory"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "memory"),
        (cuda("device-side assert triggered", "cudaErrorAssert"), "own"),
        (RuntimeError("CUDA error: device-side assert triggered"), "own"),
        (cuda("an illegal memory access was encountered", "cudaErrorIllegalAddress"), "device"),
        (cuda("unspecified launch failure", "cudaErrorLaunchFailure"), "device"),
        (cuda("misaligned address", "cudaErrorMisalignedAddress"), "device"),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), "device"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "device"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle, a, b)`"), "device"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), "device"),
        (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:1, unhandled cuda error"), "device"),
        (torch.AcceleratorError("what no version has said yet"), "device"),
        (cuda("uncorrectable ECC error encountered", "cudaErrorECCUncorrectable"), "broken"),
        (cuda("no CUDA-capable device is detected", "cudaErrorNoDevice"), "broken"),
        (cuda("CUDA-capable device(s) is/are busy or unavailable", "cudaErrorDevicesUnavailable"), "broken"),
        (cuda("unknown error", "cudaErrorUnknown"), "broken"),
        (RuntimeError("No CUDA GPUs are available"), "broken"),
        (RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"), "broken"),
        (type("NVMLError_GpuIsLost", (Exception,), {})("GPU is lost"), "broken"),
        # calls that were refused, after which the device works: the trial's own failures
        (cuda("invalid argument", "cudaErrorInvalidValue"), None),
        (cuda("invalid configuration argument", "cudaErrorInvalidConfiguration"), None),
        (RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm(handle, a)`"), None),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), None),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
            None,
        ),
        (RuntimeError("Expected all tensors to be on the same device, but found cuda:0 and cpu!"), None),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (ValueError("CUDA error is no word of a device here"), None),
    ],
)
def test_what_errors_say(error: Exception, kind: str | None) -> None:
    assert fault(error, CPU) == kind


def test_what_an_error_was_raised_from() -> None:
    def raised(within: Exception, suppressed: bool) -> ValueError:
        error = ValueError("the loss is no number")
        error.__context__, error.__suppress_context__ = within, suppressed
        return error

    broken = cuda("unspecified launch failure", "cudaErrorLaunchFailure")
    assert fault(raised(broken, suppressed=False), CPU) == "device"
    assert fault(raised(broken, suppressed=True), CPU) is None
    assert fault(raised(raised(broken, suppressed=False), suppressed=False), CPU) == "device"


def test_the_device_is_asked_where_an_error_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails at every call of a process in which it has failed."""
    gpu = torch.device("cuda")
    answers: list[Exception | None] = [cuda("unspecified launch failure", "cudaErrorLaunchFailure")]

    def zeros(*_: object, device: torch.device) -> object:
        assert device == gpu
        if answers[0] is not None:
            raise answers[0]
        return SimpleNamespace(item=lambda: 0.0)

    monkeypatch.setattr(devices.torch, "zeros", zeros)
    assert fault(ValueError("the loss is no number"), gpu) == "device"
    answers[0] = torch.OutOfMemoryError("CUDA out of memory")  # no reason for what was raised
    assert fault(ValueError("the loss is no number"), gpu) is None
    answers[0] = None
    assert fault(ValueError("the loss is no number"), gpu) is None


def test_a_library_that_does_not_start_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`")
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: True)
    for free, kind in ((2**28, "memory"), (2**33, "device")):
        monkeypatch.setattr(devices.torch.cuda, "mem_get_info", lambda free=free: (free, 2**34))
        assert fault(error, CPU) == kind


def test_whose_memory_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not held_by_others(CPU)
    monkeypatch.setattr(devices.torch.cuda, "mem_get_info", lambda _: (1 * 2**30, 16 * 2**30))
    for reserved, others in ((2**30 * 29 // 2, False), (12 * 2**30, True)):
        monkeypatch.setattr(devices.torch.cuda, "memory_reserved", lambda _, reserved=reserved: reserved)
        assert held_by_others(torch.device("cuda")) == others


def test_first_line() -> None:
    assert first_line(cuda("unknown error", "cudaErrorUnknown")) == "CUDA error: unknown error"
    assert first_line(RuntimeError()) == "RuntimeError"


def test_gpus_that_are_left() -> None:
    nodes = [
        {"NodeID": "x", "Alive": True, "Resources": {"GPU": 4.0}},
        {"NodeID": "y", "Alive": True, "Resources": {"CPU": 2.0}},
        {"NodeID": "z", "Alive": False, "Resources": {"GPU": 8.0}},
        {"NodeID": "w", "Alive": True, "Resources": {"GPU": 1.0}},
    ]
    assert gpus_left(nodes, []) == 5
    assert gpus_left(nodes, [Place("x", "h", "0"), Place("x", "h", "0"), Place("z", "h", "1")]) == 4
    assert gpus_left(nodes, [Place("x", "h"), Place("x", "h", "1")]) == 1
    assert gpus_left(nodes, [Place("x", "h"), Place("w", "h", "0")]) == 0


def test_names_of_gpus() -> None:
    assert str(Place("n", "host", "3", "GPU-12")) == "GPU 3 (GPU-12) of host"
    assert str(Place("n", "host", "3")) == "GPU 3 of host"
    assert str(Place("n", "host")) == "the GPU of host"
    # the same GPU after its node has begun anew
    assert Place("n", "host", "3", "GPU-12").key == Place("m", "host", "0", "GPU-12").key


@pytest.mark.parametrize("major", [7, 8])
def test_bf16_is_refused_where_it_is_emulated(major: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute capability 7 takes tensors of it, which is what torch calls supported."""
    gpu, config = torch.device("cuda"), TrainingConfig(epochs=1, precision="bf16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=major))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    assert torch.cuda.is_bf16_supported()
    check_device(gpu, TrainingConfig(epochs=1))
    check_device(CPU, config)
    if major == 8:
        check_device(gpu, config)
        return
    with pytest.raises(ValueError, match=r"^precision: bf16, allowed is float32 on Tesla T4$"):
        check_device(gpu, config)
