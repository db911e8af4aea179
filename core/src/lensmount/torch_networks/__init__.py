"""Torch modules that several architectures share. Imported only where torch is used."""
