"""Searches for the teacher's decision boundary: SD, BD and MBD.

A search takes pairs of a sample and a criterion, and rays from the samples to starting points. It
yields queries, receives decisions, and returns the distance and the boundary point of each pair. It
never sees a teacher; `db3kd.querying` runs it.
"""

from db3kd.boundary.distance import boundary_distance, sample_distance
from db3kd.boundary.pairs import Boundary, Pairs, Rays
from db3kd.boundary.sign_opt import TOLERANCE_WITH_SURROGATE, minimal_boundary_distance
from db3kd.boundary.sign_opt_settings import SignOptSettings
from db3kd.boundary.starting_points import Order, StartingPoints
from db3kd.boundary.surrogate import Surrogate

__all__ = [
    "TOLERANCE_WITH_SURROGATE",
    "Boundary",
    "Order",
    "Pairs",
    "Rays",
    "SignOptSettings",
    "StartingPoints",
    "Surrogate",
    "boundary_distance",
    "minimal_boundary_distance",
    "sample_distance",
]
