"""Runs `benchmarks.page.build`."""

from benchmarks.page.build import main

main()
