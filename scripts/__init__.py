"""Programs for this repository's own upkeep; the worker runs none of them."""
