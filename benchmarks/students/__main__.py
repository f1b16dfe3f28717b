"""Runs `benchmarks.students.compare`."""

from benchmarks.students.compare import main

main()
