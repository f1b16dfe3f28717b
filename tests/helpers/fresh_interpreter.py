"""Code in a process of its own, which need not import torch again."""

import json
import os
import subprocess
import sys
from pathlib import Path

_SERVER = """
import contextlib, json, os, sys, traceback, types
import torch, db3kd.teachers
with contextlib.suppress(ImportError):
    import sklearn.ensemble, sklearn.svm

for line in sys.stdin:
    code, paths = json.loads(line)
    reader, writer = os.pipe()
    if (copy := os.fork()) == 0:
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        sys.path[:] = paths
        sys.modules["__main__"] = types.ModuleType("__main__")
        status = 0
        try:
            exec(compile(code, "<string>", "exec"), vars(sys.modules["__main__"]))
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        os._exit(status)
    os.close(writer)
    with open(reader) as printed:
        text = printed.read()
    status = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
    print(json.dumps([status, text]), flush=True)
"""


class FreshInterpreter:
    """An interpreter with a hash seed of its own, of which a copy runs each piece of code."""

    def __init__(self, hash_seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, *folders: Path) -> str:
        """Runs code that has to succeed, and returns what it prints.

        Args:
            code: The code, which runs as `__main__`.
            folders: Where else than here it may import from.
        """
        paths = [*map(str, folders), *sys.path]
        self._process.stdin.write(f"{json.dumps([code, paths])}\n")
        self._process.stdin.flush()
        status, printed = json.loads(self._process.stdout.readline())
        assert status == 0, printed
        return printed

    def close(self) -> None:
        """Ends the interpreter."""
        self._process.communicate()
