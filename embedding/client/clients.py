"""The clients: one interface over RunPod's queue and over HTTP, each for coroutines and for plain code.

    async with AsyncServerlessClient(endpoint_id, api_key, secret=…) as client: await client.embed_texts(…)
    with HttpClient(base_url, token=…) as client: client.embed_images(…)

Every embedding call returns vectors in the order of its arguments. `on_error="raise"` (the default) raises
ItemsFailed, which holds the good vectors, when any item failed; `"collect"` returns them with their errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Self

from embedding.client.calls import Call, Options
from embedding.client.embeddings import Collected
from embedding.client.http import HttpTransport
from embedding.client.inputs import image_item, mixed_item, text_item
from embedding.client.portal import Portal
from embedding.client.serverless import API_URL, ServerlessTransport
from embedding.client.wire import Wire
from embedding.contract.keys import Keyring


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    import numpy as np
    import numpy.typing as npt

    from embedding.client.calls import Transport
    from embedding.client.embeddings import Embeddings
    from embedding.client.inputs import ImageInput, WireItem
    from embedding.contract.keys import Key

    OnError = Literal["raise", "collect"]
    Vector = npt.NDArray[np.float32]

MAX_BATCH_SIZE: Final = 64  # a worker's, unless it is told otherwise
CONCURRENCY: Final = 8
ATTEMPTS: Final = 5


class AsyncClient:
    """Embeds over a transport; may be used by many tasks of one event loop at once."""

    def __init__(self, transport: Transport, *, max_batch_size: int, concurrency: int) -> None:
        self._transport = transport
        self._max_batch_size = max_batch_size
        self._concurrency = concurrency

    async def embed_image(self, image: ImageInput, **options: Any) -> Vector:
        """Return the vector (dim,) float32 of *image*; *options* as in `embed_images`."""
        return (await self.embed_images([image], **options)).vectors[0]

    async def embed_text(self, text: str, **options: Any) -> Vector:
        """Return the vector (dim,) float32 of *text*; *options* as in `embed_texts`."""
        return (await self.embed_texts([text], **options)).vectors[0]

    async def embed_images(
        self, images: Sequence[ImageInput], *, on_error: OnError = "raise", **options: Any
    ) -> Embeddings:
        """Return the vectors (n, dim) of *images*: paths, URLs, bytes, Pillow images or arrays of uint8.

        *options*: normalize (True), dtype: "float32", or "float16" for half the bytes on the wire.
        Raises a ClientError; TypeError or ValueError for an argument that is no image.
        """
        return await self._embed(images, image_item, on_error, Options(**options))

    async def embed_texts(
        self, texts: Sequence[str], *, on_error: OnError = "raise", **options: Any
    ) -> Embeddings:
        """Return the vectors (n, dim) of *texts*.

        *options*: those of `embed_images`, and truncate (True): cut what the model cannot read.
        """
        return await self._embed(texts, text_item, on_error, Options(**options))

    async def embed_batch(
        self, items: Sequence[Mapping[str, Any]], *, on_error: OnError = "raise", **options: Any
    ) -> Embeddings:
        """Return the vectors (n, dim) of *items*, `{"image": …}` and `{"text": …}` mixed freely."""
        return await self._embed(items, mixed_item, on_error, Options(**options))

    async def health(self) -> dict[str, Any]:
        """Return what a worker says of itself: model, fingerprint, versions, identity, counters."""
        return await self._transport.health()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def _embed(
        self,
        sources: Sequence[Any],
        make_item: Callable[[Any], WireItem],
        on_error: OnError,
        options: Options,
    ) -> Embeddings:
        if isinstance(sources, str | bytes):
            raise TypeError("a list is needed; for one image or text there are embed_image and embed_text")
        collected = Collected(len(sources))
        call = Call(self._transport, options, collected, self._max_batch_size, self._concurrency)
        await call.embed(sources, make_item)
        result = collected.whole()
        return result if on_error == "collect" else result.raise_for_errors()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class AsyncServerlessClient(AsyncClient):
    """Embeds through a queue endpoint of RunPod."""

    def __init__(
        self,
        endpoint_id: str,
        api_key: str,
        *,
        secret: str | None = None,
        timeout_s: float = 600,
        is_long: bool = False,
        max_batch_size: int = MAX_BATCH_SIZE,
        concurrency: int = CONCURRENCY,
        api_url: str = API_URL,
    ) -> None:
        """Reach *endpoint_id* by *api_key*; sign with *secret*, the worker's or `kid:secret`.

        *timeout_s* bounds one job with its wait, retries and a cold start. *is_long*: jobs that may take
        minutes, so that results are kept for half an hour instead of a minute. *concurrency*: jobs in flight.
        Raises ValueError for a secret that cannot be one.
        """
        wire = Wire({"Authorization": f"Bearer {api_key}"}, attempts=ATTEMPTS, connections=concurrency)
        url = f"{api_url}/{endpoint_id}"
        transport = ServerlessTransport(wire, url, _key(secret), timeout_s=timeout_s, is_long=is_long)
        super().__init__(transport, max_batch_size=max_batch_size, concurrency=concurrency)


class AsyncHttpClient(AsyncClient):
    """Embeds through the always-on service."""

    def __init__(
        self,
        base_url: str,
        *,
        secret: str | None = None,
        token: str | None = None,
        timeout_s: float = 60,
        max_batch_size: int = MAX_BATCH_SIZE,
        concurrency: int = CONCURRENCY,
    ) -> None:
        """Reach the service at *base_url*; sign with *secret*, or send *token*, or neither if it is open.

        *timeout_s* bounds one request with its retries. *concurrency*: requests in flight.
        Raises ValueError for a secret that cannot be one.
        """
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        wire = Wire(headers, attempts=ATTEMPTS, connections=concurrency)
        transport = HttpTransport(wire, base_url, _key(secret), timeout_s=timeout_s)
        super().__init__(transport, max_batch_size=max_batch_size, concurrency=concurrency)


class Client:
    """An AsyncClient for plain code, and from several threads at once."""

    def __init__(self, client: AsyncClient, portal: Portal) -> None:
        self._client, self._portal = client, portal

    def embed_image(self, image: ImageInput, **options: Any) -> Vector:
        """Return the vector (dim,) float32 of *image*; see `AsyncClient.embed_image`."""
        return self._portal.run(self._client.embed_image(image, **options))

    def embed_text(self, text: str, **options: Any) -> Vector:
        """Return the vector (dim,) float32 of *text*; see `AsyncClient.embed_text`."""
        return self._portal.run(self._client.embed_text(text, **options))

    def embed_images(self, images: Sequence[ImageInput], **options: Any) -> Embeddings:
        """Return the vectors (n, dim) of *images*; see `AsyncClient.embed_images`."""
        return self._portal.run(self._client.embed_images(images, **options))

    def embed_texts(self, texts: Sequence[str], **options: Any) -> Embeddings:
        """Return the vectors (n, dim) of *texts*; see `AsyncClient.embed_texts`."""
        return self._portal.run(self._client.embed_texts(texts, **options))

    def embed_batch(self, items: Sequence[Mapping[str, Any]], **options: Any) -> Embeddings:
        """Return the vectors (n, dim) of mixed *items*; see `AsyncClient.embed_batch`."""
        return self._portal.run(self._client.embed_batch(items, **options))

    def health(self) -> dict[str, Any]:
        """Return what a worker says of itself."""
        return self._portal.run(self._client.health())

    def close(self) -> None:
        """Close all connections and end the thread."""
        self._portal.run(self._client.aclose())
        self._portal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ServerlessClient(Client):
    """Embeds through a queue endpoint of RunPod; see `AsyncServerlessClient` for the arguments."""

    def __init__(self, endpoint_id: str, api_key: str, **options: Any) -> None:
        super().__init__(AsyncServerlessClient(endpoint_id, api_key, **options), Portal())


class HttpClient(Client):
    """Embeds through the always-on service; see `AsyncHttpClient` for the arguments."""

    def __init__(self, base_url: str, **options: Any) -> None:
        super().__init__(AsyncHttpClient(base_url, **options), Portal())


def _key(secret: str | None) -> Key | None:
    return None if secret is None else Keyring.parse(secret).newest
