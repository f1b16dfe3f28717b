"""The device that is measured: its name, its free memory, and whether an error has broken it."""

import subprocess
import traceback
from typing import Any

import torch


def device_of(device: torch.device) -> dict[str, Any]:
    """Returns the name of a device, its driver and its libraries."""
    if device.type != "cuda":
        return {"name": device.type}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": torch.backends.cudnn.allow_tf32,
    }


def free_cache(device: torch.device) -> None:
    """Frees the memory that torch holds in reserve, unless an error has broken the device."""
    if device.type == "cuda":
        try:
            torch.cuda.empty_cache()
        except RuntimeError:
            traceback.print_exc()


def is_broken(device: torch.device) -> bool:
    """Returns whether an earlier error makes every further call fail in this process.

    After an illegal access or a device assertion, CUDA works again in a new process only.
    """
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.split("\n")[0].strip() or None
