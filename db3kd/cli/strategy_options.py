"""The option --strategy."""

from typing import Annotated, Literal

import typer

from db3kd.cli.option_sets import COMMON

StrategyName = Annotated[
    Literal["auto", "decisions", "augmented", "sd", "bd", "mbd", "db3kd-paper", "zero-shot"],
    typer.Option(
        "--strategy",
        help="How the budget is spent; auto is best unless you want to compare.",
        rich_help_panel=COMMON,
    ),
]
