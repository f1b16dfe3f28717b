"""Measures everything that is measured on a GPU and writes one JSON, for `make gpu`.

    python -m benchmarks.gpu --save
    python -m benchmarks.gpu --save --only bracket_queries labelling_lenet5
    python -m benchmarks.gpu --device cpu --small

The first command takes some minutes. The last runs the same code on tiny inputs without a GPU, and
its figures mean nothing. It needs torch, NumPy and safetensors, but no data set and no network.

The JSON is written after each part and each op, and a table of expected and measured figures beside
it. If you run the command again with the same commit and device, it measures parts that are missing
and then those that failed; `--again` measures all parts. After an error that only a new process
can leave behind, the command starts itself again with the parts that it has not tried.
"""

import argparse
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.device_timing import Stopwatch, time_copy
from benchmarks.common.record import RESULTS, measured, write
from benchmarks.gpu.device import device_of, free_cache, is_broken
from benchmarks.gpu.expected import table
from benchmarks.gpu.labelling import (
    FULL,
    SMALL,
    Prepared,
    Setting,
    measure_paper_procedure,
    measure_run,
)
from benchmarks.gpu.ops import compiled_cases, measure_cases, measure_compiled, op_cases
from db3kd import ops

Result = dict[str, Any]
Part = Callable[[], Any]
"""Measures a part: figures, or an iterator over the rows of its cases."""

_UNFINISHED = {"error": "it did not end"}


def main() -> None:
    """Measures the parts that the command line asks for and writes them."""
    options = _options()
    begin = time.monotonic()
    device = torch.device(options.device)
    torch.manual_seed(0)
    name = options.save or f"gpu-{_slug(device_of(device)['name'])}"
    file = None if options.save is None else options.folder / f"{name}.json"
    earlier = {} if file is None else earlier_parts(file, device, options.small)
    if options.again:
        earlier = {part: earlier[part] for part in options.tried if part in earlier}

    def write_result(result: Result) -> None:
        if file is not None:
            whole = {"measured": measured(), **result}
            write(file, whole)
            file.with_suffix(".md").write_text(table(whole, list(op_cases(device, options.small))))

    run = Measurement(device, options.small, earlier, write_result)
    parts = run.parts(compiled=options.compile)
    wanted = options.only or list(parts)
    for part in wanted:
        if part not in parts:
            raise SystemExit(f"--only: expected some of {', '.join(parts)}, got {part}")
    tried = list(options.tried)
    for part in run.order(wanted, tried):
        if options.seconds is not None and time.monotonic() - begin > options.seconds:
            break
        run.measure(part, parts[part])
        tried.append(part)
        if is_broken(device):
            left = None if options.seconds is None else options.seconds - time.monotonic() + begin
            _start_again(tried, left)
    if file is not None:
        print(f"written to {file}")
    _exit(run.result, wanted)


