"""A server of the inference protocol, version 2, that runs graphs on ONNX Runtime: Triton's stand-in in tests.

Only what clients use: metadata, readiness, repository index, configurations, loading with files, inference with binary
tensors. It refuses what Triton refuses: batches beyond `max_batch_size`, unknown models, loading that was not allowed.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

DTYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16,
    "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


def model_config():
    """The published protobuf of configurations, `model_config_pb2`; the package around it would import gRPC."""
    import importlib.util

    import pytest

    package = importlib.util.find_spec("tritonclient")
    if package is None:
        pytest.skip("tritonclient is not installed")
    path = Path(package.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("triton_model_config_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class RefusalError(Exception):
    """An answer with an error status."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class TritonServer:
    """Started with `with`; `url` is its address.

    Args:
        explicit: Whether clients may load models.

    Attributes:
        batches: Batch size of every inference that was run.
        ready: What it says of itself.
        delay: Seconds that an inference takes in addition.
    """

    def __init__(self, *, explicit=True):
        self.explicit, self.ready, self.delay, self.stopped = explicit, True, 0.0, False
        self.models, self.batches = {}, []
        self.lock = threading.Lock()

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                self.answer(b"")

            def do_POST(self):
                self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def answer(self, body):
                if outer.stopped:
                    self.close_connection = True
                    return
                headers = {}
                try:
                    status, content, headers = outer.handle(self.command, self.path, body, self.headers)
                except RefusalError as error:
                    status, content = error.status, json.dumps({"error": str(error)}).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Answers nothing any more, on open connections neither."""
        self.stopped = True
        self.http.shutdown()
        self.http.server_close()

    # --- models -------------------------------------------------------------------------------------------------------

    def add_repository(self, folder):
        """Loads all models of a repository, as its configuration files say."""
        from google.protobuf import json_format, text_format

        for path in sorted(Path(folder).glob("*/config.pbtxt")):
            config = text_format.Parse(path.read_text(), model_config().ModelConfig())
            said = json_format.MessageToDict(config, preserving_proto_field_name=True)
            assert said["name"] == path.parent.name
            self.add(said, path.parent / "1" / "model.onnx")

    def add(self, config, graph):
        """Loads one model: a path, or a graph's bytes."""
        import onnxruntime as ort

        try:
            session = ort.InferenceSession(graph if isinstance(graph, bytes) else str(graph))
        except Exception as error:
            raise RefusalError(400, f"failed to load '{config['name']}': {error}") from error
        with self.lock:
            self.models[config["name"]] = ({**config, "max_batch_size": int(config.get("max_batch_size", 0))}, session)

    # --- the protocol -------------------------------------------------------------------------------------------------

    def handle(self, method, path, body, headers):
        parts = path.strip("/").split("/")
        if parts == ["v2"]:
            return self.json({"name": "triton", "version": "2.99.0", "extensions": []})
        if parts == ["v2", "health", "ready"]:
            return (200 if self.ready else 400), b"", {}
        if parts == ["v2", "repository", "index"]:
            return self.json([{"name": name, "version": "1", "state": "READY"} for name in list(self.models)])
        if parts[:3] == ["v2", "repository", "models"] and parts[4:] == ["load"]:
            return self.load(parts[3], json.loads(body or b"{}").get("parameters", {}))
        if parts[:2] == ["v2", "models"] and len(parts) > 2:
            if parts[2] not in self.models:
                raise RefusalError(400, f"Request for unknown model: '{parts[2]}' is not found")
            config, session = self.models[parts[2]]
            if parts[3:] == ["config"]:
                return self.json(config)
            if parts[3:] == ["infer"]:
                return self.infer(config, session, body, headers)
        raise RefusalError(404, f"no {path}")

    def load(self, name, parameters):
        if not self.explicit:
            raise RefusalError(400, "explicit model load / unload is not allowed if polling is enabled")
        files = {key: value for key, value in parameters.items() if key.startswith("file:")}
        self.add(json.loads(parameters["config"]), base64.b64decode(files["file:1/model.onnx"]))
        return 200, b"", {}

    def infer(self, config, session, body, headers):
        time.sleep(self.delay)
        length = int(headers.get("Inference-Header-Content-Length", len(body)))
        asked, at = json.loads(body[:length]), length
        feeds = {}
        for value in asked["inputs"]:
            dtype = np.dtype(DTYPES[value["datatype"]])
            size = value["parameters"]["binary_data_size"]
            feeds[value["name"]] = np.frombuffer(body[at : at + size], dtype).reshape(value["shape"])
            at += size
        most = config["max_batch_size"]
        count = next(iter(feeds.values())).shape[0] if most else 0
        if count > most:
            raise RefusalError(400, f"inference request batch-size must be <= {most} for '{config['name']}'")
        names = [value["name"] for value in asked.get("outputs", [])]
        try:
            arrays = session.run(names, feeds)
        except Exception as error:
            raise RefusalError(500, f"onnx runtime error: {error}") from error
        with self.lock:
            self.batches.append(count)
        outputs, tail = [], b""
        for name, array in zip(names, arrays, strict=True):
            raw = np.ascontiguousarray(array).tobytes()
            outputs.append(
                {
                    "name": name,
                    "datatype": NAMES[array.dtype],
                    "shape": list(array.shape),
                    "parameters": {"binary_data_size": len(raw)},
                }
            )
            tail += raw
        head = json.dumps({"model_name": config["name"], "model_version": "1", "outputs": outputs}).encode()
        return 200, head + tail, {"Inference-Header-Content-Length": str(len(head))}

    @staticmethod
    def json(value):
        return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}
