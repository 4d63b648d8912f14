"""The assets and their checks, by area; one module of assets and one of checks each."""
