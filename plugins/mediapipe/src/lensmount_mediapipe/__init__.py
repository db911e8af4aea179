"""MediaPipe's face detectors on lensmount: BlazeFace, from Google's TFLite files."""
