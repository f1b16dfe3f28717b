"""Large results of the CPU ops: their memory is used again, and never by two tensors at once."""

import resource
from pathlib import Path

import pytest
import torch
from op_cases import BOUNDS, bracket_queries

from db3kd import ops

pytestmark = pytest.mark.skipif(
    ops.build_config()["sanitizers"], reason="sanitizers see each result as an allocation"
)
SIZE = 150_528


def queries(rows: int, seed: int = 0) -> torch.Tensor:
    return ops.bracket_queries(**bracket_queries(rows, SIZE, seed), **BOUNDS)


def test_the_memory_of_a_result_that_is_gone_is_used_for_the_next():
    first = queries(20)
    place = first.data_ptr()
    del first
    assert queries(20).data_ptr() == place


def test_a_small_result_does_not_keep_the_memory_of_a_large_one():
    large = queries(200)
    place = large.data_ptr()
    del large
    assert queries(20).data_ptr() != place
    assert queries(200).data_ptr() == place


def test_results_that_live_at_the_same_time_share_no_memory():
    first = queries(20)
    kept = first.clone()
    second = queries(20, seed=1)
    assert second.data_ptr() != first.data_ptr()
    assert torch.equal(first, kept)


def test_a_view_keeps_the_memory_of_its_result():
    result = queries(20)
    view, kept = result[3], result[3].clone()
    del result
    queries(20, seed=1)
    assert torch.equal(view, kept)


def test_a_result_in_used_memory_has_the_same_bits():
    assert torch.equal(queries(20), queries(20))


def resident() -> int:
    """Bytes of memory that this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_memory_is_kept_up_to_a_limit_and_not_at_all_with_zero():
    result = queries(200)
    size, bits, most = result.nbytes, result[0].clone(), resident()
    del result
    assert most - resident() < size / 2
    before = ops.keep_result_memory(0)
    try:
        assert most - resident() > size / 2
        assert torch.equal(queries(200)[0], bits)
        assert most - resident() > size / 2
    finally:
        assert ops.keep_result_memory(before) == 0


def test_a_negative_limit_is_an_error():
    with pytest.raises(ValueError, match="size: expected 0 bytes or more, got -1"):
        ops.keep_result_memory(-1)
