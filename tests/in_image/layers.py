"""The layers of an image as a table, and whether a registry has it under the digest that a push told.

    LAYERS | python3 -m tests.in_image.layers [PORT/v2/REPOSITORY DIGEST TAG...]
    buildah inspect ... | python3 -m tests.in_image.layers --of-buildah CACHE

LAYERS are lines of a size in bytes, a tab, and the step that made it; the second form writes them, because
buildah has no `history`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import urllib.request
from pathlib import Path


MANIFEST = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    if arguments[:1] == ["--of-buildah"]:
        print_buildah_layers(Path(arguments[1]) / "storage" / "overlay-layers" / "layers.json")
        return
    rows = [(int(size), step) for size, step in (line.rstrip("\n").split("\t", 1) for line in sys.stdin)]
    packed = packed_sizes(*arguments) if arguments else []
    print_table([row for row in rows if row[0]] if len(rows) != len(packed) else rows, packed)


def print_buildah_layers(store: Path) -> None:
    """Write the LAYERS of the image whose inspection stands on stdin; *store* knows their sizes."""
    image = json.load(sys.stdin)["OCIv1"]
    sizes = {layer.get("diff-digest"): layer.get("diff-size") for layer in json.loads(store.read_bytes())}
    steps = [step["created_by"] for step in image["history"] if not step.get("empty_layer")]
    for digest, step in zip(image["rootfs"]["diff_ids"], steps, strict=True):
        print(f"{sizes[digest]}\t{' '.join(step.split())}")


def packed_sizes(place: str, digest: str, *tags: str) -> list[int]:
    """Return the bytes of each layer as pulled. Every one of *tags* must stand for *digest*."""
    for tag in tags:
        url = f"http://127.0.0.1:{place}/manifests/{tag}"
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": MANIFEST})) as answer:
            manifest = answer.read()
        assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" == digest, f"{tag} is not {digest}"
    return [layer["size"] for layer in json.loads(manifest)["layers"]]


def print_table(rows: list[tuple[int, str]], packed: list[int]) -> None:
    """Print a line for each layer of a megabyte or more, and the sum."""
    if len(packed) != len(rows):
        print(f"all layers as pulled: {sum(packed) / 1e6:.1f} MB" if packed else "as pulled: not known")
        packed = [0] * len(rows)
    print("      MB  as pulled  made by")
    for (size, step), pulled in zip(rows, packed, strict=True):
        if size >= 1e6:
            print(f"{size / 1e6:8.1f}  {pulled / 1e6:9.1f}  {step[:100]}")
    print(f"{sum(size for size, _ in rows) / 1e6:8.1f}  {sum(packed) / 1e6:9.1f}  all {len(rows)} layers")


if __name__ == "__main__":
    main(sys.argv[1:])
