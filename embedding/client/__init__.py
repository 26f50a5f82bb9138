"""The caller's side: images and texts to numpy vectors, by RunPod's queue or over HTTP, without torch."""

from embedding.client.clients import AsyncHttpClient, AsyncServerlessClient, HttpClient, ServerlessClient
from embedding.client.embeddings import Embeddings
from embedding.client.errors import (
    BadAnswer,
    ClientError,
    ItemError,
    ItemsFailed,
    JobFailed,
    ModelChanged,
    Refused,
    Unreachable,
)


__all__ = [
    "AsyncHttpClient",
    "AsyncServerlessClient",
    "BadAnswer",
    "ClientError",
    "Embeddings",
    "HttpClient",
    "ItemError",
    "ItemsFailed",
    "JobFailed",
    "ModelChanged",
    "Refused",
    "ServerlessClient",
    "Unreachable",
]
