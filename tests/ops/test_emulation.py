"""The emulated GPU of `make emulate` finds planted faults."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import emulated
import op_cases as cases
import pytest
import torch
from emulation.build import FAULTS, rewritten
from hypothesis import given
from hypothesis import strategies as st

from db3kd import ops

needs_emulation = pytest.mark.skipif(emulated.ops is None, reason="runs in make emulate")

FOUND = {
    "a missing barrier": "race: ",
    "a store one too far": "race: |out of bounds: ",
    "a wrong lane": "wrong",
    "shared memory that nobody wrote": "uninitialised: ",
    "an index of 32 bits": "out of bounds: ",
}


def test_a_launch_becomes_a_call():
    source = """
  // one <<< more
  scale_kernel<T, (1 + 1)>
      <<<grid_x(count), kThreads, 0, stream>>>(values, f(count));
  return cudaGetLastError();"""
    assert " ".join(rewritten(source).split()) == (
        "emulation::Launch{grid_x(count), kThreads, 0, stream} << "
        "[&] { scale_kernel<T, (1 + 1)>(values, f(count)); }; return cudaGetLastError();"
    )


def test_a_shared_variable_belongs_to_the_emulated_block():
    assert rewritten("__shared__ uint4 blocks[kWarps][32];") == (
        "auto& blocks = emulation::shared<uint4[kWarps][32]>([] {});"
    )
    assert rewritten("extern __shared__ float4 memory[];") == (
        "auto* memory = static_cast<float4*>(emulation::dynamic_shared_memory());"
    )


@pytest.fixture(scope="module")
def outcomes() -> dict:
    """The output of planted_faults.py, which runs in its own process: its kernels share names."""
    library = Path(emulated.LIBRARY).with_name("planted.so")
    done = subprocess.run(
        [sys.executable, str(Path(emulated.__file__).with_name("planted_faults.py"))],
        env={
            **os.environ,
            "DB3KD_EMULATION": str(library),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@needs_emulation
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_whatever_the_order_of_threads(outcomes, fault):
    seeds = dict(zip(FAULTS, outcomes["faults"], strict=True))[fault]
    assert seeds["without"] == ["right"] * 5
    assert all(re.match(FOUND[fault], found) for found in seeds["with"])


@needs_emulation
def test_kernels_loop_over_rows_beyond_the_grid(outcomes):
    assert {name for name, _ in outcomes["small grids"]} == set(emulated.NAMES)
    assert [(name, found) for name, found in outcomes["small grids"] if found != "right"] == []


BAD = {
    "ray_lengths": (cases.ray_lengths(5, 64), "sample_of"),
    "bracket_queries": (cases.bracket_queries(5, 64) | cases.BOUNDS, "active"),
    "bracket_step": (
        cases.bracket_step(6) | {"targeted": True, "absolute": 0.0, "relative": 0.0} | cases.BOUNDS,
        "pair_of",
    ),
    "soft_labels": (cases.soft_labels(4, 5) | {"normalisation": "margin"}, "predicted"),
}


@needs_emulation
@pytest.mark.parametrize("bad", [-1, 2**40])
@pytest.mark.parametrize("name", BAD)
def test_an_index_out_of_range_trips_an_assertion(name, bad):
    arguments, index = BAD[name]
    copies = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    copies[index][2] = bad
    with pytest.raises(RuntimeError, match="emulation: device assertion: "):
        getattr(emulated.ops, name)(**copies)
    # The next launch works.
    getattr(emulated.ops, name)(**arguments)


PIXELS = cases.directions("rademacher", "all pixels", 16)
PROBES = {
    "probe_queries": lambda: cases.probe_queries(3, 16) | PIXELS | cases.BOUNDS | {"count": 5},
    "probe_gradient": lambda: cases.probe_gradient(3, 5, 16) | PIXELS,
}


@needs_emulation
@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize(
    ("column", "limit"), [(0, 2**32), (1, ops.COUNTER_LIMIT), (2, ops.COUNTER_LIMIT)]
)
def test_a_counter_whose_directions_would_repeat_trips_an_assertion(name, noise, column, limit):
    arguments = PROBES[name]() | {"noise": noise}
    for bad in (-1, limit):
        arguments["counters"][2, column] = bad
        with pytest.raises(RuntimeError, match="emulation: device assertion: "):
            getattr(emulated.ops, name)(**arguments)
    arguments["counters"][2, column] = limit - 1
    getattr(emulated.ops, name)(**arguments)


@needs_emulation
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("kernel", "found"),
    [
        ("race_between_blocks", "race: a write .* another block"),
        ("race_of_bytes", "race: a write .* the same block"),
        ("race_behind_a_barrier_of_the_warp", "race: |uninitialised: "),
        ("barrier_that_some_never_reach", "some threads of a block wait .* others never reach"),
        ("barrier_in_another_shuffle", "threads of a warp wait for different operations"),
        ("shuffle_from_outside", "a shuffle reads from lane 16, which takes no part in it"),
        ("misaligned", "misaligned: "),
        ("overflow", "overflow: a signed mul"),
        ("beyond_the_end", "out of bounds: 4 bytes at 256 of an allocation of 256"),
        ("beyond_shared_memory", "out of bounds: 4 bytes beyond all shared variables"),
        ("too_many_threads", "a launch asks for more"),
        ("too_much_shared_memory", "a launch asks for more"),
        ("right", "$"),
    ],
)
def test_a_faulty_kernel_is_reported(kernel, found, seed):
    emulated.seed(seed)
    result = emulated.run_faulty(kernel, torch.zeros(64))
    assert re.match(found, result), result


@needs_emulation
def test_host_memory_is_out_of_bounds():
    numpy = pytest.importorskip("numpy")
    values = torch.from_numpy(numpy.zeros(64, numpy.float32))
    assert "in no allocation of the device" in emulated.run_faulty("right", values)


LARGEST = 2**63 - 1
near_powers = st.builds(
    lambda power, offset: min(max(2**power + offset, 1), LARGEST),
    st.integers(0, 63),
    st.integers(-2, 2),
)


@needs_emulation
@given(st.one_of(near_powers, st.integers(1, LARGEST), st.integers(1, 1000)), st.data())
def test_a_kernel_divides_as_python_does(divisor, data):
    whole = divisor * (LARGEST // divisor)
    edges = [0, divisor - 1, divisor, whole - 1, whole, LARGEST]
    drawn = st.one_of(near_powers, st.integers(0, LARGEST))
    numbers = edges + data.draw(st.lists(drawn, max_size=200))
    quotients, remainders = emulated.divide(torch.tensor(numbers), divisor)
    assert quotients.tolist() == [number // divisor for number in numbers]
    assert remainders.tolist() == [number % divisor for number in numbers]
