"""Remote files: downloads, the cache folder, and run folders in buckets."""
