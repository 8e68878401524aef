"""Remote files: downloads, the cache, and run folders in buckets."""
