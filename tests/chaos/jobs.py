"""The jobs of a run: a seeded mix of every kind, signed, each with all that it may be answered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from bench.inputs import TEXTS
from embedding.contract.signatures import sign_v2, sign_v3
from tests.chaos.items import Item, Items
from tests.chaos.outcomes import Bad, Good, Outcome


if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from embedding.contract.keys import Key

Shape = Literal["one", "many", "health"]

MOST_ITEMS = 12
BAD_ITEMS = 0.4  # of a batch's
TWINS = 0.15  # of batches, that hold one item twice
FORMATS = (
    {},
    {"encoding_format": "float"},
    {"encoding_format": "base64"},
    {"encoding_format": "base64", "embed_dtype": "float16"},
)


@dataclass(frozen=True, slots=True)
class Job:
    """One job: its `input`, and the outcome of each item; *refusal* is that of the job as a whole.

    *request_ids* are those that the results must carry, in order.
    """

    kind: str
    input: Any
    shape: Shape
    outcomes: tuple[Outcome, ...] = ()
    refusal: Bad | None = None
    request_ids: tuple[str | None, ...] = ()


class JobMaker:
    """Draws jobs; *key* signs them."""

    def __init__(self, rng: random.Random, items: Items, key: Key) -> None:
        self._random = rng
        self._items = items
        self._key = key

    def make(self, count: int) -> list[Job]:
        """Return *count* jobs; the kinds that a small run must not miss come first."""
        kinds: dict[Callable[[], Job], int] = {
            self._image: 25,
            self._batch: 25,
            self._text: 16,
            self._url: 10,
            self._texts: 8,
            self._signed_items: 5,
            self._forged: 4,
            self._refused: 3,
            self._health: 2,
            self._bad_single: 2,
        }
        drawn = self._random.choices(list(kinds), list(kinds.values()), k=max(count - len(kinds), 0))
        jobs = [make() for make in [*kinds, *drawn][:count]]
        self._random.shuffle(jobs)
        return jobs

    def _image(self) -> Job:
        return self._single("image", self._items.image())

    def _text(self) -> Job:
        return self._single("text", self._items.text())

    def _url(self) -> Job:
        item = self._items.good_url() if self._random.random() < 0.7 else self._items.failing_url()
        return self._single("url", item)

    def _bad_single(self) -> Job:
        item = self._items.bad()
        while not isinstance(item.fields, dict) or not item.fields.keys() & {"text", "image_base64"}:
            item = self._items.bad()
        return self._single("bad single", item)

    def _single(self, kind: str, item: Item) -> Job:
        refusal = item.outcome if isinstance(item.outcome, Bad) else None
        fields = {**item.fields, **self._options(), "request_id": f"{kind} {self._random.random()}"}
        by_v2 = item.signable is not None and self._random.random() < 0.3
        auth = sign_v2(item.signable, self._key) if by_v2 else sign_v3(fields, self._key)
        return Job(
            kind,
            {**fields, "auth": auth},
            "one",
            () if refusal else (item.outcome,),
            refusal,
            (fields["request_id"],),
        )

    def _texts(self) -> Job:
        """Return a list of texts; a text that is none stands as its error."""
        texts = [self._random.choice([*TEXTS, 7]) for _ in range(self._random.randint(1, MOST_ITEMS))]
        outcomes = tuple(Good(text) if isinstance(text, str) else Bad("INVALID_INPUT") for text in texts)
        fields = self._signed({"texts": texts, **self._options()})
        return Job("texts", fields, "many", outcomes, request_ids=(None,) * len(texts))

    def _batch(self) -> Job:
        count = self._random.randint(1, MOST_ITEMS)
        items = [self._items.bad() if self._is(BAD_ITEMS) else self._items.good() for _ in range(count)]
        if self._is(TWINS):
            items.append(items[0])
        items = [_named(item, number) for number, item in enumerate(items)]
        fields = self._signed({"items": [item.fields for item in items], **self._options()})
        return _many("batch", fields, items)

    def _signed_items(self) -> Job:
        """Return a batch whose items are signed one by one, some by another's signature."""
        items = [self._items.good() for _ in range(self._random.randint(2, MOST_ITEMS))]
        signed = []
        for number, item in enumerate(items):
            is_forged = self._is(0.2)
            covered = self._items.image().signable if is_forged else item.signable
            is_forged &= covered != item.signable
            auth = sign_v2(replace(covered, in_batch=True), self._key)
            outcome = Bad("AUTH_FAILED") if is_forged else item.outcome
            signed.append(_named(Item({**item.fields, "auth": auth}, outcome), number))
        fields = {"items": [item.fields for item in signed], **self._options()}
        return _many("signed items", fields, signed)

    def _forged(self) -> Job:
        """Return a job that is unsigned, altered after it was signed, or signed for another."""
        plain = {"texts": ["a red circle", "a blue square"], "request_id": "forged"}
        signed = self._signed(plain)
        forged = self._random.choice(
            (
                plain,
                {**signed, "normalize": False},
                {**signed, "texts": ["a red circle", "a green square"]},
                {**plain, "auth": {**signed["auth"], "nonce": "another-nonce-of-24-char"}},
                {**plain, "auth": {**signed["auth"], "sig": "0" * 64}},
                {**plain, "auth": {"ts": signed["auth"]["iat"], "sig": signed["auth"]["sig"]}},
                {**plain, "auth": 5},
            )
        )
        return Job("forged", forged, "many", refusal=Bad("AUTH_FAILED"), request_ids=("forged",))

    def _refused(self) -> Job:
        """Return a job that is refused as a whole, though well signed."""
        fields, code = self._random.choice(
            (
                ({"action": "paint", "text": "x"}, "INVALID_INPUT"),
                ({"text": "x", "texts": ["x"]}, "INVALID_INPUT"),
                ({"text": "x", "encoding_format": "hex"}, "INVALID_INPUT"),
                ({"texts": ["x"] * 65}, "BATCH_TOO_LARGE"),
                ({"text": "x", "model": "another"}, "MODEL_MISMATCH"),
            )
        )
        fields = self._signed({**fields, "request_id": "refused"})
        return Job("refused", fields, "one", refusal=Bad(code), request_ids=("refused",))

    def _health(self) -> Job:
        return Job("health", {"action": "health"}, "health")

    def _signed(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "auth": sign_v3(fields, self._key)}

    def _options(self) -> dict[str, Any]:
        normalize = {"normalize": False} if self._is(0.15) else {}
        return {**self._random.choice(FORMATS), **normalize}

    def _is(self, share: float) -> bool:
        return self._random.random() < share


def _named(item: Item, number: int) -> Item:
    """Return *item* with a request id, where its fields can carry one."""
    if not isinstance(item.fields, dict):
        return item
    return replace(item, fields={**item.fields, "request_id": f"item {number}"})


def _many(kind: str, fields: dict[str, Any], items: list[Item]) -> Job:
    ids = tuple(item.fields.get("request_id") if isinstance(item.fields, dict) else None for item in items)
    return Job(kind, fields, "many", tuple(item.outcome for item in items), request_ids=ids)
