"""Plans: how a query budget is divided over the questions that are worth asking."""

from db3kd.planning.budget_plan import (
    STRATEGIES,
    STRATEGY_TEXTS,
    BudgetPlan,
    Stage,
    Strategy,
    plan_budget,
)

__all__ = ["STRATEGIES", "STRATEGY_TEXTS", "BudgetPlan", "Stage", "Strategy", "plan_budget"]
