"""Plans how a query budget is spent, before the first query."""

from db3kd.planning.budget_plan import plan_budget
from db3kd.planning.comparison_plan import COMPARED, ComparisonPlan, plan_comparison
from db3kd.planning.larger_budget import plan_larger_budget
from db3kd.planning.plan import STRATEGIES, BudgetPlan, FurtherQueries, Stage, Strategy
from db3kd.planning.surrogate_plan import SurrogatePlan, plan_surrogate_training

__all__ = [
    "COMPARED",
    "STRATEGIES",
    "BudgetPlan",
    "ComparisonPlan",
    "FurtherQueries",
    "Stage",
    "Strategy",
    "SurrogatePlan",
    "plan_budget",
    "plan_comparison",
    "plan_larger_budget",
    "plan_surrogate_training",
]
