"""The network in torch: backbone, projector, decoder and mask head, built from a layout."""
