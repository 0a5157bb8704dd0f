"""Devices: which one is taken. There need be no GPU: where a test wants one, torch says that it is there."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from skelact.devices import choose_device, has_half, num_gpus, take_gpu, training_half
from skelact.errors import SkelactError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretends that there are GPUs, whose tensors are on the CPU."""

    def pretend(current: int = 0, count: int = 2) -> None:
        zeros = torch.zeros

        def there(*shape: int, device: str) -> torch.Tensor:
            if int(device.partition(":")[2] or 0) >= count:
                raise RuntimeError("CUDA error: invalid device ordinal\nmore")
            return zeros(*shape)

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
        monkeypatch.setattr(torch, "zeros", there)

    return pretend


def test_a_device_is_chosen() -> None:
    assert choose_device() == choose_device("auto")
    assert choose_device().partition(":")[0] in ("cuda", "mps", "cpu")
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize("device", ["cuda:99", "99", "quantum", "cpu:x", "meta", ""])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(SkelactError, match=rf"device '{device}' cannot be used here \(.+\); leave --device out"):
        choose_device(device)


def test_cuda_is_the_current_one_by_its_number(gpus: Callable[..., None]) -> None:
    """ultralytics takes ``cuda`` for the first, and the classifier's would then be another."""
    gpus(current=1)
    assert choose_device() == choose_device("cuda") == choose_device("cuda:1") == choose_device("1") == "cuda:1"
    assert choose_device("0") == "cuda:0"
    with pytest.raises(
        SkelactError, match=r"device 'cuda:2' cannot be used here \(CUDA error: invalid device ordinal\)"
    ):
        choose_device("cuda:2")


def test_a_gpu_that_does_not_work_is_left_alone(gpus: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    """Torch sees it, and has no kernels for it, or somebody else has it for himself."""
    gpus(count=0)
    assert choose_device() == "cpu"
    assert "the GPU cannot be used (CUDA error: invalid device ordinal); working on the CPU" in caplog.text
    with pytest.raises(SkelactError, match="device 'cuda' cannot be used here"):
        choose_device("cuda")


def test_processes_take_turns_with_the_gpus(gpus: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(count=2)
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for number in range(5):
        take_gpu(number)
    assert taken == [0, 1, 0, 1, 0]
    assert [num_gpus(device) for device in (None, "auto", "cuda", "cuda:1", "cpu", "mps")] == [2, 2, 2, 1, 0, 0]
    gpus(count=1)
    take_gpu(3)
    assert len(taken) == 5, "there is no other"


@pytest.mark.parametrize(
    ("name", "generation", "half", "training"),
    [
        ("NVIDIA H100 80GB HBM3", 9, True, torch.bfloat16),
        ("Tesla T4", 7, True, torch.float16),  # torch says that it has bfloat16, which it emulates
        ("Tesla V100-SXM2-16GB", 7, True, torch.float16),
        ("NVIDIA GeForce GTX 1660 Ti", 7, False, torch.bfloat16),
        ("NVIDIA T400 4GB", 7, False, torch.bfloat16),
    ],
)
def test_the_floats_that_a_gpu_computes_in(
    gpus: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    generation: int,
    half: bool,
    training: torch.dtype,
) -> None:
    gpus()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=generation))
    assert (has_half("cuda:0"), training_half("cuda:0")) == (half, training)
    assert (has_half("cpu"), training_half("cpu")) == (False, torch.bfloat16)
    assert (has_half("mps"), training_half("mps")) == (False, None)
