"""Students of `db3kd.distill` beside those of other extraction methods, at equal queries."""
