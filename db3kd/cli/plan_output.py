"""Text for plans, results, prices and surrogates that several commands print."""

import sys
from typing import TYPE_CHECKING, Any

from db3kd.cli.rows import NARROW, WIDE, print_row
from db3kd.progress import duration
from db3kd.wording import also_paid, counted, money, noun_for, paid_twice_text, plain_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from db3kd.data.image_set import ImageSet
    from db3kd.pipelines import DistillResult
    from db3kd.pipelines.comparison.prepared import PreparedComparison
    from db3kd.pipelines.distillation.prepared import PreparedDistillation
    from db3kd.pipelines.prepared_run import PreparedRun
    from db3kd.pipelines.student_training.time_estimate import StepTimes
    from db3kd.planning import BudgetPlan, ComparisonPlan
    from db3kd.storage.run_queries import RunQueries
    from db3kd.teachers import Teacher
    from db3kd.wording import InputNoun

_PRECISE = 0.04
"""An agreement that is measured this exactly needs no advice on how to measure it better."""

TIME_OF_QUERIES = "time unknown; db3kd info --teacher … --time 20 measures it with 20 queries"
"""How a user finds out what a plan cannot say without a query."""

_HOURS = 2 * 3600.0
"""From this many seconds of training on, the plan says how to shorten it."""

_TIMED_FROM = 1000
"""With fewer training steps, a run does not measure how long they take before it starts."""

SENT_NOTHING = "; no query was sent"
"""How the last row of a dry run ends."""

NOTHING_LEFT = "no query is left to send, and no network to train"
"""What a dry run of a finished run says."""


def print_plan(prepared: "PreparedDistillation") -> None:
    """Prints the queries of each stage in order, with their reasons and their price."""
    plan = prepared.plan
    print_row("strategy", plan.strategy)
    for line in plan.stage_lines:
        print(line)
    price = price_text(plan.queries, prepared.price_per_1000)
    print_row("queries", f"at most {plan.queries:,} of {plan.budget:,}{price}")
    if plan.why_unused is not None:
        unused = counted(plan.budget - plan.queries, "query")
        print_row("unused", f"{unused}: {plan.why_unused}")
    print_row("measured", _measurement(plan))
    print_row("networks", _networks(prepared))
    print_warnings(prepared.warnings)


def _networks(prepared: "PreparedDistillation") -> str:
    """Returns which networks are trained, and what for."""
    plan, proxies = prepared.plan, prepared.proxies
    text = f"student {prepared.student.title}"
    if not _may_teach(plan, prepared, prepared.full_steps(plan.training_samples)):
        return text
    tasks = f"choose {plan.noun}s and may" if plan.rounds_to_choose else "may"
    return f"{text}; {counted(proxies.count, f'{proxies.name} proxy')} {tasks} teach it"


def _may_teach(plan: "BudgetPlan", prepared: "PreparedRun", steps: int) -> bool:
    """Returns whether proxies may teach the student of a plan that trains for these steps."""
    from db3kd.pipelines.student_training.rules import (
        has_batch_normalisation,
        reason_against_proxies,
    )

    if not plan.uses_proxies or not prepared.proxies.count:
        return False
    if not plan.pseudo_samples:
        return True
    normalised = has_batch_normalisation(prepared.student.make)
    batch_size = prepared.settings.training.batch_size
    reason = reason_against_proxies(
        plan.training_samples, steps, batch_size, batch_normalisation=normalised
    )
    return reason is None


def _measurement(plan: "BudgetPlan") -> str:
    """Returns on how many images the student is measured, how well, and how to do better."""
    from db3kd.pipelines.student_warnings import MEASURE_AGREEMENT
    from db3kd.planning.held_out import describe_precision, precision

    images, noun = plan.measured_on, plan.noun
    text = (
        f"the agreement, on {counted(images, plan.held_out_noun)}, to "
        f"{describe_precision(images)} or better (95 % interval)"
    )
    if precision(images) <= _PRECISE:
        return text
    return (
        f"{text}; more exactly with --held-out N, within the budget, or afterwards with "
        f"{MEASURE_AGREEMENT}, which costs a query for each {noun}"
    )


