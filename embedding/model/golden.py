"""Golden vectors: what open_clip, in fp32, makes of a known picture and two texts with these weights.

They lie beside the weights as `golden.json`. At start the worker embeds the same and compares, so that a
wrong activation, a damaged file, a bad kernel or too coarse a precision stops it instead of poisoning an
index. A folder without them is checked for what must hold of any model.

The bounds are cosines: 0.99999 for fp32, and 0.9995 for the 16-bit formats, which leaves their rounding room.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from embedding.errors import StartupError
from embedding.model.folder import (
    GOLDEN_NAME,
    FolderConfig,
    exists,
    file_sha256,
    read_config,
    reason_of,
    weights_file,
)
from embedding.model.loader import load_model


if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    import numpy.typing as npt

    from embedding.model.embedder import EmbeddingModel, Precision
    from embedding.model.folder import WeightsFolder

log = logging.getLogger(__name__)

TEXTS = ("a red circle", "a photo of two dogs playing in the snow")
PICTURE = "gradients-and-board-1"
FP32_BOUND = 0.99999
LOW_PRECISION_BOUND = 0.9995

_COLLAPSED = 0.9999  # inputs this different never agree so well in a working model
_DECIMALS = 7
_ANEW = "make it anew with 'python -m embedding golden'"


def golden_picture(side: int) -> npt.NDArray[np.uint8]:
    """Return the picture (side, side, 3) uint8: two gradients, and a board of sixteen squares a side."""
    ramp = np.arange(side) * 255 // max(side - 1, 1)
    square = np.arange(side) * 16 // side
    board = (square[:, None] + square) % 2 * 255
    picture = np.empty((side, side, 3), dtype=np.uint8)
    picture[..., 0], picture[..., 1], picture[..., 2] = ramp, ramp[:, None], board
    return picture


class TooCoarse(StartupError):
    """The model's vectors differ too much from the golden ones; in 16 bits, fp32 may mend it."""


def load_checked(
    folder: WeightsFolder,
    *,
    device: str,
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto",
    digest: Future[str] | None = None,
) -> tuple[EmbeddingModel, float]:
    """Load the model of *folder* and check it; return it with its worst cosine. *digest* as in `load_model`.

    Where the 16 bits that auto chose are too coarse for these weights, it is loaded again in fp32.
    Raises StartupError as `load_model` and `check_golden` do.
    """
    model = load_model(folder, device=device, precision=precision, digest=digest)
    try:
        worst = check_golden(model)
    except TooCoarse as fault:
        if precision != "auto" or model.identity.precision == "fp32":
            raise
        log.warning("%s; using fp32", fault)
        del model  # two have no room on a small device
    else:
        model.warm_up()
        return model, worst
    model = load_model(folder, device=device, precision="fp32", digest=digest)
    worst = check_golden(model)
    model.warm_up()
    return model, worst


def check_golden(model: EmbeddingModel) -> float:
    """Embed the golden inputs and return the worst cosine against what they must give.

    Without `golden.json` it is the worst cosine of two runs. Raises TooCoarse below the precision's bound,
    StartupError if the model cannot be run or is none.
    """
    file = model.folder.path / GOLDEN_NAME
    golden = read_golden(file, dim=model.identity.dim)
    vectors = _embed(model)
    if golden is None:
        expected = _checked_invariants(vectors, again=_embed(model))
    elif golden["weights_sha256"] == model.identity.weights_sha256:
        expected = np.array(golden["vectors"])
    else:
        raise StartupError(f"{file} belongs to other weights; {_ANEW}")
    worst, bound = worst_cosine(vectors, expected), bound_of(model.identity.precision)
    if not worst >= bound:
        raise TooCoarse(
            f"the vectors differ from open_clip's (cosine {worst:.6f}, at least {bound} is needed in "
            f"{model.identity.precision}); set CLIP_PRECISION=fp32 or prepare the folder again"
        )
    return worst


def golden_vectors(model: EmbeddingModel) -> npt.NDArray[np.float64] | None:
    """Return what `golden.json` says of the golden picture and TEXTS, (1 + T, D); None without that file."""
    golden = read_golden(model.folder.path / GOLDEN_NAME, dim=model.identity.dim)
    return None if golden is None else np.array(golden["vectors"])


