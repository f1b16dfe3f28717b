"""Arbitrary arguments: every op returns what its schema says, or raises an error of its own.

An argument that escapes the checks crashes the process or triggers a sanitizer (`make sanitize`).
"""

import math
import os

import emulated
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from op_cases import (
    BOUNDS,
    bracket_queries,
    bracket_step,
    directions,
    probe_gradient,
    probe_queries,
    ray_lengths,
    soft_labels,
)

from db3kd import ops

EXAMPLES = int(os.environ.get("DB3KD_FUZZ_EXAMPLES", "60"))
# On the emulated GPU a row takes as long as a thousand rows on a CPU.
MANY = 2**20 if emulated.ops is None else 2**9
QUERIES = {**BOUNDS, "dtype": torch.float32}
BASIS = directions("gaussian", "low frequencies", 64)
NO_BASIS = {"row_basis": None, "column_basis": None, "channels": 1, "noise": "rademacher"}
VALID = {
    "ray_lengths": lambda: ray_lengths(5, 64),
    "bracket_queries": lambda: {**bracket_queries(5, 64), **QUERIES},
    "bracket_step": lambda: {
        **bracket_step(6),
        **BOUNDS,
        "targeted": True,
        "absolute": 1e-3,
        "relative": 0.0,
    },
    "probe_queries": lambda: {**probe_queries(3, 64), **BASIS, **QUERIES, "count": 4},
    "probe_queries without bases": lambda: {
        **probe_queries(3, 64),
        **NO_BASIS,
        **QUERIES,
        "count": 4,
    },
    "probe_gradient": lambda: {**probe_gradient(3, 4, 64), **BASIS},
    "probe_gradient without bases": lambda: {**probe_gradient(3, 4, 64), **NO_BASIS},
    "soft_labels": lambda: {
        **soft_labels(4, 5),
        "normalisation": "margin",
        "scale": 2.0,
        "temperature": 1.0,
    },
}
"""Valid arguments of each op; a fuzzed call changes some of them."""

# Nothing between 100 and 2^35: such a size can be valid, and then takes time and memory.
INTEGERS = st.sampled_from(
    [-(2**63), -(2**32), -1, 0, 1, 2, 3, 64, 2**35, 2**61, 2**62 + 1, 2**63 - 1]
)
FLOATS = st.sampled_from(
    [-1.0, 0.0, 1e-38, 0.5, 1.0, 3e38, 1e300, torch.inf, -torch.inf, torch.nan]
)
DTYPES = st.sampled_from(
    [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.uint8,
        torch.bool,
        torch.complex64,
    ]
)
SIZES = st.sampled_from([0, 1, 2, 3, 5, 64])


def _filled(shape: list[int], dtype: torch.dtype, value: float) -> torch.Tensor:
    """Ones, every other one replaced by the value of this dtype nearest to `value`."""
    tensor = torch.ones(shape, dtype=dtype)
    if tensor.numel():
        flat = tensor.view(-1)
        if dtype.is_floating_point or dtype.is_complex:
            flat[::2] = torch.tensor(float(value), dtype=torch.float64).to(dtype)
        elif dtype != torch.bool:
            limits = torch.iinfo(dtype)
            flat[::2] = max(min(value, limits.max), limits.min)
    return tensor


@st.composite
def tensors(draw: st.DrawFn, like: torch.Tensor) -> torch.Tensor:
    """A tensor of any dtype, shape, strides and values, usually close to a valid one."""
    dtype = like.dtype if draw(st.integers(0, 3)) else draw(DTYPES)
    kind = draw(st.sampled_from(["as it is", "sizes", "dimensions", "huge", "empty"]))
    if kind == "huge":
        # One value with strides of zero: no memory, but sizes whose product overflows.
        sizes = [draw(st.sampled_from([1, 3, MANY, 2**45])) for _ in like.shape]
        return torch.zeros(1, dtype=dtype).expand(sizes if math.prod(sizes) < 2**60 else sizes[:1])
    if kind == "sizes":
        shape = [draw(SIZES) for _ in like.shape]
    elif kind == "dimensions":
        shape = draw(st.lists(SIZES, max_size=4))
    elif kind == "empty":
        shape = [0, *(draw(st.sampled_from([0, 2**20, 2**31])) for _ in like.shape[1:])]
        shape = draw(st.permutations(shape))
    else:
        shape = list(like.shape)
    value = draw(FLOATS if dtype.is_floating_point or dtype.is_complex else INTEGERS)
    tensor = _filled(shape, dtype, value)
    if not tensor.ndim:
        return tensor
    layout = draw(st.sampled_from(["contiguous", "transposed", "every other", "cut"]))
    if layout == "cut":
        storage = tensor.untyped_storage()
        storage.resize_(draw(st.integers(0, storage.nbytes())))
        return tensor
    if layout == "transposed":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "every other":
        return tensor.repeat_interleave(2, dim=-1)[..., ::2]
    return tensor


