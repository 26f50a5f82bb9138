"""Sort pictures into folders of your own words (zero-shot), through the HTTP service, in coroutines.

    pip install .
    export WORKER_TOKEN=…        # or EMBEDDING_HMAC_SECRET, and secret= instead of token=
    python examples/http_service.py http://127.0.0.1:8000 'a circle,a square,a star' photos/*.jpg

A service that is open to all asks for no token.
"""

from __future__ import annotations

import asyncio
import os
import sys

from embedding.client import AsyncHttpClient, ClientError


TEMPLATE = "a picture of {}"  # CLIP was trained on captions, and knows those better than bare words


async def main(url: str, labels: list[str], pictures: list[str]) -> None:
    """Print the label that fits each of *pictures* best, and how sure the model is."""
    async with AsyncHttpClient(url, token=os.environ.get("WORKER_TOKEN"), concurrency=16) as client:
        prompts = [TEMPLATE.format(label) for label in labels]
        texts, images = await asyncio.gather(client.embed_texts(prompts), client.embed_images(pictures))
    logits = 100 * images.vectors @ texts.vectors.T  # (pictures, labels); CLIP's own temperature
    for picture, row in zip(pictures, logits, strict=True):
        shares = [2.718281828 ** (value - row.max()) for value in row]
        print(f"{labels[row.argmax()]} ({max(shares) / sum(shares):.0%}): {picture}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        print("usage: http_service.py URL 'A WORD,ANOTHER' PICTURE...", file=sys.stderr)
        sys.exit(2)
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2].split(","), sys.argv[3:]))
    except (ClientError, ValueError) as fault:  # ValueError: the URL or the token cannot be one
        sys.exit(f"error: {fault}")
    except KeyboardInterrupt:
        sys.exit(130)
