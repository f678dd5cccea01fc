"""The documentation, and the scripts that build its site."""
