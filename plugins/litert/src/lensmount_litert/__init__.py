"""LiteRT as a backend of lensmount: TFLite graphs on the CPU."""
