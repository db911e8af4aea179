"""The version of every distribution of this repository, said once: each `pyproject.toml` reads it here."""

__version__ = "0.1.0"
