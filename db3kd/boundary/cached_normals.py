"""The normals of a surrogate's boundary at the points of a search, computed once for each point."""

import torch
from torch import Tensor

from db3kd.boundary.pairs import Boundary, Pairs, zeros_per_pair
from db3kd.boundary.surrogate import Surrogate


class CachedNormals:
    """The surrogate's normals at the boundary points of pairs, computed once for each point.

    Attributes:
        moved: [P] bool, the pairs whose points moved since their normals were computed. The
            search sets it.
    """

    def __init__(self, surrogate: Surrogate, pairs: Pairs) -> None:
        self._surrogate = surrogate
        self._pairs = pairs
        self._normals = zeros_per_pair(pairs)
        self.moved = torch.ones_like(pairs.sample_of, dtype=torch.bool)

    def at(self, boundary: Boundary, chosen: Tensor) -> Tensor:
        """Returns the unit normals at the points of the chosen pairs, [n, D] float32."""
        unknown = chosen[self.moved[chosen]]
        if len(unknown):
            points = boundary.points[unknown]
            self._normals[unknown] = self._surrogate.normals(self._pairs, points, unknown)
            self.moved[unknown] = False
        return self._normals[chosen]

    def nearest(self, boundary: Boundary, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Returns those of the chosen pairs with a nearest point, [n], and the points [n, D].

        See `Surrogate.nearest`.
        """
        points, found = self._surrogate.nearest(self._pairs, boundary.distance, chosen)
        return chosen[found], points[found]

    def approach(self, boundary: Boundary, chosen: Tensor) -> Tensor:
        """Returns nearer points for the chosen pairs, [n, D]; see `Surrogate.approach`."""
        points = boundary.points[chosen]
        ends, self._normals[chosen] = self._surrogate.approach(self._pairs, points, chosen)
        return ends
