"""How much memory a part of a search may take on a device."""

import torch


def memory_limit(device: torch.device | str, on_cpu: int, gpu_share: float) -> int:
    """Returns a limit in bytes for one part of a search.

    The limit depends on the kind of the device only, not on what else is in its memory, so the
    parts of a run have the same size whenever it is resumed on such a device.

    Args:
        device: Where the part is kept.
        on_cpu: The limit on a CPU, and the least on a GPU.
        gpu_share: The limit on a GPU, as a share of its memory.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return on_cpu
    return max(on_cpu, int(torch.cuda.get_device_properties(device).total_memory * gpu_share))
