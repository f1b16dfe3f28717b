"""The answers of a module, which on a GPU are under way when they are handed out."""

from typing import Any

import torch
from torch import Tensor

from db3kd.teachers.base import TeacherError


class ModuleDecisions:
    """A `db3kd.teachers.base.PendingDecisions`. Hearing of it is one wait, and one copy to the CPU:
    of the decisions where the images came from there, else of whether any of them is none.

    decisions: int64 [N], on the teacher's device, UNANSWERED where it has none. home: the device of
    the images. complaint: the error where any is none.
    """

    def __init__(self, decisions: Tensor, home: torch.device, complaint: str) -> None:
        self._made = decisions
        self._home = home
        self._complaint = complaint
        self._heard = decisions if home.type == "cpu" else (decisions < 0).any()
        self._arrived: Any = None
        if decisions.is_cuda:
            pinned = torch.empty_like(self._heard, device="cpu", pin_memory=True)
            self._heard = pinned.copy_(self._heard, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    @property
    def decisions(self) -> Tensor:
        if self._home.type != "cpu":
            return self._made.to(self._home)
        self._wait()
        return self._heard

    def done(self) -> bool:
        return self._arrived is None or self._arrived.query()

    def result(self) -> Tensor:
        self._wait()
        missing = self._heard if self._heard.dtype == torch.bool else (self._heard < 0).any()
        if bool(missing):
            decisions = self.decisions
            first = int((decisions < 0).nonzero()[0])
            raise TeacherError(self._complaint, decisions[:first])
        return self.decisions

    def _wait(self) -> None:
        if self._arrived is not None:
            self._arrived.synchronize()
