"""The parts that sections of a student's report consist of.

Both pages, HTML and Markdown, are made from the same sections. `kind` names the macro of the HTML
template that shows a block.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """A table of text; its first `text_columns` columns are aligned to the left.

    An empty first cell belongs to the one above it. `strong_rows` are the numbers of rows whose
    other cells are bold.
    """

    kind: ClassVar = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1
    strong_rows: Collection[int] = ()


@dataclass(frozen=True)
class Bar:
    """A bar of a length in [0, 1], between its name and its value."""

    name: str
    length: float
    value: str


@dataclass(frozen=True)
class Bars:
    """A bar chart; `head` says what names and values are."""

    kind: ClassVar = "bars"
    head: tuple[str, str]
    bars: Sequence[Bar]


@dataclass(frozen=True)
class HeatCell:
    """A count, and how strong its colour is, in [0, 1]."""

    count: int
    strength: float


@dataclass(frozen=True)
class HeatMap:
    """A confusion matrix. The row of a class that the teacher never chose is None."""

    kind: ClassVar = "heat_map"
    names: Sequence[str]
    rows: Sequence[Sequence[HeatCell] | None]


@dataclass(frozen=True)
class Plot:
    """A figure, drawn when it is needed; its file; and what it shows, in words."""

    kind: ClassVar = "plot"
    draw: "Callable[[], Figure]"
    file: str
    label: str


@dataclass(frozen=True)
class Card:
    """An example: its image if it is one, its classes by who decided, and bars of soft labels."""

    title: str
    image: Tensor | None
    classes: Sequence[tuple[str, str]] = ()
    bars: Sequence[Bar] = ()


@dataclass(frozen=True)
class Cards:
    """Examples side by side, and the folder of their image files."""

    kind: ClassVar = "cards"
    cards: Sequence[Card]
    folder: str

    def files(self) -> list[tuple[Card, str]]:
        """Returns each card with the path of its image file in the folder of the page."""
        return [
            (card, f"{self.folder}/{number:02d}.png") for number, card in enumerate(self.cards, 1)
        ]


@dataclass(frozen=True)
class Settings:
    """Names and values that a user can copy; a value may have several lines.

    A value that ends in a full stop is a sentence, which is not shown as code.
    """

    kind: ClassVar = "settings"
    values: Sequence[tuple[str, str]]

    @staticmethod
    def is_sentence(value: str) -> bool:
        """Returns whether a value is a sentence."""
        return value.endswith(".")


Block = Table | Bars | HeatMap | Plot | Cards | Settings


@dataclass(frozen=True)
class Section:
    """A section of the page: a heading, text, and blocks."""

    title: str
    text: str
    blocks: Sequence[Block]