def print_warnings(warnings: "Sequence[str]", width: int = NARROW) -> None:
    """Prints warnings, one a line; the first column has this width."""
    for warning in warnings:
        print_row("warning", warning, width)


def print_resumption(
    so_far: "RunQueries",
    queries: int,
    price_per_1000: float | None,
    *,
    requested_checks: int,
    checks: int,
    width: int = NARROW,
) -> None:
    """Prints which queries of a resumed run repeat known answers, and which are left.

    Args:
        so_far: The queries of the run.
        queries: The maximum number of queries of the run, without those that are repeated.
        price_per_1000: The price of 1,000 queries, or None.
        requested_checks: The value of --consistency-checks.
        checks: How many queries repeat known answers.
        width: The width of the first column.
    """
    from db3kd.querying.consistency import NOTHING_TO_CHECK, is_unchecked

    if checks:
        total = checks + queries
        print_row(
            "checks",
            f"{counted(checks, 'more query')} to repeat known answers"
            f"{price_text(checks, price_per_1000)}; with them at most {total:,}"
            f"{price_text(total, price_per_1000)}",
            width,
        )
    elif is_unchecked(requested_checks, checks, so_far.answered):
        print_row("checks", NOTHING_TO_CHECK, width)
    print_answered(so_far, queries, price_per_1000, width=width)
    sys.stdout.flush()  # progress is written to stderr


def comparison_width(plan: "ComparisonPlan") -> int:
    """Returns the width of the first column of the plan of a comparison."""
    return max(NARROW, *(len(strategy) + 1 for strategy in plan.strategies))


def print_comparison_plan(prepared: "PreparedComparison") -> None:
    """Prints the plan of each strategy on a line, and the total cost of all students."""
    plan, noun, price_per_1000 = prepared.plan, prepared.noun, prepared.price_per_1000
    width = comparison_width(plan)
    for strategy in plan.strategies:
        if strategy in plan.refused:
            print_row(strategy, f"not used: {plan.refused[strategy]}", width)
            continue
        each = plan.plans[strategy]
        may_teach = _may_teach(each, prepared, prepared.usual_steps)
        taught = "; proxies may teach" if may_teach else ""
        print_row(
            strategy,
            f"at most {counted(each.queries, 'query')}"
            f"{price_text(each.queries, price_per_1000)}: {each.text}{taught}",
            width,
        )
    students = len(plan.plans) * plan.seeds
    test = f" and {counted(plan.test_images, f'test {noun}')}" if plan.test_images else ""
    print_row(
        "in total",
        f"at most {counted(plan.queries, 'query')} for "
        f"{counted(students, 'student')}{test}{price_text(plan.queries, price_per_1000)}",
        width,
    )
    print_row("measured", _comparison_measurement(plan, noun), width)
    print_warnings(prepared.warnings, width)


def _comparison_measurement(plan: "ComparisonPlan", noun: "InputNoun") -> str:
    """Returns on how many images the students are measured, how well, and how to do better."""
    from db3kd.planning.held_out import describe_precision

    images = plan.test_images
    if images:
        return (
            f"the agreement, on {counted(images, f'test {noun}')}, to {describe_precision(images)} "
            "or better (95 % interval); --test-limit N queries fewer of them"
        )
    counts = sorted({each.measured_on for each in plan.plans.values()})
    numbers = " or ".join(f"{count:,}" for count in counts)
    held_out = noun_for(counts[-1], f"held-out {noun}")
    return (
        f"the agreement of each student, on {numbers} {held_out}, to "
        f"{describe_precision(counts[0])} or better (95 % interval); more exactly with --held-out "
        f"N, within the budget, or with --test, whose {noun}s cost a query each for all students "
        "together"
    )


