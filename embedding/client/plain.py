"""The clients for plain code, scripts and notebooks: the same as the asynchronous ones, waited for.

    with ServerlessClient(endpoint_id, api_key, secret=…) as client:
        embeddings = client.embed_images(["one.jpg", "two.png"])

A client may be used by several threads at once, and in a process that was forked after it was made. One that
is dropped without `close` ends its thread and connections when it is collected.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Self

from embedding.client.clients import (
    API_URL,
    ATTEMPTS,
    BATCH_SIZE,
    CONCURRENCY,
    HTTP_TIMEOUT_S,
    SERVERLESS_TIMEOUT_S,
    AsyncClient,
    AsyncHttpClient,
    AsyncServerlessClient,
    OnError,
)
from embedding.client.portal import Portal


if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from embedding.client.clients import Vector
    from embedding.client.embeddings import Embeddings
    from embedding.client.inputs import ImageInput
    from embedding.contract.fields import EmbedDtype


class Client:
    """An AsyncClient for plain code. Close it by `with` or `close`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._portal = Portal()
        # At exit the thread ends with the process, and closing might wait for a platform that is gone.
        weakref.finalize(self, self._portal.abandon, client.aclose).atexit = False

    def embed_image(
        self, image: ImageInput, *, normalize: bool = True, dtype: EmbedDtype = "float32"
    ) -> Vector:
        """Return the vector (dim,) float32 of *image*; see `embed_images`."""
        return self._portal.run(self._client.embed_image(image, normalize=normalize, dtype=dtype))

    def embed_text(
        self, text: str, *, normalize: bool = True, truncate: bool = True, dtype: EmbedDtype = "float32"
    ) -> Vector:
        """Return the vector (dim,) float32 of *text*; see `embed_texts`."""
        return self._portal.run(
            self._client.embed_text(text, normalize=normalize, truncate=truncate, dtype=dtype)
        )

    def embed_images(
        self,
        images: Iterable[ImageInput],
        *,
        on_error: OnError = "raise",
        normalize: bool = True,
        dtype: EmbedDtype = "float32",
    ) -> Embeddings:
        """Return the vectors (n, dim) of *images*: paths, URLs, bytes, Pillow images or arrays of uint8.

        *images* may be a generator: few of them are held at a time. *normalize*: to length 1. *dtype*: what
        travels; "float16" takes half the bytes. The vectors are float32 in either case.
        Raises a ClientError; TypeError or ValueError for an argument that is no image.
        """
        return self._portal.run(
            self._client.embed_images(images, on_error=on_error, normalize=normalize, dtype=dtype)
        )

    def embed_texts(
        self,
        texts: Iterable[str],
        *,
        on_error: OnError = "raise",
        normalize: bool = True,
        truncate: bool = True,
        dtype: EmbedDtype = "float32",
    ) -> Embeddings:
        """Return the vectors (n, dim) of *texts*.

        *truncate*: cut what the model cannot read, 77 tokens for CLIP; else such a text fails as
        TEXT_TOO_LONG. All else is as in `embed_images`.
        """
        return self._portal.run(
            self._client.embed_texts(
                texts, on_error=on_error, normalize=normalize, truncate=truncate, dtype=dtype
            )
        )

    def embed_batch(
        self,
        items: Iterable[Mapping[str, Any]],
        *,
        on_error: OnError = "raise",
        normalize: bool = True,
        truncate: bool = True,
        dtype: EmbedDtype = "float32",
    ) -> Embeddings:
        """Return the vectors (n, dim) of *items*, `{"image": …}` and `{"text": …}` mixed freely."""
        return self._portal.run(
            self._client.embed_batch(
                items, on_error=on_error, normalize=normalize, truncate=truncate, dtype=dtype
            )
        )

    def health(self) -> dict[str, Any]:
        """Return what a worker says of itself; see `AsyncClient.health`."""
        return self._portal.run(self._client.health())

    def close(self) -> None:
        """Cancel what other threads still wait for, and close all connections."""
        self._portal.close(self._client.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ServerlessClient(Client):
    """Embeds through a queue endpoint of RunPod."""

    def __init__(
        self,
        endpoint_id: str,
        api_key: str,
        *,
        secret: str | None = None,
        timeout_s: float = SERVERLESS_TIMEOUT_S,
        is_long: bool = False,
        max_batch_size: int = BATCH_SIZE,
        concurrency: int = CONCURRENCY,
        attempts: int = ATTEMPTS,
        expected_commit: str | None = None,
        expected_digest: str | None = None,
        api_url: str = API_URL,
    ) -> None:
        super().__init__(
            AsyncServerlessClient(
                endpoint_id,
                api_key,
                secret=secret,
                timeout_s=timeout_s,
                is_long=is_long,
                max_batch_size=max_batch_size,
                concurrency=concurrency,
                attempts=attempts,
                expected_commit=expected_commit,
                expected_digest=expected_digest,
                api_url=api_url,
            )
        )

    __init__.__doc__ = AsyncServerlessClient.__init__.__doc__


class HttpClient(Client):
    """Embeds through the always-on service."""

    def __init__(
        self,
        base_url: str,
        *,
        secret: str | None = None,
        token: str | None = None,
        timeout_s: float = HTTP_TIMEOUT_S,
        max_batch_size: int = BATCH_SIZE,
        concurrency: int = CONCURRENCY,
        attempts: int = ATTEMPTS,
        expected_commit: str | None = None,
        expected_digest: str | None = None,
    ) -> None:
        super().__init__(
            AsyncHttpClient(
                base_url,
                secret=secret,
                token=token,
                timeout_s=timeout_s,
                max_batch_size=max_batch_size,
                concurrency=concurrency,
                attempts=attempts,
                expected_commit=expected_commit,
                expected_digest=expected_digest,
            )
        )

    __init__.__doc__ = AsyncHttpClient.__init__.__doc__
