"""The native ops: one typed function for each, with shapes, units and formulas.

Images are rows of a matrix [N, D]. Each row is computed on its own: it has the same bits whatever
rows accompany it and however many threads run. All tensors of a call must be on one device; the op
runs on that device and its current stream. State is float32, indices are int64. No op is
differentiable.

A tensor of the wrong dtype or on the wrong device raises TypeError. A wrong shape or an impossible
setting raises ValueError. An index out of range raises IndexError on a CPU; on CUDA it trips a
device assertion, as in PyTorch's own indexing, because a check would wait for the device. A result
that does not fit in memory raises torch.OutOfMemoryError. `torch.ops.db3kd` raises RuntimeError for
all of these.

`csrc/README.md` describes the native side. The ops on rays are written in `db3kd.ops.rays`.
"""

from db3kd.ops.extension import build_config, keep_result_memory
from db3kd.ops.labels import Normalisation, soft_labels
from db3kd.ops.probes import COUNTER_LIMIT, Noise, probe_gradient, probe_queries
from db3kd.ops.rays import NextRound, bracket_queries, bracket_step, ray_lengths

__all__ = [
    "COUNTER_LIMIT",
    "NextRound",
    "Noise",
    "Normalisation",
    "bracket_queries",
    "bracket_step",
    "build_config",
    "keep_result_memory",
    "probe_gradient",
    "probe_queries",
    "ray_lengths",
    "soft_labels",
]
