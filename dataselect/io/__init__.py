"""Shards to batches and back, and the store that artifacts live in. Knows nothing of stages."""
