"""Sample distance and boundary distance: how far the wanted class is along rays to known images."""

import torch
from torch import Tensor

from db3kd.boundary.contest import bisect
from db3kd.boundary.pairs import Boundary, Pairs, Rays
from db3kd.search import Purse, Search


def sample_distance(pairs: Pairs, rays: Rays, snapshots: tuple[int, ...] = ()) -> Boundary:
    """SD: the distance to the nearest end of each pair (DB3KD, section 3.2). Costs no query.

    rays: towards images the teacher is known to put on the wanted side, the nearest of a pair
    first. A pair without rays has distance +inf.
    """
    boundary = Boundary.unknown(pairs, snapshots)
    nearest = _first_rays(rays)
    reached = rays.pair_of[nearest]
    boundary.distance[reached] = rays.lengths[nearest]
    boundary.points[reached] = rays.ends[rays.end_of[nearest]]
    boundary.note(torch.zeros_like(pairs.sample_of), boundary.distance)
    return boundary


def boundary_distance(
    pairs: Pairs,
    rays: Rays,
    *,
    absolute: float = 1e-5,
    relative: float = 1e-3,
    rows: int = 2048,
    purse: Purse,
    snapshots: tuple[int, ...] = (),
) -> Search[Boundary]:
    """BD: the least distance at which a ray of each pair meets the boundary (DB3KD, section 3.2).

    rays: as for `sample_distance`, whose result is the start. absolute, relative: width of the
    final bracket, in input units and as a share of the distance. rows: images per batch.
    """
    boundary = sample_distance(pairs, rays, snapshots)
    nothing = torch.zeros_like(boundary.distance)
    yield from bisect(
        pairs,
        rays,
        boundary,
        low=nothing,
        radius=torch.where(boundary.distance.isfinite(), boundary.distance / 2, nothing),
        absolute=absolute,
        relative=relative,
        rows=rows,
        purse=purse,
    )
    return boundary


def _first_rays(rays: Rays) -> Tensor:
    """[n] int64: the first ray of each pair that has any."""
    if not len(rays):
        return rays.pair_of
    heads = rays.pair_of[1:] != rays.pair_of[:-1]
    return torch.cat([heads.new_ones(1), heads]).nonzero()[:, 0]
