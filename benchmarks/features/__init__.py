"""The feature table: every peer runs against the sandbox in a separate environment. See `__main__`."""
