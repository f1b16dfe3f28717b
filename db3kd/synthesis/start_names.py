"""The names of the distributions in `starts`; the command line lists them without loading those."""

STARTS = ("published", "low-frequency", "shapes", "strokes", "blends", "mixed")
DEFAULT_STARTS = "mixed"
