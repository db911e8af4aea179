"""Graphs on NVIDIA's Triton inference server."""
