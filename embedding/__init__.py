"""CLIP embeddings for images and texts, as a RunPod worker, an HTTP service and a client."""

__version__ = "0.1.0"
