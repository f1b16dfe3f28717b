"""Measures everything that is measured on a GPU and writes one JSON, for `make gpu`.

    python -m benchmarks.gpu --save
    python -m benchmarks.gpu --save --only ops labelling_lenet5
    python -m benchmarks.gpu --device cpu --small

The first command takes some minutes. The last runs the same code on tiny inputs without a GPU, and
its figures mean nothing. It needs torch, NumPy and safetensors, but no data set and no network.

The JSON is written after each part. If you run the command again with the same commit and device,
it measures only parts that are missing or failed; `--again` measures all parts.
"""

import argparse
import json
import re
import subprocess
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.device_timing import Stopwatch, time_copy
from benchmarks.common.record import RESULTS, measured, write
from benchmarks.gpu.labelling import (
    FULL,
    SMALL,
    Prepared,
    Setting,
    measure_paper_procedure,
    measure_run,
)
from benchmarks.gpu.ops import measure_ops
from db3kd import ops

Result = dict[str, Any]


def main() -> None:
    """Measures the parts that the command line asks for and writes them."""
    options = _options()
    device = torch.device(options.device)
    torch.manual_seed(0)
    name = options.save or f"gpu-{_slug(device_of(device)['name'])}"
    file = None if options.save is None else options.folder / f"{name}.json"
    kept = {} if file is None or options.again else kept_parts(file, device, options.small)

    def write_result(result: Result) -> None:
        if file is not None:
            write(file, {"measured": measured(), **result})

    result = measure(
        device,
        small=options.small,
        compiled=options.compile,
        only=options.only,
        kept=kept,
        write_result=write_result,
    )
    if file is not None:
        print(f"written to {file}")
    failed = [part for part in result if has_failed(result[part])]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; see the result")


def measure(
    device: torch.device,
    *,
    small: bool,
    compiled: bool,
    only: Sequence[str] | None = None,
    kept: Result | None = None,
    write_result: Callable[[Result], None] = lambda result: None,
) -> Result:
    """Measures all figures. A failed part holds its error and does not stop the others.

    Args:
        device: What is measured.
        small: Whether to use tiny inputs.
        compiled: Whether to compile references too.
        only: The parts to measure; None for all.
        kept: Parts of an earlier run, which are not measured again.
        write_result: Called with all results so far, after each part and each op.
    """
    watch = Stopwatch(device, *((3, 1) if small else (30, 5)))
    copied = 2**20 if small else 2**32
    bandwidth = 2 * copied / time_copy(watch, device, copied).median
    print(f"{device_of(device)['name']}: copies move {bandwidth / 1e9:,.0f} GB/s", flush=True)
    result = {
        "device": device_of(device),
        "build": ops.build_config(),
        "small": small,
        "copy_bytes_per_second": bandwidth,
        **(kept or {}),
    }
    parts = {
        "ops": lambda: _measure_ops(device, watch, bandwidth, small, compiled, result, write_result)
    }
    parts |= _labelling_parts(device, small)
    for name in only or ():
        if name not in parts:
            raise SystemExit(f"--only: expected some of {', '.join(parts)}, got {name}")
    write_result(result)
    for name, part in parts.items():
        if (only is None or name in only) and name not in (kept or {}):
            result[name] = _attempt(part, device)
            write_result(result)
    return result


def _measure_ops(
    device: torch.device,
    watch: Stopwatch,
    bandwidth: float,
    small: bool,
    compiled: bool,
    result: Result,
    write_result: Callable[[Result], None],
) -> list[Result]:
    rows: list[Result] = []
    for row in measure_ops(device, watch, bandwidth, small=small, compiled=compiled):
        rows.append(row)
        write_result({**result, "ops": rows})
    return rows


def _labelling_parts(device: torch.device, small: bool) -> Iterator[tuple[str, Callable]]:
    """The parts that need a trained teacher, which is made when the first one is measured."""
    for number, setting in enumerate(SMALL if small else FULL):
        prepared = _prepared_once(setting, device)
        yield f"labelling_{setting.model}", lambda prepared=prepared: measure_run(prepared())
        if number == 0:
            few = (1, 30) if small else (5, 1_000)
            yield (
                "paper_procedure",
                lambda prepared=prepared, few=few: measure_paper_procedure(prepared(), *few),
            )


def _prepared_once(setting: Setting, device: torch.device) -> Callable[[], Prepared]:
    return cache(lambda: Prepared.of(setting, device))


def kept_parts(file: Path, device: torch.device, small: bool) -> Result:
    """The parts of an earlier result of the same commit, device and versions."""
    try:
        earlier = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    if (
        earlier["measured"]["commit"] != measured()["commit"]
        or earlier["device"] != device_of(device)
        or earlier["small"] != small
        or earlier["measured"]["versions"] != measured()["versions"]
    ):
        return {}
    about = {"measured", "device", "build", "small", "copy_bytes_per_second"}
    return {
        name: part for name, part in earlier.items() if name not in about and not has_failed(part)
    }


def has_failed(part: Any) -> bool:
    """Whether a part or one of its ops failed; a failed reference does not count."""
    rows = part if isinstance(part, list) else [part]
    return any(isinstance(row, dict) and "error" in row for row in rows)


def device_of(device: torch.device) -> dict[str, Any]:
    """The device, its driver and its libraries."""
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


def _attempt(part: Callable[[], Any], device: torch.device) -> Any:
    try:
        return part()
    except Exception as error:  # one part must not waste an hour of a GPU
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        _empty_cache(device)


def _empty_cache(device: torch.device) -> None:
    """Frees cached memory, unless an error has broken the device."""
    if device.type == "cuda":
        try:
            torch.cuda.empty_cache()
        except RuntimeError:
            traceback.print_exc()


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
    options.add_argument("--small", action="store_true", help="tiny inputs, to test that it runs")
    options.add_argument(
        "--no-compile", dest="compile", action="store_false", help="skip torch.compile"
    )
    options.add_argument(
        "--save", nargs="?", const="", metavar="NAME", help="write the result to results/NAME.json"
    )
    options.add_argument(
        "--folder", type=Path, default=RESULTS, help="folder of results (default: %(default)s)"
    )
    options.add_argument("--only", nargs="+", metavar="PART", help="measure only these parts")
    options.add_argument(
        "--again", action="store_true", help="measure parts again that have a result"
    )
    return options.parse_args()
