"""SAM 2 and 2.1 for lensmount: segmentation of images by prompts, and tracking in live video."""
