"""onnxruntime as a backend of lensmount: graphs on the CPU, CUDA, CoreML and DirectML."""
