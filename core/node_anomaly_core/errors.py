"""Errors a user can act on: what went wrong, where, and what to do next."""

from __future__ import annotations

BUNDLE_REASONS: tuple[str, ...] = (
    "missing",  # no bundle where one was expected
    "io",  # the file system refused a read
    "size",  # a file is larger than its limit or than the manifest says
    "digest",  # bytes differ from their recorded sha256
    "path",  # a name that leaves the bundle's directory, or a link
    "signature",  # keys are configured, and none of them signed it
    "replay",  # older than what was accepted before, and no rollback was asked for
    "rolled_back",  # this node left it because it raised more alarms than it promised
    "format",  # an unknown format version
    "manifest",  # the manifest is not what its format promises
    "features",  # a feature this agent cannot supply
    "model",  # a model file that is structurally wrong
    "selftest",  # the golden vectors give other scores than the trainer recorded
)
"""Every value of the `reason` label of `anomaly_agent_bundle_reload_failures_total`."""


class AnomalyError(Exception):
    """Root of every error that is shown to a user without a traceback.

    `message` says what and where; `hint` says what to do next and may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(AnomalyError):
    """A setting that cannot be used; the message starts with the key's path."""


class SourceError(AnomalyError):
    """A place that samples or history come from did not deliver."""


class TrainingError(AnomalyError):
    """History that no model can be trained on, or a training step that failed."""


class BundleError(AnomalyError):
    """A bundle that is refused; `reason` is one of BUNDLE_REASONS."""

    def __init__(self, reason: str, message: str, hint: str = "") -> None:
        if reason not in BUNDLE_REASONS:
            raise ValueError(f"unknown bundle reason {reason!r}")
        super().__init__(message, hint)
        self.reason = reason
