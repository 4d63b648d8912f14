"""Who says which response is preferred, and what follows from all that they say."""
