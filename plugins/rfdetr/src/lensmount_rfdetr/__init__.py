"""RF-DETR for lensmount: object detection and instance segmentation."""
