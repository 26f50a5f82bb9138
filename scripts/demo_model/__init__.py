"""The demo model: a tiny CLIP trained on pictures that this package draws."""
