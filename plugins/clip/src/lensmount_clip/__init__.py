"""CLIP for lensmount; hooks in `plugin`."""
