"""Everything that is measured on a GPU, as one JSON: what `make gpu` ends with.

    python -m benchmarks.gpu --save
    python -m benchmarks.gpu --device cpu --small

The first takes some minutes; the second runs the same code on tiny inputs, without a GPU, and its
figures mean nothing. It needs torch, NumPy and safetensors, no data set, and no network.
"""

import argparse
import re
import subprocess
import traceback
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.device_timing import Stopwatch, time_copy
from benchmarks.gpu_labelling import (
    FULL,
    SMALL,
    Prepared,
    measure_published,
    measure_run,
)
from benchmarks.gpu_ops import measure_ops
from benchmarks.record import keep
from db3kd import ops


def main() -> None:
    options = _options()
    device = torch.device(options.device)
    torch.manual_seed(0)
    result = measure(device, small=options.small, compiled=options.compile)
    if options.save == "":
        options.save = f"gpu-{_slug(result['device']['name'])}"
    keep(options, result)
    failed = [name for name, part in result.items() if isinstance(part, dict) and "error" in part]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; see the result")


def measure(device: torch.device, *, small: bool, compiled: bool) -> dict[str, Any]:
    """All figures. A part that fails is its error, and the others are measured all the same."""
    watch = Stopwatch(device, *((3, 1) if small else (30, 5)))
    copied = 2**20 if small else 2**32
    bandwidth = 2 * copied / time_copy(watch, device, copied).median
    print(f"{device_of(device)['name']}: copies move {bandwidth / 1e9:,.0f} GB/s", flush=True)
    result = {
        "device": device_of(device),
        "build": ops.build_config(),
        "small": small,
        "copy_bytes_per_second": bandwidth,
        "ops": _attempt(
            lambda: measure_ops(device, watch, bandwidth, small=small, compiled=compiled)
        ),
    }
    for number, setting in enumerate(SMALL if small else FULL):
        prepared = _attempt(lambda setting=setting: Prepared.of(setting, device))
        if not isinstance(prepared, Prepared):
            result[f"labelling_{setting.model}"] = prepared
            continue
        run = _attempt(lambda prepared=prepared: measure_run(prepared))
        result[f"labelling_{setting.model}"] = run
        if number == 0:
            few = (1, 30) if small else (5, 1_000)
            result["published"] = _attempt(
                lambda prepared=prepared, few=few: measure_published(prepared, *few)
            )
        del prepared
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return result


def device_of(device: torch.device) -> dict[str, Any]:
    """What the device is, and what drives it."""
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


def _attempt(part: Callable[[], Any]) -> Any:
    try:
        return part()
    except Exception as error:  # an hour of a GPU is not to be lost to one part
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.split("\n")[0].strip() or None


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--device", default="cuda")
    options.add_argument("--small", action="store_true", help="tiny inputs: does it run at all?")
    options.add_argument(
        "--no-compile", dest="compile", action="store_false", help="leave torch.compile out"
    )
    options.add_argument(
        "--save", nargs="?", const="", metavar="NAME", help="keep as results/NAME.json"
    )
    return options.parse_args()


if __name__ == "__main__":
    main()
