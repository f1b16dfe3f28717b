"""`run_zero_shot`: pseudo samples, their labels, students, and baselines."""
