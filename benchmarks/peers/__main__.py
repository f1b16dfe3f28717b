"""Runs `benchmarks.peers.compare`."""

from benchmarks.peers.compare import main

main()
