"""The options of the commands: dataclasses that several commands share, and their types."""
