"""The sanitizers of `make sanitize` watch the ops: a planted fault ends the process."""

import subprocess
import sys

import pytest

from db3kd import ops

pytestmark = pytest.mark.skipif(
    not ops.build_config()["sanitizers"], reason="db3kd is built without sanitizers"
)

# A tensor of four numbers `offset` bytes into a block of sixteen bytes of the C library.
PROGRAM = """
import ctypes, sys, numpy, torch
from db3kd import ops
offset = int(sys.argv[1])
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
block = libc.malloc(ctypes.c_size_t(16)) + offset
samples = torch.from_numpy(numpy.frombuffer((ctypes.c_char * 16).from_address(block), "<f4"))[None]
index = torch.zeros(1, dtype=torch.int64)
ops.ray_lengths(samples, torch.zeros(1, 4), index, index)
print("went through")
"""


def run(offset: int) -> subprocess.CompletedProcess:
    command = [sys.executable, "-P", "-W", "ignore", "-c", PROGRAM, str(offset)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_valid_tensor_is_accepted():
    assert run(0).stdout == "went through\n"


@pytest.mark.parametrize(
    ("offset", "report"),
    [(4, "AddressSanitizer: heap-buffer-overflow"), (-2, "load of misaligned address")],
)
def test_a_planted_fault_ends_the_process(offset, report):
    done = run(offset)
    assert done.returncode != 0
    assert "went through" not in done.stdout
    assert report in done.stderr
    assert "csrc/cpu/rows.cpp" in done.stderr
