"""Plans the surrogate of a label run: whether to train one, and on how many queries.

With a surrogate a pair gets as near to the boundary as otherwise with several times its queries,
but the surrogate's own queries are taken from all pairs. docs/design-notes.md has the measurements
behind the constants.
"""

from dataclasses import dataclass

from db3kd.arguments.plain import check_count
from db3kd.wording import counted

LEAST_QUERIES, MOST_QUERIES = 2_000, 20_000
"""The fewest queries of a useful surrogate, and those beyond which it improves little."""

_LEAST_PER_PAIR, _MOST_SHARE = 10, 0.75
"""Queries that each pair keeps, because with fewer it cannot follow a surrogate. The largest share
of the queries for distances: with a surrogate, a pair reaches the same distance with a quarter."""

_ENOUGH_PER_PAIR = 25
"""Queries that each pair gets first. Beyond them, a better surrogate gains more than further
queries of the pair."""

_SHARE, _SHARE_OF_FEW = 0.5, 0.1
"""A surrogate takes all queries beyond `_ENOUGH_PER_PAIR`, up to the first share of all queries for
distances. It takes the second share if that is more. The limits above apply to both."""

_MOST_PER_PAIR = 2_000
"""With more queries, pairs get as near without a surrogate."""

_LEAST_IMAGES = 10
"""The fewest images with which surrogates have been measured."""

_QUERIES_PER_IMAGE = 9
"""Queries of the surrogate for each image that it uses, unless there are too few images. The class
of the image itself is known."""

_POINT_SHARE = 0.5
"""Least share of the queries that are for points near the surrogate's own boundaries, if the run
can keep so many."""


@dataclass(frozen=True)
class SurrogatePlan:
    """The surrogate of a run; made by `plan_surrogate_training`.

    Attributes:
        samples: The number of images that are augmented; 0 if no surrogate is trained.
        versions: The number of augmented versions of each.
        points: The number of points near the surrogate's own boundaries.
        why: The reason, in one sentence.
    """

    samples: int
    versions: int
    points: int
    why: str

    @property
    def queries(self) -> int:
        """The exact number of queries."""
        return self.samples * self.versions + self.points


def plan_surrogate_training(
    budget: int, images: int, pairs: int, max_points: int = MOST_QUERIES
) -> SurrogatePlan:
    """Decides from the numbers of a label run whether it trains a surrogate first.

    Example:
        >>> plan_surrogate_training(1_000_000, images=1_000, pairs=9_000).queries
        20000

    Args:
        budget: Maximum number of queries of the run, including one for each image.
        images: The number of images of the run.
        pairs: The number of pairs of a sample and another class that are searched.
        max_points: The largest number of points near the surrogate's own boundaries that the run
            can keep.

    Returns:
        The plan. The same numbers give the same plan.
    """
    check_count(budget, "budget", least=0)
    check_count(images, "images")
    check_count(pairs, "pairs")
    distances = max(0, budget - images)
    each = distances / pairs
    if images < _LEAST_IMAGES:
        return _none(f"a surrogate learns too little from fewer than {_LEAST_IMAGES} samples")
    if each >= _MOST_PER_PAIR:
        return _none(f"with {each:,.0f} queries, a pair gets as near without a surrogate")
    most = min(int(distances * _MOST_SHARE), distances - _LEAST_PER_PAIR * pairs)
    if most < LEAST_QUERIES:
        return _none(
            f"a surrogate needs {LEAST_QUERIES:,} queries, too many of {distances:,} for "
            f"{counted(pairs, 'pair')}"
        )
    spare = min(distances * _SHARE, distances - _ENOUGH_PER_PAIR * pairs)
    wanted = int(max(spare, distances * _SHARE_OF_FEW))
    wanted = min(max(wanted, LEAST_QUERIES), MOST_QUERIES, most)
    samples = min(images, wanted // _QUERIES_PER_IMAGE)
    least_points = min(int(wanted * _POINT_SHARE), max_points)
    versions = (wanted - least_points) // samples
    points = min(wanted - samples * versions, max_points)  # with the remainder of the division
    left = (distances - samples * versions - points) / pairs
    why = f"a pair gets nearer with {left:,.0f} queries and a surrogate than with {each:,.0f} alone"
    return SurrogatePlan(samples, versions, points, why)


def _none(why: str) -> SurrogatePlan:
    return SurrogatePlan(0, 0, 0, why)
