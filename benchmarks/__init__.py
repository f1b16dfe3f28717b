"""What db3kd is measured by. Each module is one command; docs in its own docstring."""
