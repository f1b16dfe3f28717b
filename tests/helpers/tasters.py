"""An analytic teacher over rows of a table, which keeps the rows that it saw."""

import numpy as np
import pandas as pd

from db3kd.data.image_set import ImageSet
from db3kd.tables import Feature, Features
from db3kd.teachers import TabularTeacher

WINES = Features(
    [
        Feature.continuous("alcohol", 8, 16),
        Feature.integer("year", 1990, 2020),
        Feature.categorical("colour", ["red", "white", "rosé"]),
    ],
    as_frame=True,
)
"""Five places: alcohol, year, and one for each colour."""


class Taster:
    """Likes strong red wines, and young wines of other colours."""

    def __init__(self) -> None:
        self.seen: list[pd.DataFrame] = []

    def __call__(self, rows: pd.DataFrame) -> np.ndarray:
        """Returns "good" or "fair" for each row."""
        self.seen.append(rows)
        red = rows["colour"] == "red"
        liked = (red & (rows["alcohol"] >= 12)) | (~red & (rows["year"] >= 2005))
        return np.where(liked, "good", "fair")

    def teacher(self) -> TabularTeacher:
        """Returns the taster as a teacher."""
        return TabularTeacher(self, WINES, classes=["fair", "good"], name="taster")

    @property
    def rows(self) -> pd.DataFrame:
        """All rows that the taster saw, in order."""
        return pd.concat(self.seen, ignore_index=True)


def wine_frame(rows: int, seed: int = 0) -> pd.DataFrame:
    """Rows that are drawn uniformly."""
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "alcohol": draw.uniform(8, 16, rows),
            "year": draw.integers(1990, 2021, rows),
            "colour": draw.choice(["red", "white", "rosé"], rows),
        }
    )


def wines(rows: int = 60, seed: int = 0) -> ImageSet:
    """An image set of such rows, with the classes of the taster."""
    frame = wine_frame(rows, seed)
    return ImageSet.from_table(frame, Taster()(frame), WINES, "wines")
