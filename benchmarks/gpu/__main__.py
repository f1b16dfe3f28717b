"""Runs `benchmarks.gpu.measure`."""

from benchmarks.gpu.measure import main

main()
