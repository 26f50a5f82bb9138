"""Put a folder of pictures into LanceDB, which runs inside this process, and search it by a sentence.

    pip install . -r examples/requirements.txt
    python examples/bulk_to_lancedb.py photos/ photos.lance 'a red circle'

A table is named for the fingerprint of the model that made it: the vectors of two models never mix. Run it
again after adding pictures, and only those are embedded.
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import lancedb
import pyarrow as pa

from embedding.client import ClientError, client_from_env


SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif"}
ROWS = 1000  # embedded, written and forgotten at a time


def main(folder: str, database: str, sentence: str) -> None:
    """Add the pictures of *folder* to *database*, then print those nearest to *sentence*."""
    pictures = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not pictures:
        sys.exit(f"error: there are no pictures in {folder}")
    with client_from_env() as client:
        query = client.embed_texts([sentence])
        vector = pa.list_(pa.float32(), query.vectors.shape[1])
        schema = pa.schema([("path", pa.string()), ("vector", vector)])
        table = lancedb.connect(database).create_table(
            f"pictures_{query.fingerprint}", schema=schema, exist_ok=True
        )
        known = set(table.search().select(["path"]).limit(10**9).to_arrow()["path"].to_pylist())
        paths = (path for path in pictures if str(path) not in known)
        while some := list(islice(paths, ROWS)):
            embedded = client.embed_images(some, on_error="collect", dtype="float16")
            made = zip(some, embedded.vectors, embedded.errors, strict=True)
            if rows := [{"path": str(path), "vector": vector} for path, vector, error in made if not error]:
                table.add(rows)
    for hit in table.search(query.vectors[0]).distance_type("cosine").limit(5).to_list():
        print(f"{1 - hit['_distance']:.3f} {hit['path']}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        print("usage: bulk_to_lancedb.py FOLDER DATABASE 'A SENTENCE'", file=sys.stderr)
        sys.exit(2)
    try:
        main(*sys.argv[1:])
    except ClientError as fault:
        sys.exit(f"error: {fault}")
    except KeyboardInterrupt:
        sys.exit(130)
