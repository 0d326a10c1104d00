"""Recipe to typed recipe, shards to pieces, both to tasks with a reason to run or to reuse. Runs nothing."""
