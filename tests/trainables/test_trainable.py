"""The adapter's own decisions, without Ray."""

import pytest
import torch

from trainables.trainable import trial_device


def test_the_device_is_the_one_ray_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWEEPS_DRILL_FAKE_GPUS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert trial_device(gpu=True).type == "cuda"
    assert trial_device(gpu=False).type == "cpu"


def test_a_gpu_that_torch_does_not_find_is_no_reason_to_train_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWEEPS_DRILL_FAKE_GPUS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="--gpus-per-trial 0"):
        trial_device(gpu=True)
    monkeypatch.setenv("SWEEPS_DRILL_FAKE_GPUS", "1")
    assert trial_device(gpu=True).type == "cpu"
