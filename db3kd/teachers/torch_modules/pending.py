"""Decisions of a module, which a GPU may still be computing when the caller receives them."""

import torch
from torch import Tensor

from db3kd.teachers.base import TeacherError


class ModuleDecisions:
    """The `PendingDecisions` of a `ModuleTeacher`.

    `result()` synchronises once and copies to the CPU either the decisions (CPU callers) or a
    single failure flag (GPU callers). The copy is queued here, behind the forward pass.

    Args:
        decisions: [N] int64 on the teacher's device, UNANSWERED for images without a decision.
        caller_device: The device of the images.
        failure_message: The message of the TeacherError if any image has no decision.
    """

    def __init__(
        self, decisions: Tensor, caller_device: torch.device, failure_message: str
    ) -> None:
        self._on_teacher_device = decisions
        self._caller_device = caller_device
        self._failure_message = failure_message
        to_cpu = decisions if caller_device.type == "cpu" else (decisions < 0).any()
        self._on_cpu = to_cpu
        self._copied: torch.cuda.Event | None = None
        if decisions.is_cuda:
            pinned = torch.empty_like(to_cpu, device="cpu", pin_memory=True)
            self._on_cpu = pinned.copy_(to_cpu, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    @property
    def decisions(self) -> Tensor:
        """[N] int64 on the caller's device; waits only if that is the CPU."""
        if self._caller_device.type != "cpu":
            return self._on_teacher_device.to(self._caller_device)
        self._synchronize()
        return self._on_cpu

    def done(self) -> bool:
        """Returns whether the copy to the CPU is complete."""
        return self._copied is None or self._copied.query()

    def result(self) -> Tensor:
        """Waits for the decisions.

        Raises:
            TeacherError: If any image has no decision. `error.answered` holds the decisions before
                the first such image.
        """
        self._synchronize()
        failed = self._on_cpu if self._on_cpu.dtype == torch.bool else (self._on_cpu < 0).any()
        decisions = self.decisions
        if bool(failed):
            first = int((decisions < 0).nonzero()[0])
            raise TeacherError(self._failure_message, decisions[:first])
        return decisions

    def _synchronize(self) -> None:
        if self._copied is not None:
            self._copied.synchronize()
