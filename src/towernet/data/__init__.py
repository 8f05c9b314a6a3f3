"""Images in: sources, the sample table, splits, the one decoder, the cache. No torch."""
