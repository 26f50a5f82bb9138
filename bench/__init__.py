"""How fast the worker is, as ratios to other ways of doing the same, measured in one run on one machine."""
