"""The output of `db3kd label --dry-run`."""

from typing import TYPE_CHECKING

from db3kd.cli.plan_output import print_answered
from db3kd.progress import duration
from db3kd.wording import counted, money

if TYPE_CHECKING:
    from db3kd.labelling.dry_run import Estimate
    from db3kd.labelling.planned_run import RunQueries


def print_estimate(
    estimate: "Estimate", workers: int, price: float | None, so_far: "RunQueries"
) -> None:
    """Prints the estimated queries, time and cost of a run.

    Args:
        estimate: The estimate of the run.
        workers: The number of workers that run at the same time.
        price: The price of 1,000 queries, in any currency.
        so_far: The queries of the run if it is continued.
    """
    print(f"dry run   {_asked(estimate)}; nothing was written")
    print(f"samples   {estimate.samples:,}")
    bounds = (
        [estimate.max_queries]
        if estimate.expected_queries is None
        else [estimate.expected_queries, estimate.max_queries]
    )
    print(f"queries   {_range([f'{queries:,}' for queries in bounds])}{_basis(estimate)}")
    if estimate.surrogate_why:
        queries = estimate.surrogate_queries
        cost = f"trained on {queries:,} of these queries" if queries else "none"
        print(f"surrogate {cost}: {estimate.surrogate_why}")
    if estimate.seconds_per_query is not None:
        surrogate = estimate.surrogate_seconds_per_query
        seconds = estimate.seconds_per_query + (surrogate or 0)
        times = [duration(queries * seconds / workers) for queries in bounds]
        pool = "" if workers == 1 else f", {workers} workers"
        print(
            f"time      {_range(times)}: {seconds * 1000:.3g} ms per query, batches of "
            f"{estimate.batch_size:,}{pool}"
        )
        if surrogate is not None:
            print(
                f"surrogate {surrogate * 1000:.3g} ms of that ({surrogate / seconds:.0%}), on this "
                "machine, while the teacher is idle"
            )
    if price is not None:
        costs = [money(queries * price / 1000) for queries in bounds]
        print(f"cost      {_range(costs)}, at {money(price)} per 1,000 queries")
    print_answered(
        so_far.answered,
        estimate.max_queries,
        price,
        unused=so_far.unused,
        finished=so_far.finished,
        width=8,
    )


def _asked(estimate: "Estimate") -> str:
    if not estimate.asked:
        return "no query was sent"
    return f"sent {counted(estimate.asked, 'real query')}, outside of any budget"


def _range(values: list[str]) -> str:
    return f"at most {values[0]}" if len(values) == 1 else f"about {values[0]}, at most {values[1]}"


def _basis(estimate: "Estimate") -> str:
    if estimate.queries_per_pair is None:
        return ""
    pairs = counted(estimate.measured_pairs, "pair")
    return f": {estimate.queries_per_pair:,.1f} per pair, measured on {pairs}"
