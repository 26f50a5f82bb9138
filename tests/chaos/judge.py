"""Whether a job ended as it had to: exactly one result, and that one right.

A vector is right within 1e-5 of the one that an undisturbed model gives for the item alone, in fp32: batches
of other sizes sum in another order. In float16 rounding alone moves it by up to 2.4e-4.

One alternative is allowed: a good item may be INFERENCE_ERROR in an answer that was posted after the device
of its worker was lost. Every answer that was posted is judged, also those that came too late to count.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from embedding.contract.encoding import decode
from embedding.errors import InvalidInput
from tests.chaos.outcomes import INFERENCE_ERROR, Bad, Good, Outcome
from tests.loopback import Status


if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from tests.chaos.jobs import Job
    from tests.loopback import JobRecord, JobResult, Posted

MOST_OFF = {"float32": 1e-5, "float16": 5e-4}
LEAST_APART = 1e-3  # references closer than this could be taken for each other
MOST_NORM_OFF = {"float32": 1e-5, "float16": 1e-3}


@dataclass(frozen=True, slots=True)
class Judge:
    """What answers are held against.

    *vectors* (D,) are normalised, by name; *lost_at_s* says when each worker whose device was lost lost it;
    *secrets* must be in no answer.
    """

    vectors: Mapping[str, npt.NDArray[np.float32]]
    lost_at_s: Mapping[str, float] = field(default_factory=dict)
    secrets: Sequence[str] = ()

    def faults(self, job: Job, record: JobRecord, result: JobResult) -> list[str]:
        """Return what is wrong with how *job* ended, as lines; none if it is right."""
        return [f"{record.id} ({job.kind}): {fault}" for fault in self._faults(job, record, result)]

    def excused(self, job: Job, record: JobRecord) -> int:
        """Return how many good items of the job's result are errors of a lost device."""
        output = record.results[0].body.get("output") if record.results else None
        results = output.get("results", [output]) if isinstance(output, dict) else []
        seen = [_error_of(result, output) for result in results]
        expected = [*job.outcomes, *[job.refusal] * (not job.outcomes)]
        return sum(
            isinstance(wanted, Good) and got == INFERENCE_ERROR
            for wanted, got in zip(expected, seen, strict=False)
        )

    def _faults(self, job: Job, record: JobRecord, result: JobResult) -> Iterator[str]:
        if result.status not in {Status.COMPLETED, Status.FAILED}:
            yield f"lost: it is {result.status} after {len(record.takes)} deliveries"
            return
        unheard = sum(posted.http_status == 0 for posted in record.results)
        if not 1 <= len(record.results) <= len(record.takes) + unheard:
            yield f"{len(record.results)} results, {unheard} unheard, of {len(record.takes)} deliveries"
        for posted in record.results[:1]:
            if (posted.body.get("output"), posted.body.get("error")) != (result.output, result.error):
                yield "what the caller sees is not the first result"
        for posted in record.results:
            yield from self._faults_of(job, posted)

    def _faults_of(self, job: Job, posted: Posted) -> Iterator[str]:
        text = json.dumps(posted.body)
        for secret in self.secrets:
            if secret in text:
                yield f"the answer holds what nobody may see: {secret[:4]}…"
        output, error = posted.body.get("output"), posted.body.get("error")
        is_lost = posted.at_s >= self.lost_at_s.get(posted.worker_id, math.inf)
        if not isinstance(output, dict):
            yield f"the output is no object but {text[:80]}"
        elif job.shape == "health":
            if error is not None or output.get("status") not in ({"ok", "failed"} if is_lost else {"ok"}):
                yield f"health is {output.get('status')}, {error}"
        elif job.refusal or error is not None:
            yield from self._faults_of_whole(job, output, error, is_lost=is_lost)
        else:
            yield from self._faults_of_items(job, output, is_lost=is_lost)

    def _faults_of_whole(self, job: Job, output: Any, error: Any, *, is_lost: bool) -> Iterator[str]:
        wanted = job.refusal or (job.outcomes[0] if job.shape == "one" else None)
        if not isinstance(error, str):
            yield f"wanted {wanted}, got no error"
            return
        got = Bad(output.get("error_code"), output.get("retryable"))
        if not _is_allowed(wanted, got, is_lost=is_lost) or not error.startswith(f"{got.code}: "):
            yield f"wanted {wanted}, got {got}: {error[:80]}"
        if output.get("request_id") != job.request_ids[0] or "embedding" in output:
            yield f"the error belongs to {output.get('request_id')}, not {job.request_ids}"

    def _faults_of_items(self, job: Job, output: Any, *, is_lost: bool) -> Iterator[str]:
        results = output.get("results") if job.shape == "many" else [output]
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            yield "the results are no list of objects"
            return
        if len(results) != len(job.outcomes):
            yield f"wanted {len(job.outcomes)} results, got {len(results)}"
            return
        for place, (wanted, result) in enumerate(zip(job.outcomes, results, strict=True)):
            for fault in self._faults_of_item(wanted, result, job.input, is_lost=is_lost):
                yield f"item {place}: {fault}"
        ids = tuple(result.get("request_id") for result in results)
        if ids != job.request_ids:
            yield f"request ids are {ids}"
        errors = sum("error" in result for result in results)
        if job.shape == "many" and output.get("errors") != errors:
            yield f"errors is {output.get('errors')}, there are {errors}"

    def _faults_of_item(self, wanted: Outcome, result: Any, asked: Any, *, is_lost: bool) -> Iterator[str]:
        if ("error" in result) == ("embedding" in result):
            yield "not exactly one of embedding and error"
        elif "error" in result:
            got = Bad(result["error"].get("code"), result["error"].get("retryable"))
            if not _is_allowed(wanted, got, is_lost=is_lost):
                yield f"wanted {wanted}, got {got}"
        elif isinstance(wanted, Bad):
            yield f"wanted {wanted}, got a vector"
        else:
            yield from self._faults_of_vector(wanted.name, result, asked)

    def _faults_of_vector(self, name: str, result: Any, asked: Any) -> Iterator[str]:
        dtype = asked.get("embed_dtype", "float32")
        try:
            vector = decode(result["embedding"], dtype)
        except InvalidInput as fault:
            yield str(fault)
            return
        norm = float(np.linalg.norm(vector))
        is_normalized = asked.get("normalize", True)
        if result.get("normalized") is not is_normalized or (
            is_normalized and abs(norm - 1) > MOST_NORM_OFF[dtype]
        ):
            yield f"the norm is {norm}, normalized {result.get('normalized')}"
        if vector.shape != self.vectors[name].shape or not norm:
            yield f"the vector has the shape {vector.shape} and the norm {norm}"
            return
        off = float(np.abs(vector / norm - self.vectors[name]).max())
        if not off <= MOST_OFF[dtype]:
            yield f"the vector is {off:.2g} off that of {name!r}"


def _is_allowed(wanted: Outcome | None, got: Bad, *, is_lost: bool) -> bool:
    return got == wanted or (is_lost and isinstance(wanted, Good) and got == INFERENCE_ERROR)


def _error_of(result: Any, output: Any) -> Bad | None:
    if isinstance(result, dict) and isinstance(result.get("error"), dict):
        return Bad(result["error"].get("code"), result["error"].get("retryable"))
    if isinstance(output, dict) and "error_code" in output:
        return Bad(output["error_code"], output.get("retryable"))
    return None
