"""A server of this machine that speaks the Roboflow provider's wire format."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

KEY = "s3cr3t-key"
MODEL = "my-project/3"


class Provider:
    """One model, its pages, its files behind signed addresses that change with every answer."""

    def __init__(self):
        self.files = {}
        self.pages = []
        self.status = None
        self.answer = None
        self.signature = 0
        self.valid = set()
        self.requests = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args):
                return

            def do_GET(self):
                owner.get(self)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def get(self, handler):
        parts = urlsplit(handler.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        self.requests.append((parts.path, query, dict(handler.headers)))
        if parts.path == "/models/v1/external/weights":
            self.send(handler, *self.metadata(query, handler.headers.get("Authorization")))
        elif query.get("sig") not in self.valid:
            self.send(handler, 403, b"<Error>expired</Error>")
        else:
            content = self.files.get(parts.path)
            self.send(handler, *((200, content) if content is not None else (404, b"")))

    def metadata(self, query, authorization):
        if self.status:
            return self.status, json.dumps({"error": {"message": f"refused {KEY}"}}).encode()
        if self.answer is not None:
            return 200, json.dumps(self.answer).encode()
        if authorization != f"Bearer {KEY}":
            return 401, b'{"message": "no key"}'
        if query["modelId"] != MODEL:
            return 404, b'{"message": "unknown"}'
        self.signature += 1
        self.valid.add(str(self.signature))
        page = self.pages[int(query.get("startAfter", "0"))]
        text = json.dumps({"modelMetadata": page}).replace("SIG", str(self.signature))
        return 200, text.encode()

    def send(self, handler, status, content):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def file(self, package, handle, content, *, md5=True):
        path = f"/files/{package}/{handle}"
        self.files[path] = content
        made = {"fileHandle": handle, "downloadUrl": f"{self.url}{path}?sig=SIG"}
        return {**made, "md5Hash": hashlib.md5(content).hexdigest()} if md5 else made

    def package(self, name, manifest, files, **more):
        listed = [self.file(name, handle, content) for handle, content in files.items()]
        return {
            "type": "external-model-package-v1",
            "packageId": name,
            "packageManifest": manifest,
            "packageFiles": listed,
            "trustedSource": True,
            **more,
        }

    def page(self, packages, **more):
        self.pages.append(
            {
                "type": "external-model-metadata-v1",
                "modelId": MODEL,
                "modelArchitecture": "yolov8",
                "modelVariant": "yolov8-n",
                "taskType": "object-detection",
                "modelPackages": packages,
                **more,
            }
        )


ONNX = {
    "type": "onnx-model-package-v1",
    "backendType": "onnx",
    "quantization": "fp32",
    "dynamicBatchSize": True,
    "opset": 17,
    "incompatibleProviders": ["CoreMLExecutionProvider"],
}


@pytest.fixture
def provider(monkeypatch):
    made = Provider()
    monkeypatch.setenv("ROBOFLOW_API_HOST", made.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("ROBOFLOW_API_KEY", "LENSMOUNT_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    yield made
    made.server.shutdown()
    made.server.server_close()
