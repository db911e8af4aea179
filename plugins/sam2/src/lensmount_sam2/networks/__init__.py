"""The networks of SAM 2 (arXiv 2408.00714), with the official checkpoints' names for their parts."""
