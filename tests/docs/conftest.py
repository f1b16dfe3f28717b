"""Lets tests import the extensions of the documentation site."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "docs" / "_extensions"))
