"""How a search and a teacher meet: queries, budgets, the driver, concurrent searches."""

from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import UNANSWERED, Query, Search

__all__ = ["UNANSWERED", "Ledger", "Query", "Search", "run"]
