"""Worker processes that label the chunks of a run."""
