"""Atomic file writes, output checks, prefetching, and the cache of decoded videos."""
