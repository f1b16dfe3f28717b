"""What runs cost: time, memory, journals, crashes, workers and served teachers."""
