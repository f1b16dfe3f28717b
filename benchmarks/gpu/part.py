"""Runs one part of `make gpu` within a time limit, and records how it ended.

    python benchmarks/gpu/part.py test 120 --folder benchmarks/results -- make run-gpu-test

The output is shown and kept in FOLDER/gpu-test.log, and FOLDER/gpu-parts.json holds for each part
its last exit status, seconds, commit and last lines, so that a page of results can name what
failed. The exit status is the command's, or 124 if it ran out of time. Imports the standard
library only, because it also runs the build.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.common.commit import commit

TIMED_OUT = 124
_GRACE_SECONDS = 5
_LAST_LINES = 30


def run(command: list[str], seconds: float, log: Path) -> dict[str, Any]:
    """Runs a command with its children in a process group of their own.

    Args:
        command: The command.
        seconds: The time after which the group is terminated, and killed 5 seconds later.
        log: The file that receives the output, besides standard output.

    Returns:
        `exit`, `seconds` and `last_lines`.
    """
    start, last = time.monotonic(), deque[str](maxlen=_LAST_LINES)
    log.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    timed_out = threading.Event()

    def end() -> None:
        timed_out.set()
        _end_group(process)

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        with process.stdout, log.open("w") as file:
            for line in process.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                file.write(line)
                last.append(line.rstrip())
        status = process.wait()
    except BaseException:  # an interrupt reaches this process only
        _end_group(process)
        raise
    finally:
        timer.cancel()
    if timed_out.is_set():
        status = TIMED_OUT
        last.append(f"it took longer than {seconds:g} s and was ended")
    return {
        "exit": status,
        "seconds": round(time.monotonic() - start, 1),
        "last_lines": list(last),
    }


def record(file: Path, name: str, outcome: dict[str, Any]) -> None:
    """Adds the outcome of a part to the file of all parts, which is replaced as a whole."""
    try:
        parts = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        parts = {}
    parts[name] = {"commit": commit(), **outcome}
    new = file.with_name(f".{file.name}.part")
    new.write_text(json.dumps(parts, indent=1) + "\n")
    new.replace(file)


def _end_group(process: subprocess.Popen[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_GRACE_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def main() -> None:
    """Runs the part that the command line describes."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("name", help="the name of the part")
    options.add_argument("seconds", type=float, help="the time limit")
    options.add_argument("--folder", type=Path, required=True, help="the folder of results")
    options.add_argument("command", nargs="+", help="the command, after --")
    given = options.parse_args()
    outcome = run(given.command, given.seconds, given.folder / f"gpu-{given.name}.log")
    record(given.folder / "gpu-parts.json", given.name, outcome)
    if outcome["exit"] == TIMED_OUT:
        print(f"gpu-{given.name}: {outcome['last_lines'][-1]}", flush=True)
    sys.exit(outcome["exit"] if outcome["exit"] >= 0 else 128 - outcome["exit"])


if __name__ == "__main__":
    main()
