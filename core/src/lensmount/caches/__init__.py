"""Caches for embeddings and other costly intermediate results."""
