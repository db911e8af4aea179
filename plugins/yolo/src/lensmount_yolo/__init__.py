"""YOLO v5u to 26 for lensmount."""
