"""Numbers for a device are those that torch would have put there, and nobody waits for them."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers.devices import NEEDS_CUDA
from helpers.host_traffic import Waiting, no_waiting
from m33d_hf.data.augmentation.sent_numbers import Sending, sent


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
def test_the_numbers_are_those_that_torch_makes(device: str) -> None:
    for numbers, dtype in (([1, 2, 3], None), ([0.1, 7.5], torch.float64), ([True, False], None), ([0.1], None)):
        wanted = torch.tensor(numbers, dtype=dtype, device=device)
        with Sending():
            made = torch.tensor(numbers, dtype=dtype, device=device)
        for found in (made, sent(numbers, torch.device(device), dtype)):
            assert torch.equal(found, wanted) and found.dtype == wanted.dtype and found.device == wanted.device
    with Sending():
        assert torch.tensor([1.0]).device.type == "cpu" and torch.ones(2, device=device).device.type == device


@pytest.mark.skipif(torch.cuda.is_available(), reason="where CUDA is, constants are made on the device, unseen")
def test_fake_devices_see_who_waits() -> None:
    with FakeTensorMode(), Waiting() as seen:
        sent([1.0, 2.0], torch.device("cuda"))
        with Sending():
            torch.tensor([1.0, 2.0], device="cuda")
        assert not seen.found
        torch.tensor([1.0, 2.0], device="cuda")
        assert seen.found


@NEEDS_CUDA
def test_a_gpu_sees_who_waits() -> None:
    torch.cuda.synchronize()
    with no_waiting():
        sent([1.0, 2.0], torch.device("cuda"))
        with Sending():
            torch.tensor([1.0, 2.0], device="cuda")
        with pytest.raises(RuntimeError, match="synchroniz"):
            torch.tensor([1.0, 2.0], device="cuda")
