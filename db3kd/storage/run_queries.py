"""How many queries of a stored run are answered, and how many it does not need."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RunQueries:
    """The queries of a run that is continued, without those of checks.

    Attributes:
        answered: How many are answered. A resumed run does not send them again.
        unused: How many of the maximum its finished parts did not need. They are not spent on other
            parts, so they lower the maximum of the run.
        finished: Whether nothing is left to do.
    """

    answered: int = 0
    unused: int = 0
    finished: bool = False

    def left(self, queries: int) -> int:
        """Returns how many queries may still be sent.

        Args:
            queries: The maximum number of queries of the run.
        """
        return 0 if self.finished else max(0, queries - self.answered - self.unused)
