"""Find pictures of a folder that show nearly the same, and plot how near each is to its nearest.

    pip install . -r examples/requirements.txt
    python examples/near_duplicates.py photos/ near_duplicates.png

Copies, crops and re-encodings form a hill at the plot's right end: the threshold belongs left of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from embedding.client import ClientError, client_from_env


SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif"}
THRESHOLD = 0.95
ROWS = 4096  # of the matrix of all cosines, at a time


def main(folder: str, plot: str) -> None:
    """Print every pair above the threshold, nearest first, and draw *plot*."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        sys.exit(f"error: there are no pictures in {folder}")
    with client_from_env() as client:
        vectors = client.embed_images(paths).vectors
    nearest, pairs = np.empty(len(paths)), []
    for first in range(0, len(paths), ROWS):
        cosines = vectors[first : first + ROWS] @ vectors.T
        np.fill_diagonal(cosines[:, first:], -1)  # a picture is no copy of itself
        nearest[first : first + ROWS] = cosines.max(axis=1)
        for row, column in np.argwhere(cosines > THRESHOLD):
            if first + row < column:
                pairs.append((float(cosines[row, column]), paths[first + row], paths[column]))
    for cosine, one, other in sorted(pairs, reverse=True):
        print(f"{cosine:.3f} {one} {other}")
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.hist(nearest, bins=50)
    axes.axvline(THRESHOLD, color="tab:red", label=f"threshold {THRESHOLD}")
    axes.set(xlabel="cosine to the nearest other picture", ylabel="pictures", yscale="log")
    axes.legend()
    figure.savefig(plot, dpi=150)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print("usage: near_duplicates.py FOLDER PLOT.png", file=sys.stderr)
        sys.exit(2)
    try:
        main(*sys.argv[1:])
    except ClientError as fault:
        sys.exit(f"error: {fault}")
    except KeyboardInterrupt:
        sys.exit(130)
