"""Searches for the decision boundary. They yield queries and never call a teacher."""

from db3kd.boundary.distance import boundary_distance, sample_distance
from db3kd.boundary.pairs import Boundary, Pairs, Rays
from db3kd.boundary.sign_opt import SignOptSettings, minimal_boundary_distance
from db3kd.boundary.starting_points import StartingPoints
from db3kd.boundary.surrogate import Surrogate

__all__ = [
    "Boundary",
    "Pairs",
    "Rays",
    "SignOptSettings",
    "StartingPoints",
    "Surrogate",
    "boundary_distance",
    "minimal_boundary_distance",
    "sample_distance",
]
