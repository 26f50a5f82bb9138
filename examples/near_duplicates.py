"""Find pictures of a folder that show nearly the same, and plot how near each is to its nearest.

    pip install -r examples/requirements.txt
    python examples/near_duplicates.py photos/ near_duplicates.png

Start from 0.95 and look at the plot: copies, crops and re-encodings form a hill at its right end. The
threshold belongs between that hill and the rest.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from embedding.client import ClientError, client_from_env


THRESHOLD = 0.95
ROWS = 4096  # of the matrix of all cosines, at a time


def main(folder: str, plot: str) -> None:
    """Print every pair above the threshold, nearest first, and draw *plot*."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix in {".jpg", ".png", ".webp"})
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
    try:
        main(sys.argv[1], sys.argv[2])
    except ClientError as fault:
        sys.exit(f"error: {fault}")
