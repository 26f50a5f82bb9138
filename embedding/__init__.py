"""CLIP embeddings for images and texts, as a RunPod worker."""

__version__ = "0.1.0"
