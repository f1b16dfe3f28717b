"""Checks of arguments: each error names the argument, what was expected and what came."""
