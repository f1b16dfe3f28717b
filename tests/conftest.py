"""What all tests share."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("db3kd", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("db3kd")

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device that this machine and this build can test."""
    return torch.device(request.param)
