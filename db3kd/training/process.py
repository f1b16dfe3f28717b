"""One training process: its device, its precision and its share of a batch."""

import atexit
import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from db3kd.errors import ArgumentError, InputError
from db3kd.training.settings import check_precision

_AUTOCAST_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class TrainingProcess:
    """One of the training processes; there are several under `accelerate launch`.

    Attributes:
        device: The device of the network and its batches.
        precision: "no", "fp16" or "bf16".
        index: The number of this process.
        count: The number of processes.

    Raises:
        ValueError: If the device does not train in this precision.
    """

    device: torch.device
    precision: str
    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        check_precision(self.precision, str(self.device))

    @classmethod
    def current(cls, device: str, precision: str) -> "TrainingProcess":
        """Returns this process, after joining the others if several were launched.

        Device and precision are those of `TrainSettings`. accelerate is imported only under its
        launcher or torchrun. Its state belongs to the whole process and is never reset, so that a
        caller may use accelerate too. A process group that this joins is left when Python exits.

        Raises:
            ValueError: See `check_can_train`.
        """
        check_can_train(device, precision)
        launched = "ACCELERATE_USE_CPU" in os.environ or "WORLD_SIZE" in os.environ
        if not launched:
            return cls(_single_device(device), precision)
        from accelerate import PartialState

        had_joined = dist.is_initialized()
        # Without a GPU, accelerate joins the processes only if it is told to use the CPU.
        state = PartialState(cpu=_single_device(device).type == "cpu")
        if dist.is_initialized() and not had_joined:
            atexit.register(_leave_process_group)
        own = state.device if device == "auto" or state.num_processes > 1 else torch.device(device)
        return cls(own, precision, state.process_index, state.num_processes)

    def own_part(self, batch: Tensor) -> Tensor:
        """Returns the rows [n, ...] of a batch that this process trains on."""
        return batch.tensor_split(self.count)[self.index]

    def distributed(self, network: nn.Module) -> nn.Module:
        """Wraps a network so that the processes average their gradients."""
        if self.count == 1:
            return network
        devices = None if self.device.type == "cpu" else [self.device]
        return DistributedDataParallel(network, device_ids=devices)

    def mean(self, value: Tensor) -> Tensor:
        """Returns the mean of the processes' values, a tensor on their devices."""
        if self.count > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value / self.count

    def agree(self, flag: bool) -> bool:
        """Returns the flag of the first process, in all processes."""
        if self.count == 1:
            return flag
        shared = torch.tensor(int(flag), device=self.device)
        dist.broadcast(shared, 0)
        return bool(shared.item())

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, in all processes."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def share_buffers(self, network: nn.Module) -> None:
        """Gives the network the buffers of the first process, for example batch statistics.

        Gradients are averaged, but each process has the statistics of its own parts of the batches.
        """
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def autocast(self) -> torch.autocast:
        """Returns the context of a forward pass in this precision."""
        dtype = _AUTOCAST_DTYPES.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Returns the gradient scaler, which does nothing unless the precision is fp16."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")


def check_can_train(device: str, precision: str = "no") -> None:
    """Checks that torch can train here with the `device` and `precision` of `TrainSettings`.

    Functions that query a teacher and then train call it before the first query.

    Raises:
        ValueError: If a CUDA device is requested or needed that is not available, or if torch
            computes no gradients here.
    """
    if not torch.is_grad_enabled():
        raise InputError(
            "training needs gradients, but this call is under torch.no_grad() or "
            "torch.inference_mode()"
        )
    if device == "auto":
        check_precision(precision, str(_single_device(device)))
    if not device.startswith("cuda"):
        return
    if not torch.cuda.is_available():
        raise ArgumentError(
            "device", f'{device!r} needs CUDA, which torch cannot use here; use "cpu" or "auto"'
        )
    count = torch.cuda.device_count()
    if int(device.partition(":")[2] or 0) >= count:
        raise ArgumentError(
            "device", f'expected "cuda:<n>" with n below {count}, the GPUs here, got {device!r}'
        )


def _leave_process_group() -> None:
    # The group's threads release tensors, for which they need Python's lock. A thread that asks for
    # it while Python ends is ended itself, inside C++ code that then aborts the process.
    if dist.is_initialized():
        dist.destroy_process_group()


def _single_device(device: str) -> torch.device:
    if device != "auto":
        return torch.device(device)
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
