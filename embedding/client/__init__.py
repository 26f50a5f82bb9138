"""The caller's side: images and texts to numpy vectors, by RunPod's queue or over HTTP, without torch.

    from embedding.client import ServerlessClient

    with ServerlessClient(endpoint_id, api_key, secret=…) as client:
        pictures = client.embed_images(["one.jpg", "two.png"]).vectors    # (2, dim) float32, of length 1
        query = client.embed_text("a red circle")                         # (dim,)
        print(pictures @ query)                                           # cosines

HttpClient reaches the always-on service, and AsyncServerlessClient and AsyncHttpClient are for coroutines;
all have the same methods. `client_from_env` makes the one that the environment describes.
"""

from embedding.client.clients import AsyncClient, AsyncHttpClient, AsyncServerlessClient
from embedding.client.embeddings import Embeddings
from embedding.client.environment import async_client_from_env, client_from_env
from embedding.client.errors import (
    BadAnswer,
    ClientError,
    Closed,
    IdentityWarning,
    ItemError,
    ItemsFailed,
    JobFailed,
    ModelChanged,
    NotConfigured,
    Refused,
    Unreachable,
)
from embedding.client.plain import Client, HttpClient, ServerlessClient


__all__ = [
    "AsyncClient",
    "AsyncHttpClient",
    "AsyncServerlessClient",
    "BadAnswer",
    "Client",
    "ClientError",
    "Closed",
    "Embeddings",
    "HttpClient",
    "IdentityWarning",
    "ItemError",
    "ItemsFailed",
    "JobFailed",
    "ModelChanged",
    "NotConfigured",
    "Refused",
    "ServerlessClient",
    "Unreachable",
    "async_client_from_env",
    "client_from_env",
]
