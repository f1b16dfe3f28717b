"""The CPU ops equal the eager references over the grid of the CUDA parity tests.

The back ends share their scalar math. So a machine without a GPU tests the arithmetic of the
kernels, but not their launches.
"""

import native_reference as reference
import op_cases as cases
import pytest
import torch

from db3kd import ops

sizes = pytest.mark.parametrize("size", cases.SIZES)
rows = pytest.mark.parametrize("rows", cases.ROWS)
layouts = pytest.mark.parametrize("layout", [dict, cases.strided], ids=["rows", "strided"])


@layouts
@rows
@sizes
def test_ray_lengths_match_the_reference(size, rows, layout):
    arguments = layout(cases.ray_lengths(rows, size))
    expected = reference.ray_lengths(**arguments)
    torch.testing.assert_close(ops.ray_lengths(**arguments), expected, rtol=3e-7, atol=0)


@layouts
@pytest.mark.parametrize("dtype", cases.DTYPES)
@rows
@sizes
def test_bracket_queries_match_the_reference(size, rows, dtype, layout):
    arguments = layout(cases.bracket_queries(rows, size)) | cases.BOUNDS | {"dtype": dtype}
    tolerance = cases.TOLERANCE[dtype]
    torch.testing.assert_close(
        ops.bracket_queries(**arguments),
        reference.bracket_queries(**arguments),
        rtol=tolerance,
        atol=tolerance,
    )


@pytest.mark.parametrize("size", [3, 130, 784, 9_001, 150_528])
def test_large_results_have_the_bits_of_small_ones(size):
    """Results of 32 MiB and more are written past the caches, in parts of a row."""
    rows = 2**23 // size + 7
    arguments = cases.bracket_queries(rows, size) | cases.BOUNDS
    arguments["samples"][0, 0] = torch.nan
    arguments["ends"][0] = arguments["samples"][0] + 0.0
    large = ops.bracket_queries(**arguments)
    assert large.nbytes >= 2**25 and not large.isfinite().all()
    part = max(1, 2**21 // size)
    for start in range(0, rows, part):
        chosen = slice(start, start + part)
        few = ops.bracket_queries(**(arguments | {"active": arguments["active"][chosen]}))
        assert torch.equal(few.view(torch.int32), large[chosen].view(torch.int32))


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 7, 500])
def test_bracket_steps_match_the_reference(rows, targeted):
    ours, theirs = cases.bracket_step(rows), cases.bracket_step(rows)
    rules = {"targeted": targeted, "absolute": 0.1, "relative": 0.2} | cases.BOUNDS
    step = ops.bracket_step(**ours, **rules)
    active, pairs, queries = reference.bracket_step(**theirs, **rules)
    assert torch.equal(step.active, active) and torch.equal(step.pairs, pairs)
    torch.testing.assert_close(step.queries, queries, rtol=3e-6, atol=3e-6)
    for name in cases.STATE:
        assert torch.equal(ours[name], theirs[name]), name


@layouts
@pytest.mark.parametrize(("noise", "frequencies"), cases.DRAWS)
@sizes
def test_probe_queries_match_the_reference(size, noise, frequencies, layout):
    drawn = cases.directions(noise, frequencies, size)
    if drawn is None:
        pytest.skip("an image of one pixel has no frequencies")
    arguments = layout(cases.probe_queries(2, size) | drawn) | cases.BOUNDS
    arguments |= {"count": 1 if size > 10_000 else 3, "dtype": torch.float32}
    bases = {"row_basis": None, "column_basis": None, "channels": 1}
    expected = reference.probe_queries(**(bases | arguments))
    torch.testing.assert_close(ops.probe_queries(**arguments), expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize(("noise", "frequencies"), cases.DRAWS)
@sizes
def test_probe_gradients_match_the_reference(size, noise, frequencies):
    drawn = cases.directions(noise, frequencies, size)
    if drawn is None:
        pytest.skip("an image of one pixel has no frequencies")
    arguments = cases.probe_gradient(2, 3 if size > 10_000 else 33, size) | drawn
    bases = {"row_basis": None, "column_basis": None, "channels": 1}
    expected = reference.probe_gradient(**(bases | arguments))
    torch.testing.assert_close(ops.probe_gradient(**arguments), expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("normalisation", ["inverse", "margin"])
@pytest.mark.parametrize("classes", [2, 10, 17, 32, 33, 100])
@rows
def test_soft_labels_match_the_reference(rows, classes, normalisation):
    arguments = cases.soft_labels(rows, classes)
    settings = {"normalisation": normalisation, "scale": 2.0, "temperature": 3.0}
    expected = reference.soft_labels(**arguments, **settings)
    torch.testing.assert_close(ops.soft_labels(**arguments, **settings), expected)
