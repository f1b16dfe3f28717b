"""Observes the steps of all trainings of this process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch.optim import Optimizer

from db3kd.training import loop


@contextmanager
def before_each_step(called: Callable[[Optimizer], None]) -> Iterator[None]:
    """Calls a function with the optimizer before each step of any training."""
    make_optimizer = loop.make_optimizer

    def observed(*arguments: Any) -> Optimizer:
        optimizer = make_optimizer(*arguments)
        optimizer.register_step_pre_hook(lambda *_: called(optimizer))
        return optimizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_optimizer", observed)
        yield


def weights_of(optimizer: Optimizer) -> int:
    """The number of weights of the network that an optimizer trains."""
    return sum(each.numel() for group in optimizer.param_groups for each in group["params"])


def steps_done(optimizer: Optimizer) -> int:
    """The number of steps that Adam has done, those before a checkpoint included."""
    return max((int(state["step"]) for state in optimizer.state.values()), default=0)
