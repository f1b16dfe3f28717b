"""Continues a run with a larger budget than it was started with.

The manifest keeps the plan that the run was started with, which identifies its answers, and lists
what each larger budget added.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from db3kd.arguments.plain import check_count
from db3kd.errors import ArgumentError, InputError
from db3kd.labels.label_files import load_labels
from db3kd.pipelines.query_rounds.answer_run import ANSWERS, LARGER_BUDGETS
from db3kd.pipelines.run_layout import LABELS_FOLDER
from db3kd.planning import BudgetPlan, plan_larger_budget
from db3kd.planning.larger_budget import with_further_queries
from db3kd.planning.plan import FurtherQueries
from db3kd.querying.sharded_decisions import shard_sizes
from db3kd.storage.choice_log import ChoiceLog
from db3kd.storage.existing_runs import holds_run
from db3kd.storage.manifest import (
    MANIFEST,
    check_state,
    is_finished,
    plain,
    read_manifest,
)
from db3kd.storage.run_differences import describe_differences, differences
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.run_journals import count_answers


@dataclass(frozen=True)
class StoredBudgets:
    """The budgets of a stored run.

    A last budget with which nothing was asked, such as a mistyped one, counts as never given.

    Attributes:
        plan: The entries of the plan that it was started with; none without a run.
        further: What the larger budgets added.
        choosing: For each of them, what the proxies that choose images depend on; None if none do.
        proxies: Whether proxies choose images of the plan that it was started with.
        unused: Whether a last one that nothing was asked with is left out.
    """

    plan: Mapping[str, Any]
    further: tuple[FurtherQueries, ...] = ()
    choosing: tuple[Mapping[str, Any] | None, ...] = ()
    proxies: bool = True
    unused: bool = False

    @property
    def first(self) -> int | None:
        """The budget that the run was started with; None if the manifest holds none."""
        budget = self.plan.get("budget")
        return budget if type(budget) is int else None

    @classmethod
    def read(cls, folder: Path) -> "StoredBudgets":
        """Reads the manifest of a run; a folder without a run has no budgets.

        Args:
            folder: The run folder.

        Raises:
            ValueError: If the manifest is damaged.
        """
        if not holds_run(folder):
            return cls({})
        manifest = read_manifest(folder, ANSWERS.format)
        check_state(folder, manifest, ANSWERS)
        settings = manifest.get("settings", {})
        plan = settings.get("plan")
        entries = manifest.get(LARGER_BUDGETS, [])
        found = cls(
            plan if isinstance(plan, dict) else {},
            tuple(_further(folder, each) for each in entries),
            tuple(each["choosing"] for each in entries),
            "choosing" in settings,
        )
        # Earlier shards may have been removed, so its answers are found by their positions.
        if not entries or count_answers(folder, ANSWERS, first=found._queries_before_last):
            return found
        return replace(found, further=found.further[:-1], choosing=found.choosing[:-1], unused=True)

    @property
    def _queries_before_last(self) -> int:
        """The queries of all budgets but the last one."""
        plan = self.plan
        begun = sum(plan[name] for name in ("held_out", "held_out_augmented", "label_queries"))
        added = (each.held_out_augmented + sum(each.rounds) for each in self.further[:-1])
        return begun + sum(plan["rounds"]) + sum(added)


def _further(folder: Path, entry: Mapping[str, Any]) -> FurtherQueries:
    """Returns what an entry of the manifest says that a larger budget added."""
    rounds, choosing = entry.get("rounds"), entry.get("choosing", "")
    counts = isinstance(rounds, list) and all(type(each) is int and each > 0 for each in rounds)
    if not rounds or not counts or not isinstance(choosing, Mapping | None):
        raise InputError(
            f"{folder / MANIFEST}: entry {LARGER_BUDGETS}: expected numbers of queries as rounds, "
            f"and settings or null as choosing, got {rounds!r} and {choosing!r}"
        )
    return FurtherQueries(
        entry["budget"], entry["held_out_augmented"], tuple(rounds), choosing is not None
    )


def plans_of_run(
    make_plan: Callable[..., BudgetPlan],
    budget: int,
    out: Path | None,
    stored: StoredBudgets,
    *,
    proxies: bool,
    grow: bool,
) -> tuple[BudgetPlan, BudgetPlan]:
    """Returns the plan that a run is started with, and the one with which it continues.

    They differ only if the budget is larger than that of a stored run.

    Args:
        make_plan: Makes the plan of a new run from its budget and `proxies`.
        budget: The budget.
        out: The run folder; None if there is none.
        stored: The budgets of the run in it.
        proxies: Whether the run has proxies.
        grow: Whether the run may get a larger budget.

    Raises:
        TypeError: If the budget is no integer.
        ValueError: If the budget does not suffice, or if the stored run cannot have it.
    """
    budget = check_count(budget, "budget")
    begun = _begun_plan(make_plan, stored)
    if out is None or begun is None:
        plan = make_plan(budget, proxies=proxies)
        return plan, plan
    if not stored.further and (budget <= begun.budget or not grow):
        plan = begun if budget == begun.budget else make_plan(budget, proxies=proxies)
        return plan, plan
    plan = begun
    for further in stored.further:
        plan = with_further_queries(plan, further)
        if plan.queries > further.budget:
            raise InputError(
                f"{out / MANIFEST}: entry {LARGER_BUDGETS}: expected at most {further.budget:,} "
                f"queries, got {plan.queries:,}"
            )
    if stored.further and plan.queries <= budget <= plan.budget:
        return begun, plan
    if budget < plan.budget:
        raise ArgumentError(
            "budget",
            f"expected at least {plan.queries:,}, because the run in {out} was continued with a "
            f"budget of {plan.budget:,} and has answers for it, got {budget:,}; continue with that "
            "budget, or start another run in another folder, which pays for its answers anew",
        )
    larger = plan_larger_budget(plan, budget, proxies=proxies)
    if plan.label_queries and not is_finished(out / LABELS_FOLDER):
        raise ArgumentError(
            "budget",
            f"expected {begun.budget:,}, with which the run in {out} was started, until it is "
            f"finished, got {budget:,}; resume it with that budget, then with the larger one",
        )
    return begun, larger


def _begun_plan(make_plan: Callable[..., BudgetPlan], stored: StoredBudgets) -> BudgetPlan | None:
    """Returns the plan that a stored run was started with; None if that is another run.

    The comparison of the manifests names any other difference.
    """
    if stored.first is None:
        return None
    try:
        plan = make_plan(stored.first, proxies=stored.proxies)
    except ArgumentError:  # another strategy, or other images, for which it does not suffice
        return None
    same = all(getattr(plan, name) == stored.plan.get(name) for name in ("strategy", "images"))
    return _divided_as_stored(plan, stored.plan) if same else None


def _divided_as_stored(plan: BudgetPlan, stored: Mapping[str, Any]) -> BudgetPlan:
    """Returns a plan whose stages have the queries of a stored one.

    Another version of db3kd may have divided the same budget in another way. Its answers are paid
    for, so the run goes on as it was started. Entries that are damaged are left for the comparison
    of the manifests.
    """
    rounds = stored.get("rounds")
    augmented, label_queries = (
        stored.get(name) for name in ("held_out_augmented", "label_queries")
    )
    if not isinstance(rounds, list) or not all(
        type(each) is int and each >= 0 for each in (augmented, label_queries, *rounds)
    ):
        return plan
    divided = replace(
        plan,
        held_out_augmented=cast("int", augmented),
        rounds=tuple(rounds),
        label_queries=cast("int", label_queries),
        targets=stored.get("targets"),
    )
    return divided if divided.queries <= plan.budget else plan


def add_larger_budget(
    folder: RunFolder,
    plan: BudgetPlan,
    seen: StoredBudgets,
    choosing: Mapping[str, Any] | None,
) -> None:
    """Records what a larger budget adds to a run, before its first query.

    Args:
        folder: The run, opened for writing.
        plan: The plan with which it continues.
        seen: The budgets of the run when the plan was made.
        choosing: What proxies that choose images depend on; None if the run has none.

    Raises:
        ValueError: If another process has changed the budgets since then.
    """
    found = StoredBudgets.read(folder.path)
    if found.further != seen.further:
        budget = found.further[-1].budget if found.further else found.first
        raise InputError(
            f"{folder.path}: another command or process has continued the run with a budget of "
            f"{budget:,}; continue it with distill and at least that budget, or start another run "
            "in another folder"
        )
    entries = folder.manifest.get(LARGER_BUDGETS, [])
    kept, unused = entries[: len(found.further)], entries[len(found.further) :]
    added = [
        {
            "budget": each.budget,
            "held_out_augmented": each.held_out_augmented,
            "rounds": each.rounds,
            "choosing": choosing if each.by_proxies else None,
        }
        for each in plan.further[len(kept) :]
    ]
    if plain(added) == unused:
        return
    first = len(plan.rounds) - sum(len(each.rounds) for each in plan.further[len(kept) :])
    ChoiceLog(folder.path).remove_from(first)  # what was chosen for a budget that is replaced
    folder.continue_with(LARGER_BUDGETS, [*kept, *added])


def decisions_to_take_over(folder: Path, begun: BudgetPlan, plan: BudgetPlan) -> Tensor | None:
    """Returns the decisions behind SD labels, which a larger budget makes answers of a round.

    Args:
        folder: The run folder.
        begun: The plan that the run was started with.
        plan: The plan with which it continues.

    Returns:
        [n] int64, the classes of the training images in order; None if the run has no SD labels,
        or if these answers are stored already.

    Raises:
        ValueError: If the labels are damaged. The run can then be resumed with its old budget.
    """
    if plan.label_queries or not begun.label_queries:
        return None
    stored = ANSWERS.shards(folder)
    if all(plan.held_out + start in stored for start in shard_sizes(begun.label_queries)):
        return None
    return load_labels(folder / LABELS_FOLDER).decision


def check_choosing(
    stored: StoredBudgets,
    out: Path,
    begun: BudgetPlan,
    choosing: Mapping[str, Any] | None,
    chosen: Callable[[int, int], bool],
) -> None:
    """Checks that proxies go on to choose images as they did before a stop.

    Args:
        stored: The budgets of the run.
        out: Its folder.
        begun: The plan that it was started with.
        choosing: As for `add_larger_budget`, now.
        chosen: Returns whether the images of all rounds from one to before another are chosen.

    Raises:
        ValueError: If the proxies depend on other settings.
    """
    stop = len(begun.rounds) or 1  # the decisions behind SD labels become a round
    for was, further in zip(stored.choosing, stored.further, strict=True):
        first, stop = stop, stop + len(further.rounds)
        if was is None:
            continue
        stored_choosing = {"settings": {"choosing": was}}
        found = differences(stored_choosing, {"settings": {"choosing": choosing}})
        if found and not chosen(first, stop):
            text = describe_differences(found, ANSWERS)
            raise InputError(f"{out}: holds a different run: {text}")
