"""Packages that only some data sets need."""

from functools import partial

from db3kd.extras import import_extra

import_data_package = partial(import_extra, extra="data", purpose="this data set")
"""Imports a module of an optional package; see `import_extra`."""
