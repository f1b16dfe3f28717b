"""Runs kernels with planted faults on the emulated GPU, and prints what becomes of each, as JSON.

    DB3KD_EMULATION=build/emulation/planted.so python tests/planted_faults.py

It is a process of its own: two emulations would register the same ops.
"""

import json

import emulated
import op_cases as cases
import torch

from db3kd import ops


def beyond_32_bits() -> dict:
    """A ray from a sample that begins 2^31 components into a tensor, most of which is not there."""
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
"""For each fault of emulation/build.py, in its order, a call that meets it."""


def outcome(name: str, arguments: dict) -> str:
    """ "right", "wrong" or what the emulation says."""
    try:
        result = getattr(emulated.ops, name)(**arguments)
    except RuntimeError as error:
        return str(error).splitlines()[0].removeprefix("emulation: ")
    expected = getattr(ops, name)(**arguments)
    close = torch.allclose(result, expected, rtol=3e-6, atol=3e-6)
    return "right" if close else "wrong"


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
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
