"""The one error a user can mend: bad input, told in one sentence."""


class InputError(ValueError):
    """Bad input, refused before work starts; the message names file, row, column and remedy."""


class MissingUpstreamError(RuntimeError):
    """A stage was asked for whose inputs have not been made; the message names the stage to run."""
