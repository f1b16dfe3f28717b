"""Lines of plans and results: a name in a column, and a text."""

NARROW = 10
"""Width of the column of names, of commands that train or measure students."""

WIDE = 14
"""Width of the column of names, of all other commands."""


def print_row(name: str, text: object, width: int = NARROW) -> None:
    """Prints a name, in a column of this width, and a text beside it."""
    print(f"{name:<{width}} {text}")
