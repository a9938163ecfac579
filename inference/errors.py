"""What the sidecar can refuse, in our words.

SidecarError
├── InvalidRequest        400  the caller's request, with `param`
│   ├── ContextExceeded   400  the prompt does not fit the model
│   └── ModelNotCapable   400  the model has no such ability
├── InvalidKey            401
├── NotAllowed            403
├── ModelAbsent           404  no such repo or revision, or none that this caller may read
├── ModelRefused          409  the revision exists, and loading policy refuses it
├── Overloaded            429  with seconds to wait
│   └── EngineFull        429  raised by `Engine.submit`
├── Unavailable           503  loading, draining, registry away; with seconds to wait
├── DeadlineExceeded      504
└── EngineFailed          500  the engine broke while answering

No HTTP here: `routes/problems` maps each class to a status and an OpenAI error body.
"""

from __future__ import annotations


class SidecarError(Exception):
    """A refusal that a client can cause or must hear of; `code` is stable, `message` says what to do next."""

    code = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after: int | None = None
    ):
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        if code is not None:
            self.code = code


class InvalidRequest(SidecarError):
    """The request is malformed or asks for what is not done; `param` names the field."""

    code = "invalid_value"


class ContextExceeded(InvalidRequest):
    """Prompt tokens (plus at least one new token) exceed the model's context."""

    code = "context_length_exceeded"


class ModelNotCapable(InvalidRequest):
    """The model is loaded, or loadable, but has no such ability."""

    code = "model_not_capable"


class InvalidKey(SidecarError):
    """No API key, or one that the registry does not know."""

    code = "invalid_api_key"


class NotAllowed(SidecarError):
    """The key is known and its right does not reach."""

    code = "not_allowed"


class ModelAbsent(SidecarError):
    """No such repo or revision; a private one looks the same to those who may not read it."""

    code = "model_not_found"


class ModelRefused(SidecarError):
    """The revision exists and loading policy refuses it; the message names the file or key."""

    code = "model_refused"


class Overloaded(SidecarError):
    """A queue, a bucket or the device is full; `retry_after` is in seconds."""

    code = "engine_overloaded"


class EngineFull(Overloaded):
    """The engine's own queue is full; raised by `Engine.submit`, which never blocks."""


class Unavailable(SidecarError):
    """Not now: loading, draining, or the registry does not answer; `retry_after` is in seconds."""

    code = "model_loading"


class DeadlineExceeded(SidecarError):
    """The request's own deadline passed."""

    code = "deadline_exceeded"


class EngineFailed(SidecarError):
    """The engine broke while answering; other requests may be affected."""

    code = "engine_failed"
