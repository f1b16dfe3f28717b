"""Tables with features of every kind, for tests."""

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from db3kd.tables import Feature, Features
from db3kd.tables.feature import MAX_STEPS

NUMBERS = st.floats(-1e9, 1e9, allow_subnormal=False)


@st.composite
def any_feature(draw: st.DrawFn, name: str) -> Feature:
    """A feature of any kind, constants included."""
    kind = draw(st.sampled_from(["continuous", "integer", "categorical"]))
    if kind == "continuous":
        return Feature.continuous(name, *sorted(draw(st.tuples(NUMBERS, NUMBERS))))
    if kind == "integer":
        lower, steps = draw(st.integers(-(10**6), 10**6)), draw(st.integers(0, MAX_STEPS))
        return Feature.integer(name, lower, lower + steps)
    values = st.text(min_size=1, max_size=5) | st.integers(-5, 5) | st.booleans()
    return Feature.categorical(name, draw(st.lists(values, min_size=1, max_size=5, unique=True)))


@st.composite
def any_features(draw: st.DrawFn) -> Features:
    """Up to six features of any kind, of which one at least varies."""
    features = [draw(any_feature(f"f{number}")) for number in range(draw(st.integers(0, 5)))]
    return Features([*features, Feature.continuous("last", 0, 1)], as_frame=draw(st.booleans()))


def is_valid(features: Features, rows: np.ndarray | pd.DataFrame) -> bool:
    """Whether each value of each row is one that its feature allows."""
    columns = rows.to_numpy(object) if isinstance(rows, pd.DataFrame) else rows
    for feature, column in zip(features, columns.T, strict=True):
        for value in column.tolist():
            if feature.values is not None:
                if value not in feature.values:
                    return False
                continue
            if not feature.lower <= value <= feature.upper:
                return False
            if feature.kind == "integer" and value != int(value):
                return False
    return True


def mixed_frame(rows: int = 40, seed: int = 0) -> pd.DataFrame:
    """A DataFrame with columns of every kind and dtype that pandas users have."""
    draw = np.random.default_rng(seed)
    colours = draw.choice(["red", "white", "rosé"], rows)
    return pd.DataFrame(
        {
            "alcohol": draw.uniform(8, 15, rows),
            "year": draw.integers(1990, 2020, rows),
            "colour": colours,
            "grape": pd.Categorical(draw.choice(["a", "b"], rows), categories=["b", "a", "c"]),
            "organic": draw.random(rows) < 0.5,
            "stars": draw.integers(1, 6, rows).astype(np.float32),
            "country": ["here"] * rows,
        }
    )
