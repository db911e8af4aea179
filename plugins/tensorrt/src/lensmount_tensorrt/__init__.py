"""TensorRT as a backend of lensmount: engines built here and run here. Experimental: it never ran on TensorRT yet."""
