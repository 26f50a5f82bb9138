"""What is looked for: sentences and pictures, embedded by the worker that made the file, or refused.

Vectors of different models have nothing to do with each other, and their cosines look like any others. So a
worker of another fingerprint than the file's is refused, and there is no way round it.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedding.client.inputs import is_web, text_item
from embedding.client.search.found import plain
from embedding.client.search.store import Unsearchable


if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from embedding.client.plain import Client
    from embedding.client.search.store import Origin, Store


@dataclass(frozen=True, slots=True)
class Query:
    """A text, or a picture by its path or URL."""

    kind: str  # "text" or "image"
    value: str

    @property
    def item(self) -> dict[str, Any]:
        """What `embed_batch` takes."""
        return {self.kind: self.value}


def queries_of(texts: Sequence[str], images: Sequence[str], file: str | None) -> list[Query]:
    """Return all queries: *texts*, *images*, and each line of *file* that is not blank; - is stdin.

    Raises Unsearchable if there is none, one is blank, or a file cannot be read.
    """
    lines = [] if file is None else _lines(file)
    for text in texts:
        if not text.strip():
            raise Unsearchable("a query is blank; quote a sentence for the shell: 'a red circle'")
        _require_unicode(text)
    for image in images:
        _require_readable(image)
    queries = [Query("text", text) for text in [*texts, *lines]] + [Query("image", image) for image in images]
    if not queries:
        raise Unsearchable("no query is given: a sentence in quotes, --image FILE, or --queries FILE")
    return queries


def embed(queries: Sequence[Query], client: Client, store: Store, origin: Origin) -> npt.NDArray[np.float32]:
    """Return the vectors (n, dim) of *queries*, comparable to those of *store*, which *origin* made.

    Raises Unsearchable if a worker of another model answers; a ClientError if a query cannot be embedded.
    """
    embedded = client.embed_batch([query.item for query in queries], on_error="collect")
    for error in filter(None, embedded.errors):
        raise Unsearchable(f"{queries[error.index].value}: {error.code}: {error.message}")
    if embedded.fingerprint != origin.fingerprint:
        raise Unsearchable(
            f"the vectors were made by {_named(origin.fingerprint, origin.model)}, and the worker is "
            f"{_named(embedded.fingerprint, embedded.model)}: cosines between them mean nothing; "
            "ask a worker that serves the file's model, or embed the file again"
        )
    if embedded.vectors.shape[1] != store.dim:
        raise Unsearchable(
            f"the file's vectors have {store.dim} numbers, the worker's {embedded.vectors.shape[1]}"
        )
    return embedded.vectors


def _require_unicode(text: str) -> None:
    try:
        text_item(text)
    except ValueError as fault:
        raise Unsearchable(f"{plain(text)}: {fault}") from None


def _require_readable(image: str) -> None:
    if is_web(image) or image[: len("data:")].lower() == "data:":
        return
    try:
        with Path(image).open("rb"):
            pass
    except (OSError, ValueError) as fault:
        told = fault.strerror if isinstance(fault, OSError) else fault
        raise Unsearchable(f"--image {image} cannot be read: {told}") from None


def _named(fingerprint: str | None, model: str | None) -> str:
    return f"fingerprint {fingerprint} ({model})" if model else f"fingerprint {fingerprint}"


def _lines(name: str) -> list[str]:
    if name == "-" and sys.stdin is None:
        raise Unsearchable("--queries - cannot be read: stdin is closed")
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        told = fault.strerror if isinstance(fault, OSError) else "it is not UTF-8"
        raise Unsearchable(f"--queries {name} cannot be read: {told}") from None
    lines = io.StringIO(text, newline=None)
    return [line.strip() for line in lines if line.strip()]
