"""The version of db3kd, which the build, the command line and the documentation read from here."""

__version__ = "0.2.0.dev0"
