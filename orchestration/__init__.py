"""Dagster definitions and the command line: thin, and nothing heavy at module level."""