def print_answered(
    so_far: "RunQueries", queries: int | None, price_per_1000: float | None, *, width: int = NARROW
) -> None:
    """Prints how many queries of a run are answered, and the price of the others.

    Args:
        so_far: The queries of the run; nothing is printed if none is answered.
        queries: The maximum number of queries of the run; None if it has none.
        price_per_1000: The price of 1,000 queries, or None.
        width: The width of the first column.
    """
    if not so_far.answered:
        return
    if so_far.finished:
        print_row("answered", f"{counted(so_far.answered, 'query')}; the run is finished", width)
        return
    left = ""
    if queries is not None:
        not_needed = f"{so_far.unused:,} not needed; " if so_far.unused else ""
        most = so_far.left(queries)
        left = f"; {not_needed}at most {most:,} are left{price_text(most, price_per_1000)}"
    text = f"{so_far.answered:,} of these queries, which are not sent again{left}"
    print_row("answered", text, width)


def is_timed(prepared: "PreparedRun", *, dry_run: bool) -> bool:
    """Returns whether a command measures how long training takes, before it starts or stops."""
    steps = prepared.settings.training.steps
    return dry_run or steps is None or steps >= _TIMED_FROM


def print_times(
    times: "StepTimes",
    prepared: "PreparedDistillation",
    teacher: "Teacher",
    so_far: "RunQueries",
    seconds_asked: float,
    seconds_of_choice: float | None,
    *,
    dry_run: bool,
) -> None:
    """Prints how long the queries and the training of a run take, as far as it is known.

    Args:
        times: The times of training steps.
        prepared: The run.
        teacher: The teacher as it was opened, which may limit the rate of its queries.
        so_far: The queries of the run that is resumed; none without one.
        seconds_asked: The seconds that the answered ones took, as far as they are known.
        seconds_of_choice: The seconds of the time limit in which proxies chose images; None if they
            are still to choose some.
        dry_run: Whether the command stops here.
    """
    plan, settings = prepared.plan, prepared.settings
    rate = getattr(getattr(teacher, "requests", None), "queries_per_second", None)
    answered, left = so_far.answered, so_far.left(plan.queries)
    if not left:
        print_row("querying", "no query is left")
    elif rate is not None:
        print_row("querying", f"at least {duration(left / rate)} at {rate:g} queries per second")
    elif answered and seconds_asked:
        print_row(
            "querying",
            f"about {duration(left * seconds_asked / answered)} more, at "
            f"{plain_number(answered / seconds_asked)} queries per second, the rate so far",
        )
    elif dry_run:
        print_row("querying", TIME_OF_QUERIES)
    steps, full = times.steps_of_run(plan, settings, seconds_of_choice)
    cut = f" of {full:,} without --time-limit" if steps < full else ""
    about, kept = "about", ""
    if so_far.finished:
        about, kept = "at most", ", without the networks that are trained already"
    seconds = times.of_run(plan, settings, seconds_of_choice)
    shorter = ""
    if seconds > _HOURS and settings.time_limit is None:
        shorter = "; shorter with --time-limit SECONDS, --proxies 0 or a smaller --student"
    print_row(
        "training",
        f"{about} {duration(seconds)} on this machine, {counted(steps, 'step')} of the student"
        f"{cut}{kept}{shorter}{SENT_NOTHING if dry_run else ''}",
    )


def print_training_time(seconds: float, what: str) -> None:
    """Prints how long the networks of a surrogate or of pseudo samples train, and which."""
    print_row("training", f"about {duration(seconds)} on this machine, {what}", WIDE)