class Measurement:
    """The results so far, and what measures more of them.

    Args:
        device: What is measured.
        small: Whether to use tiny inputs.
        earlier: Parts of an earlier run.
        write_result: Called with all results so far, before and after each part and after each op.
    """

    def __init__(
        self,
        device: torch.device,
        small: bool,
        earlier: Mapping[str, Any] | None = None,
        write_result: Callable[[Result], None] = lambda result: None,
    ) -> None:
        self._device, self._small, self._write = device, small, write_result
        self._watch = Stopwatch(device, *((3, 1) if small else (30, 5)))
        copied = 2**20 if small else 2**32
        self._bandwidth = 2 * copied / time_copy(self._watch, device, copied).median
        rate = f"{self._bandwidth / 1e9:,.0f} GB/s"
        print(f"{device_of(device)['name']}: copies move {rate}", flush=True)
        self.result: Result = {
            "device": device_of(device),
            "build": ops.build_config(),
            "small": small,
            "copy_bytes_per_second": self._bandwidth,
            **(earlier or {}),
        }
        write_result(self.result)

    def parts(self, compiled: bool) -> dict[str, Part]:
        """All parts by name, the most important first.

        Args:
            compiled: Whether to compile references too, which takes minutes.
        """
        device, watch = self._device, self._watch
        parts: dict[str, Part] = {
            op: partial(measure_cases, device, watch, self._bandwidth, cases)
            for op, cases in op_cases(device, self._small).items()
        }
        parts |= _labelling_parts(device, self._small)
        if compiled:
            cases = compiled_cases(device, self._small)
            parts["compiled_references"] = partial(measure_compiled, device, watch, cases)
        return parts

    def order(self, wanted: Iterable[str], tried: Iterable[str] = ()) -> list[str]:
        """The parts to measure: those that are missing, and then those that failed before."""
        left = [part for part in wanted if part not in tried]
        missing = [part for part in left if part not in self.result]
        failed = [part for part in left if has_failed(self.result.get(part))]
        return missing + failed

    def measure(self, name: str, part: Part) -> None:
        """Measures a part. If it fails, its result holds the error."""
        self._keep(name, _UNFINISHED)
        try:
            found = part()
            if isinstance(found, Iterator):
                rows: list[Result] = []
                for row in found:
                    rows.append(row)
                    self._keep(name, [*rows, _UNFINISHED])
                found = rows
        except Exception as error:  # one part must not waste an hour of a GPU
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"}
        free_cache(self._device)
        self._keep(name, found)

    def _keep(self, name: str, found: Any) -> None:
        self.result[name] = found
        self._write(self.result)


def _labelling_parts(device: torch.device, small: bool) -> Iterator[tuple[str, Part]]:
    """The parts that need a trained teacher, which is made when the first one is measured."""
    for number, setting in enumerate(SMALL if small else FULL):
        prepared = _prepared_once(setting, device)
        yield f"labelling_{setting.model}", partial(_measure_prepared, measure_run, prepared)
        if number == 0:
            few = (1, 30) if small else (5, 1_000)
            part = partial(_measure_prepared, measure_paper_procedure, prepared, *few)
            yield "paper_procedure", part


def _measure_prepared(
    measure: Callable[..., Result], prepared: Callable[[], Prepared], *arguments: Any
) -> Result:
    return measure(prepared(), *arguments)


def _prepared_once(setting: Setting, device: torch.device) -> Callable[[], Prepared]:
    return cache(lambda: Prepared.of(setting, device))


def earlier_parts(file: Path, device: torch.device, small: bool) -> Result:
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
    return {name: part for name, part in earlier.items() if name not in about}


def has_failed(part: Any) -> bool:
    """Whether a part or one of its ops failed; a failed reference does not count."""
    rows = part if isinstance(part, list) else [part]
    return any(isinstance(row, dict) and "error" in row for row in rows)


def _start_again(tried: list[str], seconds: float | None) -> None:
    """Replaces this process by one that measures the parts that were not tried."""
    print("the device needs a new process after this error", flush=True)
    limit = [] if seconds is None else ["--seconds", f"{max(seconds, 0):.0f}"]
    arguments = [sys.executable, *sys.orig_argv[1:], *limit, "--tried", *tried]
    sys.stderr.flush()
    os.execv(sys.executable, arguments)


def _exit(result: Result, wanted: Iterable[str]) -> None:
    """Exits with a message if a part failed or is missing."""
    wanted = list(wanted)
    problems = {
        "failed": [part for part in wanted if has_failed(result.get(part))],
        "not measured within --seconds": [part for part in wanted if part not in result],
    }
    told = [f"{what}: {', '.join(parts)}" for what, parts in problems.items() if parts]
    if told:
        raise SystemExit(f"{'; '.join(told)}; see the result, and run the command again")


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
    options.add_argument("--seconds", type=float, help="start no part after this time")
    options.add_argument(
        "--again", action="store_true", help="measure parts again that have a result"
    )
    options.add_argument("--tried", nargs="+", default=[], metavar="PART", help=argparse.SUPPRESS)
    return options.parse_args()
