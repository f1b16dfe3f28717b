"""What students learn from labels, and what the labels are worth."""
