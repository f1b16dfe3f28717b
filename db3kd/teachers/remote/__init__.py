"""Teachers behind a network."""