def bound_of(precision: Precision) -> float:
    """Return the least cosine to a golden vector that *precision* allows."""
    return FP32_BOUND if precision == "fp32" else LOW_PRECISION_BOUND


def worst_cosine(vectors: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Return the least cosine of a row of *vectors* (N, D) with that row of *expected*."""
    return float(_cosines(vectors, expected).min())


def write_golden(path: Path) -> None:
    """Write `golden.json` into the folder *path*, computed by open_clip in fp32 on the CPU.

    Raises StartupError if open_clip cannot load the folder.
    """
    import open_clip  # noqa: PLC0415  (4.5 s that only the making of a folder pays)

    from embedding.model.fallback import FAULTS  # noqa: PLC0415

    config = read_config(path)
    try:
        model = open_clip.create_model(f"local-dir:{path}", precision="fp32").eval()
        tokens = open_clip.get_tokenizer(f"local-dir:{path}")(list(TEXTS))
    except FAULTS as exc:
        raise StartupError(f"open_clip cannot load {path}: {reason_of(exc)}") from exc
    golden = {
        "picture": PICTURE,
        "texts": TEXTS,
        "weights_sha256": file_sha256(weights_file(path)),
        "vectors": _reference(model, tokens, config),
    }
    partial = path / f"{GOLDEN_NAME}.partial"
    partial.write_text(f"{json.dumps(golden)}\n", encoding="utf-8")
    partial.replace(path / GOLDEN_NAME)


def _reference(model: Any, tokens: torch.Tensor, config: FolderConfig) -> list[list[float]]:
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (config.preprocess.mean, config.preprocess.std))
    picture = torch.from_numpy(golden_picture(config.preprocess.size)).permute(2, 0, 1) / 255  # (3, S, S)
    with torch.inference_mode():
        image = model.encode_image(((picture - mean) / std).unsqueeze(0), normalize=True)  # (1, D)
        texts = model.encode_text(tokens, normalize=True)  # (T, D)
    return [[round(x, _DECIMALS) for x in row] for row in torch.cat([image, texts]).tolist()]


def read_golden(file: Path, *, dim: int) -> dict[str, Any] | None:
    """Return what `golden.json` holds, `None` if there is none.

    Raises StartupError if it is damaged, or made for another dimension or version.
    """
    if not exists(file):
        return None
    try:
        golden: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        vectors = np.array(golden["vectors"], dtype=np.float64)
        made_for = (golden["picture"], tuple(golden["texts"]), vectors.shape, type(golden["weights_sha256"]))
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise StartupError(f"{file} cannot be read ({reason_of(exc)}); {_ANEW}") from exc
    if made_for != (PICTURE, TEXTS, (1 + len(TEXTS), dim), str):
        raise StartupError(f"{file} was made for another model or version; {_ANEW}")
    return golden


def _embed(model: EmbeddingModel) -> npt.NDArray[np.float32]:
    """Return the features (1 + T, D) of the picture and the texts."""
    tokens = [model.tokenizer.tokenize(text, truncate=True) for text in TEXTS]
    try:
        image = model.embed_images([golden_picture(model.identity.image_size)])
        return np.concatenate([image, model.embed_texts(tokens)])
    except (RuntimeError, IndexError) as exc:
        raise StartupError(f"the first vectors failed on {model.identity.device}: {reason_of(exc)}") from exc


def _checked_invariants(
    vectors: npt.NDArray[np.float32], *, again: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return *again*. Raises StartupError for what no working model gives."""
    if not np.isfinite(vectors).all():
        raise TooCoarse("the vectors are not finite; set CLIP_PRECISION=fp32, or the weights are damaged")
    if _cosines(vectors, np.roll(vectors, 1, axis=0)).max() > _COLLAPSED:
        raise StartupError("different inputs give one vector; these are not the weights of a trained CLIP")
    return again


def _cosines(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the cosine of each row of *a* with that row of *b*, (N,)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    cosines: npt.NDArray[np.float64] = (a * b).sum(1) / (
        np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    )
    return cosines
