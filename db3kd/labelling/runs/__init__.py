"""Label runs in a folder: their plan, identity, surrogate, shards and totals."""
