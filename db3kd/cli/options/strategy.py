"""The options --strategy and --strategies."""

from typing import TYPE_CHECKING, Annotated, Literal, cast

from db3kd.cli.options.sets import common_option

if TYPE_CHECKING:
    from db3kd.planning import Strategy

StrategyName = Annotated[
    Literal["auto", "decisions", "augmented", "sd", "bd", "mbd", "db3kd-paper", "zero-shot"],
    common_option(
        "--strategy",
        help="How the budget is spent; db3kd compare shows which one is best.",
    ),
]

StrategyNames = Annotated[
    str,
    common_option(
        "--strategies",
        help="Strategies to compare, separated by commas: auto, decisions, augmented, sd, bd, mbd, "
        "db3kd-paper, zero-shot.",
    ),
]


def parse_strategies(text: str) -> "tuple[Strategy, ...]":
    """Returns the names of a --strategies option; `plan_comparison` checks them."""
    return tuple(cast("Strategy", name.strip()) for name in text.split(",") if name.strip())
