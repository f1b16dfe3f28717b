"""Tables: which rows are valid, and how they become vectors in [0, 1].

`Features` describes the columns of a table. It encodes rows as unit vectors, on which searches,
mixtures and students work, and decodes every unit vector to a valid row, which a teacher sees.
"""

from db3kd.tables.columns import Table
from db3kd.tables.feature import Feature
from db3kd.tables.features import Features
from db3kd.tables.projection import Projection

__all__ = ["Feature", "Features", "Projection", "Table"]
