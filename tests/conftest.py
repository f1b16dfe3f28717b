"""What all tests share."""

import pytest
import torch
from hypothesis import settings

from db3kd import ops

settings.register_profile("db3kd", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("db3kd")

HAS_CUDA = ops.build_config()["cuda"] and torch.cuda.is_available()
DEVICES = ["cpu", "cuda"] if HAS_CUDA else ["cpu"]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device that this machine and this build can test."""
    return torch.device(request.param)
