"""Answers as arrays: vectors in the order of the call, and an error where an item has none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from embedding.client.errors import BadAnswer, ItemError, ItemsFailed, ModelChanged
from embedding.contract.encoding import decode
from embedding.errors import InvalidInput


if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from embedding.contract.fields import EmbedDtype

    Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """What a call made.

    *vectors* (n, dim) float32 in the order of the call; a row of NaN where the item failed, whose *errors*
    entry says why. *fingerprint* names model, weights and preprocessing: vectors of different fingerprints
    must not be compared. Where there is no vector dim is 0, and where no worker answered *fingerprint* None.
    """

    vectors: Vector
    errors: tuple[ItemError | None, ...]
    fingerprint: str | None
    model: str | None

    def __len__(self) -> int:
        return len(self.errors)

    def raise_for_errors(self) -> Embeddings:
        """Return this. Raises ItemsFailed if any item failed."""
        if any(self.errors):
            raise ItemsFailed(self)
        return self


@dataclass(slots=True)
class Collected:
    """The outcomes of a call of *count* items so far, as its jobs are answered in any order."""

    count: int = 0
    vectors: dict[int, Vector] = field(default_factory=dict)
    errors: dict[int, ItemError] = field(default_factory=dict)
    fingerprint: str | None = None
    model: str | None = None

    def add(self, indices: Iterable[int], answer: Mapping[str, Any], dtype: EmbedDtype) -> list[int]:
        """Keep the *answer* to a batch of the items *indices*; return those that may succeed if sent again.

        Raises ModelChanged if another model answered before, BadAnswer if this is no answer of a worker.
        """
        try:
            pairs = list(zip(indices, answer["results"], strict=True))
            outcomes = _outcomes(pairs, dtype)
            self._same_model(answer)
            self._require_one_dim(outcomes)
        except (AttributeError, InvalidInput, KeyError, OverflowError, TypeError, ValueError) as fault:
            raise BadAnswer("the answer has no result for each item: is this such a worker?") from fault
        for (index, _), outcome in zip(pairs, outcomes, strict=True):
            if isinstance(outcome, ItemError):
                self.errors[index] = outcome
            else:
                self.vectors[index] = outcome
                self.errors.pop(index, None)
        return [outcome.index for outcome in outcomes if isinstance(outcome, ItemError) and outcome.retryable]

    def _require_one_dim(self, outcomes: list[Vector | ItemError]) -> None:
        known = next(iter(self.vectors.values()), None)
        found = [known, *outcomes]
        if len({vector.shape for vector in found if isinstance(vector, np.ndarray)}) > 1:
            raise ValueError

    def _same_model(self, answer: Mapping[str, Any]) -> None:
        fingerprint, model = (_text(answer.get(name)) for name in ("fingerprint", "model"))
        if self.fingerprint not in (None, fingerprint):
            raise ModelChanged(f"fingerprints {self.fingerprint} and {fingerprint} answered one call")
        self.fingerprint, self.model = fingerprint, model

    def whole(self) -> Embeddings:
        """Return all outcomes in the order of the call; an item without one has the error NOT_REACHED."""
        count = self.count  # a generator may still be read, and count on
        dim = next((len(vector) for vector in self.vectors.values()), 0)
        vectors = np.full((count, dim), np.nan, dtype=np.float32)
        for index, vector in self.vectors.items():
            vectors[index] = vector
        errors = tuple(self._error_of(index) for index in range(count))
        return Embeddings(vectors, errors, self.fingerprint, self.model)

    def _error_of(self, index: int) -> ItemError | None:
        if index in self.vectors or index in self.errors:
            return self.errors.get(index)
        return ItemError(index, "NOT_REACHED", "the call ended before this item was embedded", retryable=True)


def _outcomes(pairs: Sequence[tuple[int, Mapping[str, Any]]], dtype: EmbedDtype) -> list[Vector | ItemError]:
    embeddings = [result["embedding"] for _, result in pairs if "error" not in result]
    vectors = iter(_vectors(embeddings, dtype))
    return [_error(index, result["error"]) if "error" in result else next(vectors) for index, result in pairs]


def _vectors(embeddings: Sequence[Any], dtype: EmbedDtype) -> Sequence[Vector]:
    """Return vectors (D,) float32, all of one D and finite. Raises ValueError, or InvalidInput."""
    if not embeddings:
        return []
    with np.errstate(over="ignore"):  # what is too large for a float32 is infinite, and refused
        matrix = np.stack([decode(embedding, dtype) for embedding in embeddings])
    if matrix.ndim != len("ND") or not matrix.size or not np.isfinite(matrix).all():
        raise ValueError
    return list(matrix)


def _error(index: int, error: Mapping[str, Any]) -> ItemError:
    return ItemError(index, str(error["code"]), str(error["message"]), error["retryable"] is True)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
