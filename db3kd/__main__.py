"""`python -m db3kd` runs the command line."""

from db3kd.cli import main

main()
