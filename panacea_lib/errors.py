"""Errors that a user can mend, each told in one sentence."""


class InputError(ValueError):
    """Bad input, refused before work starts; the message names file, row, column and remedy."""


class MissingUpstreamError(RuntimeError):
    """A stage was asked for whose inputs have not been made; the message names the stage to run."""


class NotEnoughMemoryError(RuntimeError):
    """A training ran out of memory; the message says what needs less."""


class TrainingStoppedError(RuntimeError):
    """A training was asked to stop and left a checkpoint; the message says at which step."""
