"""The errors a caller can meet, drawn as a tree.

    WorkerError                       code                 retryable   HTTP
    ├── InvalidInput                  INVALID_INPUT        no          422
    │   ├── BadRequest                INVALID_INPUT        no          400
    │   ├── RequestTooLarge           INVALID_INPUT        no          413
    │   ├── BatchTooLarge             BATCH_TOO_LARGE      no          413
    │   ├── TextTooLong               TEXT_TOO_LONG        no          422
    │   └── ModelMismatch             MODEL_MISMATCH       no          422
    ├── AuthFailed                    AUTH_FAILED          no          401
    ├── DownloadError                 DOWNLOAD_ERROR       as told     422
    │   └── UrlRefused                URL_REFUSED          no          422
    ├── ImageTooLarge                 IMAGE_TOO_LARGE      no          413
    ├── DecodeError                   DECODE_ERROR         no          422
    ├── ResponseTooLarge              RESPONSE_TOO_LARGE   no          413
    ├── Overloaded                    OVERLOADED           yes         429
    │   └── Unavailable               OVERLOADED           yes         503
    ├── InferenceError                INFERENCE_ERROR      yes         500
    └── InternalError                 INTERNAL_ERROR       yes         500

    StartupError                      never reaches a caller: one line on the console, exit status 1

A message says what was wrong, which field, and the limit.
It never holds a path, an address, a traceback, the repr of an object, or a secret.
Codes are stable: callers store and compare them.
"""

from __future__ import annotations

from typing import ClassVar


class WorkerError(Exception):
    """A failure that its caller is told of: a stable code, a message, and whether to try again."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    http_status: ClassVar[int] = 500
    retryable: bool = False

    def __init__(self, message: str, *, retryable: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        if retryable is not None:
            self.retryable = retryable

    def as_item(self) -> dict[str, object]:
        """Return the error as it stands inside `results[i]["error"]`, plain JSON."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}


class InvalidInput(WorkerError):
    """A field of the job is missing, unknown, of the wrong type or outside its limits."""

    code = "INVALID_INPUT"
    http_status = 422


class BadRequest(InvalidInput):
    """The body of an HTTP request cannot be read: it is no JSON, no form, or it did not arrive."""

    http_status = 400


class RequestTooLarge(InvalidInput):
    """The body of an HTTP request has more bytes than MAX_REQUEST_SIZE_BYTES."""

    http_status = 413


class BatchTooLarge(InvalidInput):
    """The job holds more items than MAX_BATCH_SIZE."""

    code = "BATCH_TOO_LARGE"
    http_status = 413


class TextTooLong(InvalidInput):
    """The text does not fit the model's context and the caller asked not to truncate it."""

    code = "TEXT_TOO_LONG"


class ModelMismatch(InvalidInput):
    """The caller asked for another model than the one this worker serves."""

    code = "MODEL_MISMATCH"


class AuthFailed(WorkerError):
    """The signature is missing or not valid; the caller is never told which check failed."""

    code = "AUTH_FAILED"
    http_status = 401


class DownloadError(WorkerError):
    """The image could not be downloaded; retryable where a later try may succeed."""

    code = "DOWNLOAD_ERROR"
    http_status = 422


class UrlRefused(DownloadError):
    """The URL breaks this worker's policy; one message for every reason, so nothing can be probed."""

    code = "URL_REFUSED"


class ImageTooLarge(WorkerError):
    """The image has too many bytes, pixels or scans, is too thin, or costs too much to be decoded."""

    code = "IMAGE_TOO_LARGE"
    http_status = 413


class DecodeError(WorkerError):
    """The bytes are not an image of an allowed format, or the image is damaged."""

    code = "DECODE_ERROR"
    http_status = 422


class ResponseTooLarge(WorkerError):
    """The answer would exceed what the platform carries; ask for fewer items or base64."""

    code = "RESPONSE_TOO_LARGE"
    http_status = 413


class Overloaded(WorkerError):
    """The worker is full, or the job ran out of time."""

    code = "OVERLOADED"
    http_status = 429
    retryable = True


class Unavailable(Overloaded):
    """The service is loading its model, or stopping."""

    http_status = 503


class InferenceError(WorkerError):
    """The forward pass failed for this input."""

    code = "INFERENCE_ERROR"
    http_status = 500
    retryable = True


class InternalError(WorkerError):
    """A fault of the worker itself; the log has the traceback, the caller only the code."""

    code = "INTERNAL_ERROR"
    http_status = 500
    retryable = True


class StartupError(Exception):
    """The worker cannot start; the message is one plain line that says what to change."""
