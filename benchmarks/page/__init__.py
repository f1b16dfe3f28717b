"""The page of all results, benchmarks/results/README.md."""
