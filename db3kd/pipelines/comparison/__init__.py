"""`compare`: students of several strategies at the same budget, in one table."""
