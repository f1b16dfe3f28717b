"""Names that count how often they are compared, so that a test sees a quadratic check."""

from typing import Any, ClassVar


class CountingName(str):
    """A text that adds up the comparisons of all such texts in `comparisons`."""

    comparisons: ClassVar[int] = 0

    def __eq__(self, other: Any) -> bool:
        CountingName.comparisons += 1
        return super().__eq__(other)

    __hash__ = str.__hash__

    def __str__(self) -> str:
        return self

    def strip(self, *characters: Any) -> "CountingName":
        """Returns itself, because `str.strip` would return a plain text."""
        return self


def counting_names(count: int) -> list[CountingName]:
    """Returns different names, and sets the count to 0."""
    CountingName.comparisons = 0
    return [CountingName(f"name {number}") for number in range(count)]
