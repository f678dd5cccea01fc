"""The feature table: every peer is run against the sandbox, in an environment of its own. See `__main__`."""
