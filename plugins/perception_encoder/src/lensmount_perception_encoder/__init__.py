"""Perception Encoder for lensmount; hooks in `plugin`."""
