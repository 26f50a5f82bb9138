"""Pictures and texts found by a sentence or a picture, among vectors in a file; without torch."""