def print_result(
    result: "DistillResult",
    price_per_1000: float | None,
    student: str,
    images: "ImageSet | None",
    class_names: "Sequence[str] | None",
) -> None:
    """Prints how good the student is, what it cost, and how to use it.

    Args:
        result: What `distill` returned.
        price_per_1000: The price of 1,000 queries, or None.
        student: The name of the student's architecture.
        images: As for `print_usage`.
        class_names: The names of the classes, or None.
    """
    from db3kd.models.weights import STUDENT_FILE
    from db3kd.report.measurement import constant_answer_text

    noun = result.noun
    held_out = counted(result.held_out, result.plan.held_out_noun)
    for choice in result.choices:
        measured = ", ".join(f"{name} {share:.1%}" for name, share in choice.options.items())
        print_row(
            "choice", f"{choice.question}: {choice.chosen} (validation agreement: {measured})"
        )
    if result.choices:
        augmented = result.validation - result.held_out
        versions = (
            f" and {counted(augmented, 'augmented version')} of them, on which students usually "
            "agree less often"
            if augmented
            else ""
        )
        print_row("validation", f"{held_out}{versions}; they compare the options")
    print_row("taught by", result.taught_by)
    agreement = agreement_text(result.matches, result.held_out, result.plan.held_out_noun)
    constant = constant_answer_text(*result.constant_answer, result.held_out, class_names)
    agreement += f"; {constant}"
    if result.plan.pseudo_samples:
        agreement += "; on real images it may be quite different"
    print_row("agreement", agreement)
    print_warnings(result.warnings)
    if result.accuracy is not None:
        print_row("accuracy", f"{result.accuracy:.2%} of the test {noun}s")
    print_row(
        "queries",
        f"{result.queries:,}{price_text(result.queries, price_per_1000)}"
        f"{also_paid(result.paid_twice, result.queries, price_per_1000)}",
    )
    print_checks(result.check_queries, result.checks)
    print_paid_twice(result.paid_twice)
    if result.folder is not None:
        print_row("student", result.folder / STUDENT_FILE)
        print_usage(result.folder, student, images)
    if result.report is not None:
        print_row("report", result.report)


def print_usage(student: "Path", architecture: str, images: "ImageSet | None") -> None:
    """Prints the lines that load, measure and export a student, from its file or run folder.

    `images` are some that the student was trained on or tested with, if there are any.
    """
    from db3kd.pipelines.distillation.reproduction import usage

    lines = usage(student, architecture, images)
    for name in ("load", "measure", "export"):
        print_row(name, lines[name])


def print_checks(queries: int, found: str, width: int = NARROW) -> None:
    """Prints how many queries of a run repeated known ones, and what `describe_checks` says."""
    if queries:
        print_row("checks", f"{queries:,} of these queries; {found}", width)


def agreement_text(matches: int, total: int, noun: str) -> str:
    """Returns an agreement with its 95 % interval and what it is a share of."""
    from db3kd.report.intervals import wilson_interval

    low, high = wilson_interval(matches, total)
    return (
        f"{matches / total:.1%} (95 % interval {low:.1%} to {high:.1%}) of {counted(total, noun)}"
    )


def surrogate_text(
    manifest: "Mapping[str, Any]", noun: "InputNoun", *, included: bool = False
) -> str:
    """Describes the surrogate that a run of labels trained, or why none; may be empty.

    `included` says whether the queries that were stated before include those of the surrogate.
    """
    from db3kd.labelling.runs.totals import queries_of_surrogate
    from db3kd.labels.labels import SURROGATES

    notes, queries = manifest.get(SURROGATES, ()), queries_of_surrogate(manifest)
    if not notes:
        return ""
    last = notes[-1]
    if not queries:
        return f"none: {last['why']}"
    known = ""
    if held_out := last["held_out"]:
        matches = round(last["agreement"] * held_out)
        measured = agreement_text(matches, held_out, f"held-out {noun}")
        known = f", agreement {measured}, augmented versions included"
    cost = f"{queries:,} of these queries" if included else counted(queries, "more query")
    return f"{cost}{known}: {last['why']}"


def print_paid_twice(
    queries: int, width: int = NARROW, *, others: int = 0, price_per_1000: float | None = None
) -> None:
    """Prints how many queries may have been paid for without a usable answer, if any.

    Args:
        queries: From `queries_paid_twice`.
        width: The width of the first column.
        others: All other queries, if the highest possible price is printed here.
        price_per_1000: The price of 1,000 queries, or None.
    """
    if queries:
        price = ""
        if price_per_1000 is not None:
            highest = money((queries + others) * price_per_1000 / 1000)
            price = f", so the price is at most {highest}"
        print_row("paid twice", f"{paid_twice_text(queries)}{price}", width)


def price_text(queries: int, price_per_1000: float | None) -> str:
    """Returns the price of queries as the end of a sentence; empty without a price."""
    if price_per_1000 is None:
        return ""
    price = money(queries * price_per_1000 / 1000)
    return f", price {price} at {money(price_per_1000)} per 1,000"
