"""Roboflow as a source of weights."""
