"""Runs `benchmarks.extraction.compare`."""

from benchmarks.extraction.compare import main

main()
