"""From an image to a serving endpoint and back, by `python -m deploy`, over RunPod's API. No torch."""
