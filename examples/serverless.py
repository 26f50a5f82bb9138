"""Say which pictures a sentence describes best, through a queue endpoint of RunPod.

    pip install .
    export RUNPOD_ENDPOINT_ID=… RUNPOD_API_KEY=… EMBEDDING_HMAC_SECRET=…
    python examples/serverless.py 'a red circle' photos/*.jpg

The same code reaches an HTTP service with CLIP_INFERENCE_BACKEND=runpod_pod and CLIP_POD_BASE_URL.
"""

from __future__ import annotations

import sys

import numpy as np

from embedding.client import ClientError, client_from_env


def main(sentence: str, pictures: list[str]) -> None:
    """Print *pictures*, the one that fits *sentence* best first."""
    with client_from_env() as client:  # signs, retries, and cancels its jobs on Ctrl-C
        query = client.embed_text(sentence)  # (dim,) float32, of length 1
        embedded = client.embed_images(pictures, on_error="collect")  # cut into jobs, in the order given
    cosines = embedded.vectors @ query  # NaN where a picture failed
    for place in np.argsort(-cosines):
        error = embedded.errors[place]
        print(f"{pictures[place]}: {error.code}" if error else f"{cosines[place]:.3f} {pictures[place]}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        print("usage: serverless.py 'A SENTENCE' PICTURE...", file=sys.stderr)
        sys.exit(2)
    try:
        main(sys.argv[1], sys.argv[2:])
    except ClientError as fault:
        sys.exit(f"error: {fault}")
    except KeyboardInterrupt:
        sys.exit(130)
