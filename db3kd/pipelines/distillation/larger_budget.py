"""Continues a run with a larger budget than it was started with.

The manifest keeps the plan that the run was started with, which identifies its answers, and lists
what each larger budget added.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from db3kd.errors import ArgumentError, InputError
from db3kd.pipelines.query_rounds.answer_run import ANSWERS
from db3kd.pipelines.run_layout import LABELS_FOLDER
from db3kd.planning import BudgetPlan, Strategy, plan_larger_budget
from db3kd.planning.larger_budget import with_further_queries
from db3kd.planning.plan import FurtherQueries
from db3kd.storage.existing_runs import holds_run
from db3kd.storage.manifest import LARGER_BUDGETS, check_state, is_finished, read_manifest
from db3kd.storage.run_differences import describe_differences, differences
from db3kd.storage.run_folder import RunFolder
from db3kd.wording import InputNoun


@dataclass(frozen=True)
class StoredBudgets:
    """The budgets of a stored run.

    Attributes:
        plan: The entries of the plan that it was started with.
        added: The entries of the larger budgets.
    """

    plan: Mapping[str, Any]
    added: Sequence[Mapping[str, Any]]

    @property
    def first(self) -> int | None:
        """The budget that the run was started with; None if the manifest holds none."""
        budget = self.plan.get("budget")
        return budget if type(budget) is int else None

    @property
    def further(self) -> list[FurtherQueries]:
        """What the larger budgets added."""
        return [
            FurtherQueries(each["budget"], each["held_out_augmented"], tuple(each["rounds"]))
            for each in self.added
        ]


def stored_budgets(out: Path) -> StoredBudgets | None:
    """Returns the budgets of the distillation in a folder; None without one.

    Args:
        out: The run folder.

    Raises:
        ValueError: If the manifest is damaged.
    """
    if not holds_run(out):
        return None
    manifest = read_manifest(out, ANSWERS.format)
    check_state(out, manifest)
    plan = manifest.get("settings", {}).get("plan")
    return StoredBudgets(plan if isinstance(plan, dict) else {}, manifest.get(LARGER_BUDGETS, []))


def plans_of_run(
    make_plan: Callable[[int], BudgetPlan],
    budget: int,
    out: Path | None,
    strategy: Strategy,
    images: int | None,
    noun: InputNoun,
) -> tuple[BudgetPlan, BudgetPlan]:
    """Returns the plan that a run is started with, and the one with which it continues.

    They differ only if the budget is larger than that of a stored run.

    Args:
        make_plan: Makes the plan of a new run from its budget.
        budget: The budget.
        out: The folder of a run that may get a larger budget; None if there is none.
        strategy: The strategy.
        images: Number of images; None without images.
        noun: What errors call an image.

    Raises:
        ValueError: If the budget does not suffice, or if the stored run cannot have it.
    """
    stored = None if out is None else stored_budgets(out)
    first = None if stored is None else stored.first
    if (
        out is None
        or stored is None
        or first is None
        or (stored.plan.get("strategy"), stored.plan.get("images")) != (strategy, images)
        or (budget <= first and not stored.added)
    ):
        plan = make_plan(budget)
        return plan, plan
    begun = plan = make_plan(first)
    for further in stored.further:
        plan = with_further_queries(plan, further)
    if budget < plan.budget:
        raise ArgumentError(
            "budget",
            f"expected at least {plan.budget:,}, with which the run in {out} was continued, got "
            f"{budget:,}",
        )
    if budget == plan.budget:
        return begun, plan
    larger = plan_larger_budget(plan, budget, noun)
    if plan.label_queries and not is_finished(out / LABELS_FOLDER):
        raise ArgumentError(
            "budget",
            f"expected {first:,}, with which the run in {out} was started, until it is finished, "
            f"got {budget:,}; resume it with that budget, then with the larger one",
        )
    return begun, larger


def add_larger_budgets(
    folder: RunFolder, plan: BudgetPlan, choosing: Mapping[str, Any] | None
) -> None:
    """Records what a larger budget added to a plan, before its first query.

    Args:
        folder: The run, opened for writing.
        plan: The plan with which it continues.
        choosing: What proxies that choose images depend on; None if none choose.

    Raises:
        ValueError: If the run has had a larger budget than the plan.
    """
    recorded = folder.manifest.get(LARGER_BUDGETS, [])
    if len(recorded) > len(plan.further):
        raise InputError(
            f"{folder.path}: expected a run with a budget of {plan.budget:,}, got one that was "
            f"continued with {recorded[-1]['budget']:,}; start another run in another folder"
        )
    for further in plan.further[len(recorded) :]:
        entry = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "budget": further.budget,
            "held_out_augmented": further.held_out_augmented,
            "rounds": further.rounds,
            "choosing": choosing,
        }
        folder.reopen_finished(LARGER_BUDGETS, entry)


def check_larger_budgets(
    out: Path,
    plan: BudgetPlan,
    choosing: Mapping[str, Any] | None,
    chosen: Callable[[int, int], bool],
) -> None:
    """Checks that proxies go on to choose images as they did before a stop.

    Args:
        out: The folder, with or without a run.
        plan: The plan with which the run continues.
        choosing: As for `add_larger_budgets`, now.
        chosen: Returns whether the images of all rounds from one to before another are chosen.

    Raises:
        ValueError: If the proxies depend on other settings.
    """
    stored = stored_budgets(out)
    stop = len(plan.rounds) - sum(len(each.rounds) for each in plan.further)
    for entry in [] if stored is None else stored.added[: len(plan.further)]:
        first, stop = stop, stop + len(entry["rounds"])
        was, now = ({"settings": {"choosing": each}} for each in (entry["choosing"], choosing))
        if (found := differences(was, now)) and not chosen(first, stop):
            raise InputError(f"{out}: holds a different run: {describe_differences(found)}")
