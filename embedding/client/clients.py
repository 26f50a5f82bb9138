"""The clients for coroutines: one interface over RunPod's queue and over HTTP.

    async with AsyncServerlessClient(endpoint_id, api_key, secret=…) as client:
        embeddings = await client.embed_texts(["a red circle", "a blue square"])

Every embedding call returns vectors in the order of its arguments. `on_error="raise"` (the default) raises
ItemsFailed, which holds the good vectors, when any item failed; `"collect"` returns them with their errors.
`plain` has the same for code without coroutines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args

from embedding.client.arguments import credential, endpoint, hint_for, require_many, signing_key, web_url
from embedding.client.calls import Call, Options
from embedding.client.embeddings import Collected
from embedding.client.errors import BadAnswer, ClientError
from embedding.client.identity import IdentityCheck
from embedding.client.inputs import image_item, mixed_item, text_item


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    import numpy as np
    import numpy.typing as npt

    from embedding.client.calls import Transport
    from embedding.client.embeddings import Embeddings
    from embedding.client.inputs import ImageInput, WireItem
    from embedding.contract.fields import EmbedDtype

    Vector = npt.NDArray[np.float32]

OnError = Literal["raise", "collect"]

BATCH_SIZE: Final = 64  # MAX_BATCH_SIZE of a worker that is not told otherwise
CONCURRENCY: Final = 8
ATTEMPTS: Final = 6  # over 8 seconds, 16 at most
SERVERLESS_TIMEOUT_S: Final = 600.0  # a cold start and a backlog included
HTTP_TIMEOUT_S: Final = 60.0
SILENCE_S: Final = 30.0  # RunPod answers within the two seconds that it is asked to wait
API_URL: Final = "https://api.runpod.ai/v2"


class AsyncClient:
    """Embeds over a transport; many tasks may use it at once. Close it by `async with` or `aclose`."""

    def __init__(
        self,
        transport: Transport,
        *,
        max_batch_size: int = BATCH_SIZE,
        concurrency: int = CONCURRENCY,
        identity: IdentityCheck | None = None,
    ) -> None:
        for name, value in {"max_batch_size": max_batch_size, "concurrency": concurrency}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be 1 or more")
        self._transport = transport
        self._max_batch_size = max_batch_size
        self._concurrency = concurrency
        self._identity = identity or IdentityCheck()

    async def embed_image(
        self, image: ImageInput, *, normalize: bool = True, dtype: EmbedDtype = "float32"
    ) -> Vector:
        """Return the vector (dim,) float32 of *image*; see `embed_images`."""
        return (await self.embed_images([image], normalize=normalize, dtype=dtype)).vectors[0]

    async def embed_text(
        self, text: str, *, normalize: bool = True, truncate: bool = True, dtype: EmbedDtype = "float32"
    ) -> Vector:
        """Return the vector (dim,) float32 of *text*; see `embed_texts`."""
        found = await self.embed_texts([text], normalize=normalize, truncate=truncate, dtype=dtype)
        return found.vectors[0]

    async def embed_images(
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
        return await self._embed(images, image_item, on_error, Options(normalize=normalize, dtype=dtype))

    async def embed_texts(
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
        return await self._embed(texts, text_item, on_error, Options(normalize, truncate, dtype))

    async def embed_batch(
        self,
        items: Iterable[Mapping[str, Any]],
        *,
        on_error: OnError = "raise",
        normalize: bool = True,
        truncate: bool = True,
        dtype: EmbedDtype = "float32",
    ) -> Embeddings:
        """Return the vectors (n, dim) of *items*, `{"image": …}` and `{"text": …}` mixed freely."""
        return await self._embed(items, mixed_item, on_error, Options(normalize, truncate, dtype))

    async def health(self) -> dict[str, Any]:
        """Return what a worker says of itself: model, fingerprint, versions, identity, counters.

        Where a commit or a digest is expected, `identityMatches` (True, False, or None where it cannot be
        told) and `identityMismatchReason` say how that stands. Raises a ClientError.
        """
        answer = await self._transport.health()
        if not isinstance(answer, dict):
            raise BadAnswer("the answer is no report of a worker's health")
        return {**answer, **self._identity.match(answer).as_json()} if self._identity.is_asked else answer

    async def aclose(self) -> None:
        """Close all connections; the client cannot be used after that."""
        await self._transport.aclose()

    async def _embed(
        self,
        sources: Iterable[Any],
        make_item: Callable[[Any], WireItem],
        on_error: OnError,
        options: Options,
    ) -> Embeddings:
        if on_error not in get_args(OnError):
            raise ValueError(f"on_error must be {' or '.join(get_args(OnError))}")
        require_many(sources)
        collected = Collected()
        call = Call(self._transport, options, collected, self._max_batch_size, self._concurrency)
        try:
            await call.embed(sources, make_item)
        except ClientError as failure:
            failure.partial = collected.whole()
            raise
        finally:
            self._max_batch_size = min(self._max_batch_size, call.max_items)
        result = collected.whole()
        if result.fingerprint is not None:
            await self._identity.once(self._transport)
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
        timeout_s: float = SERVERLESS_TIMEOUT_S,
        is_long: bool = False,
        max_batch_size: int = BATCH_SIZE,
        concurrency: int = CONCURRENCY,
        attempts: int = ATTEMPTS,
        expected_commit: str | None = None,
        expected_digest: str | None = None,
        api_url: str = API_URL,
    ) -> None:
        """Reach *endpoint_id* by *api_key*; sign with *secret*, the worker's EMBEDDING_HMAC_SECRET.

        *timeout_s* bounds one job with its wait, retries and a cold start. *is_long*: jobs that may take
        minutes, so that results are kept for half an hour instead of a minute. *max_batch_size*: items in a
        job. *concurrency*: jobs of one call in flight. *attempts*: how often a request is sent in all.
        *expected_commit*, *expected_digest*: an IdentityWarning tells if another worker answers.
        Raises ValueError for an id, key or secret that cannot be one, and where the key would go by plain
        http to another machine; TypeError for what is no str.
        """
        from embedding.client.serverless import ServerlessTransport  # noqa: PLC0415  httpx at the first need
        from embedding.client.wire import Wire  # noqa: PLC0415

        bearer = credential(api_key, "api_key")
        wire = Wire(bearer, attempts=attempts, connections=concurrency, silence_s=SILENCE_S)
        transport = ServerlessTransport(
            wire,
            f"{web_url(api_url, 'api_url', bearer=bearer)}/{endpoint(endpoint_id)}",
            signing_key(secret),
            timeout_s=timeout_s,
            is_long=is_long,
            hint=hint_for(secret=secret),
        )
        identity = IdentityCheck(expected_commit, expected_digest)
        super().__init__(transport, max_batch_size=max_batch_size, concurrency=concurrency, identity=identity)


class AsyncHttpClient(AsyncClient):
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
        """Reach the service at *base_url*; sign with *secret*, or send *token*, or neither if it is open.

        *timeout_s* bounds one request with its retries. *concurrency*: requests of one call in flight. All
        else is as in AsyncServerlessClient. Raises ValueError for a URL, token or secret that cannot be one,
        and for a token that would go by plain http to another machine; TypeError for what is no str.
        """
        from embedding.client.http import HttpTransport  # noqa: PLC0415  httpx at the first need
        from embedding.client.wire import Wire  # noqa: PLC0415

        bearer = None if token is None else credential(token, "token")
        wire = Wire(bearer, attempts=attempts, connections=concurrency)
        url, hint = web_url(base_url, "base_url", bearer=bearer), hint_for(secret=secret, token=token)
        transport = HttpTransport(wire, url, signing_key(secret), timeout_s=timeout_s, hint=hint)
        identity = IdentityCheck(expected_commit, expected_digest)
        super().__init__(transport, max_batch_size=max_batch_size, concurrency=concurrency, identity=identity)