@st.composite
def calls(draw: st.DrawFn, case: str) -> dict[str, object]:
    arguments = VALID[case]()
    changed = draw(st.sets(st.sampled_from(sorted(arguments)), min_size=1, max_size=3))
    for name in sorted(changed):
        value = arguments[name]
        if isinstance(value, torch.Tensor):
            arguments[name] = draw(tensors(value))
        elif value is None:
            arguments[name] = draw(tensors(torch.eye(3)))
        elif isinstance(value, bool):
            arguments[name] = not value
        elif isinstance(value, int):
            arguments[name] = draw(INTEGERS)
        elif isinstance(value, float):
            arguments[name] = draw(FLOATS)
        elif isinstance(value, str):
            arguments[name] = draw(
                st.sampled_from(["", "inverse", "margin", "gaussian", "\0", "é"])
            )
        else:
            arguments[name] = draw(DTYPES)
    if not draw(st.integers(0, 3)):
        # Two arguments in the same memory.
        names = sorted(n for n, value in arguments.items() if isinstance(value, torch.Tensor))
        one, other = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        arguments[one] = arguments[other]
    return arguments


FUZZED = ops if emulated.ops is None else emulated.ops
"""The ops to fuzz: those of the CPU, or the CUDA kernels on the emulated GPU."""


@pytest.mark.parametrize("case", VALID)
def test_the_arguments_are_valid_before_they_are_fuzzed(case):
    getattr(FUZZED, case.split()[0])(**VALID[case]())


@pytest.mark.parametrize("other", ["low", "high", "radius", "criterion_class"])
def test_updated_state_that_shares_memory_with_another_argument_is_refused(other):
    memory = torch.ones(8)
    criterion_class = memory.view(torch.int64)[:2]  # the same bytes as another type
    arguments = VALID["bracket_step"]() | {
        "pair_of": torch.zeros(6, dtype=torch.int64),
        "winner": torch.full((2,), -1),
        "criterion_class": torch.zeros(2, dtype=torch.int64),
        "sample_of": torch.zeros(2, dtype=torch.int64),
        **{name: torch.ones(2) for name in ("low", "high", "radius")},
    }
    state = "high" if other == "low" else "low"
    arguments |= {
        state: memory[1:3],
        other: criterion_class if other == "criterion_class" else memory[2:4],
    }
    with pytest.raises(ValueError, match=rf"{state}.*{other}|{other}.*{state}"):
        ops.bracket_step(**arguments)


@pytest.mark.parametrize("rows", [2, 3])
def test_a_storage_that_is_too_small_is_refused(rows):
    arguments = VALID["ray_lengths"]()
    samples = torch.ones(rows, 2 * 64)[:, 64:]  # its last element is the storage's
    samples.untyped_storage().resize_(4 * (rows * 128 - 1))
    with pytest.raises(ValueError, match=rf"samples: expected a storage .* \[{rows}, 64\]"):
        ops.ray_lengths(**arguments | {"samples": samples})


@pytest.mark.parametrize("case", VALID)
@given(data=st.data())
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_any_arguments_give_a_result_or_an_error(case, data):
    name = case.split()[0]
    arguments = data.draw(calls(case))
    try:
        result = getattr(FUZZED, name)(**arguments)
    except (ValueError, TypeError, IndexError) as error:
        assert "expected" in str(error)
        return
    except (RuntimeError, MemoryError) as error:
        # No op can know this in advance: there is not enough memory, or none behind a tensor.
        text = str(error)
        if emulated.ops is not None and "emulation: device assertion" in text:
            return  # an index out of range, which only the kernel sees
        assert any(word in text for word in ("memory", "overflow", "bad_alloc", "allocate")), text
        return
    for tensor in result if isinstance(result, tuple) else (result,):
        assert tensor.is_contiguous()
        assert tensor.device.type == "cpu"
        _ = tensor.sum()  # every value that is returned can be read
