"""Runs kernels with planted faults, and in small grids, on the emulated GPU; prints outcomes.

    DB3KD_EMULATION=build/emulation/planted.so python tests/helpers/planted_faults.py

It needs its own process, because two emulations would register the same ops.
"""

import json

import emulated
import op_cases as cases
import torch
from emulation.build import SMALL_GRIDS

from db3kd import ops


def beyond_32_bits() -> dict:
    """A ray from a sample that starts 2^31 components into a tensor, most of it not allocated."""
    size, row = 1024, 2**21
    samples = torch.empty(row + 1, size)
    samples[row] = 1.0
    return {
        "samples": samples,
        "ends": torch.zeros(1, size),
        "sample_of": torch.tensor([row]),
        "end_of": torch.tensor([0]),
    }


DRAWN = cases.directions("rademacher", "all pixels", 784)
CASES = (
    ("probe_gradient", lambda: cases.probe_gradient(3, 300, 64) | DRAWN),
    ("bracket_queries", lambda: cases.bracket_queries(7, 1) | cases.BOUNDS),
    ("probe_gradient", lambda: cases.probe_gradient(3, 33, 784) | DRAWN),
    ("probe_queries", lambda: cases.probe_queries(3, 784) | DRAWN | cases.BOUNDS | {"count": 5}),
    ("ray_lengths", beyond_32_bits),
)
"""A call that triggers each fault of emulation/build.py, in its order."""


def large_calls() -> list[tuple[str, dict]]:
    """Each op with more blocks than a small grid has, with every kind of probe direction."""
    rules = {"targeted": True, "absolute": 0.1, "relative": 0.2, **cases.BOUNDS}
    calls = [
        ("ray_lengths", cases.ray_lengths(20, 784)),
        ("bracket_queries", cases.bracket_queries(90, 784) | cases.BOUNDS),
        ("bracket_queries", cases.bracket_queries(2, 9_001) | cases.BOUNDS),
        ("bracket_step", cases.bracket_step(1_500) | rules),
        ("bracket_step", cases.bracket_step(90, 9_001) | rules),
        *(
            ("soft_labels", cases.soft_labels(701, classes) | {"normalisation": "inverse"})
            for classes in (3, 10, 40)
        ),
        ("probe_queries", cases.probe_queries(1, 9_001) | DRAWN | cases.BOUNDS | {"count": 2}),
        # Three blocks cover all components: no grid limits those.
        ("probe_gradient", cases.probe_gradient(5, 3, 3_000) | DRAWN),
    ]
    for noise, frequencies in cases.DRAWS:
        for size in (81, 784):
            drawn = cases.directions(noise, frequencies, size)
            probes = cases.probe_queries(9, size) | drawn | cases.BOUNDS | {"count": 20}
            calls += [
                ("probe_queries", probes),
                ("probe_gradient", cases.probe_gradient(9, 20, size) | drawn),
            ]
    return calls


def outcome(name: str, arguments: dict) -> str:
    """ "right", "wrong" or the finding of the emulation."""
    given = dict(arguments)
    for state in cases.STATE if name == "bracket_step" else ():
        given[state] = given[state].clone()
    try:
        result = _tensors(getattr(emulated.ops, name)(**given))
    except RuntimeError as error:
        return str(error).splitlines()[0].removeprefix("emulation: ")
    expected = _tensors(getattr(ops, name)(**arguments))
    if name == "bracket_step":
        result += [given[state] for state in cases.STATE]
        expected += [arguments[state] for state in cases.STATE]
    right = all(
        one.shape == other.shape and torch.allclose(one, other, rtol=3e-6, atol=3e-6)
        for one, other in zip(result, expected, strict=True)
    )
    return "right" if right else "wrong"


def _tensors(result) -> list[torch.Tensor]:
    return list(result) if isinstance(result, tuple) else [result]


def main() -> None:
    outcomes = []
    for fault, (name, arguments) in enumerate(CASES, start=1):
        without, with_fault = [], []
        for seed in range(5):
            emulated.seed(seed)
            emulated.plant(0)
            without.append(outcome(name, arguments()))
            emulated.plant(fault)
            with_fault.append(outcome(name, arguments()))
        outcomes.append({"without": without, "with": with_fault})
    emulated.plant(SMALL_GRIDS)
    large = [(name, outcome(name, arguments)) for name, arguments in large_calls()]
    print(json.dumps({"faults": outcomes, "small grids": large}))


if __name__ == "__main__":
    main()
