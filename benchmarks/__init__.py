"""The benchmarks of db3kd.

`ops` measures the native ops, `peers` compares the boundary searches with other attacks, `students`
measures what labels teach, `colour` makes colour data sets, `systems` measures what runs cost, and
`gpu` everything on a GPU. `full` runs them all, and `page` makes benchmarks/results/README.md from
the results.
"""
