"""The model that every party of a comparison runs, and what its vectors must be.

ViT-B/32 with seeded random weights, in a folder of open_clip's hub format: speed does not depend on what
weights say, and nothing needs to be downloaded. It is made once, below `build/bench/`.

The reference vectors are open_clip's own, in fp32, of the very pictures that are sent. Answers are compared
with them, so that nothing fast and wrong can win. Run as a program, this module computes them; it is a
process of its own because the process that measures must stay small.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bench.inputs import jpegs


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Vectors = npt.NDArray[np.float64]

ROOT: Final = Path(__file__).parents[1]
CACHE: Final = ROOT / "build" / "bench"
MODEL: Final = ("ViT-B-32", "random")
MIN_COSINE: Final = 0.9995
WEIGHTS: Final = "open_clip_model.safetensors"
GOLDEN: Final = "golden.json"
_MAKING_S: Final = 600.0


class WrongAnswer(RuntimeError):
    """An answer is not what open_clip gives for that picture."""


def model_folder(say: Callable[[str], None]) -> Path:
    """Return the folder of the shared model, made if it is not there yet."""
    folder = CACHE / "--".join(MODEL)
    if not (folder / GOLDEN).exists():
        say("making ViT-B/32 with random weights, once (about 40 s)")
        name, tag = MODEL
        run_python("-m", "embedding", "prepare", "--model", name, "--pretrained", tag, "--out", str(folder))
    return folder


def references(folder: Path, pictures: Sequence[bytes], say: Callable[[str], None]) -> Vectors:
    """Return open_clip's vectors (N, D) of *pictures*, of length 1, computed once for a folder."""
    made_of = hashlib.sha256((folder / WEIGHTS).read_bytes())
    for picture in pictures:
        made_of.update(picture)
    file = CACHE / f"references-{made_of.hexdigest()[:16]}.json"
    if not file.exists():
        say("computing open_clip's vectors of the pictures, once (about 20 s)")
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(run_python("-m", "bench.model", str(folder), str(len(pictures))), encoding="utf-8")
        partial.rename(file)
    return np.array(json.loads(file.read_text(encoding="utf-8")))


def run_python(*arguments: str) -> str:
    """Run Python with *arguments* in this repository and return its stdout.

    Raises RuntimeError with the last line of its stderr if it fails.
    """
    done = subprocess.run(  # noqa: S603  our own interpreter and modules
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_MAKING_S,
        check=False,
    )
    if done.returncode:
        what = " ".join(arguments[:2])
        last = done.stderr.strip().rpartition("\n")[2]
        raise RuntimeError(f"{what} ended with status {done.returncode}: {last}")
    return done.stdout


def check_answer(raw: bytes, picture: int, references: Vectors) -> float:
    """Return the cosine of a worker's answer, as posted, to what *references* (N, D) say of its picture.

    Handlers answer `{"output": {"embedding": [...]}}`. Raises WrongAnswer as `check_vector` does.
    """
    return check_vector(json.loads(raw)["output"]["embedding"], picture, references)


def check_vector(embedding: Sequence[float], picture: int, references: Vectors) -> float:
    """Return the cosine of *embedding* to the reference of that *picture*.

    Raises WrongAnswer if it is below 0.9995, or if another picture's vector is nearer.
    """
    vector = np.array(embedding, dtype=np.float64)
    cosines = references @ (vector / np.linalg.norm(vector))
    cosine, nearest = float(cosines[picture]), int(cosines.argmax())
    if not cosine >= MIN_COSINE:
        raise WrongAnswer(f"an answer has cosine {cosine:.5f} to open_clip's vector, less than {MIN_COSINE}")
    if nearest != picture:
        raise WrongAnswer(f"the answer to picture {picture} is nearest to the vector of picture {nearest}")
    return cosine


def _reference_vectors(folder: str, count: int) -> list[list[float]]:
    import torch  # noqa: PLC0415  this process measures nothing

    from bench.ceiling import load, transformed  # noqa: PLC0415  imports open_clip

    model, transform = load(folder, torch.float32)
    with torch.inference_mode():
        batch = torch.stack([transformed(transform, file) for file in jpegs(count)])  # (N, 3, S, S)
        vectors: list[list[float]] = model.encode_image(batch, normalize=True).double().tolist()
    return vectors


if __name__ == "__main__":
    print(json.dumps(_reference_vectors(sys.argv[1], int(sys.argv[2]))))
