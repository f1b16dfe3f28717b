"""Teachers made of Python functions and fitted classifiers."""
