"""What an operator decides: addresses, keys, limits, how requests wait."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from lensmount.errors import OptionError
from lensmount.specs.options import positive

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one server.

    Attributes:
        host: Address to listen on; one that others can reach asks for `api_key` or `no_key`.
        port: Port to listen on; 0 for any that is free.
        api_key: What every client has to send; None asks for none.
        no_key: Whoever reaches the address may use the server: said on purpose.
        device: As for `registry.load`, for every model.
        backend: As for `registry.load`, for every model.
        precision: As for `registry.load`, for every model.
        fixed: Only the models named at the start; nobody can add others.
        max_models: Models held at once; the one that was not used for longest goes.
        max_batch: Pictures in one run; None for 1 on a CPU, where more gain nothing, else 8.
        max_wait_ms: How long a run waits to be filled, in milliseconds.
        concurrency: Runs of one model at once; None for 2 on a CPU with 2 cores or more, else 1.
        max_queue: Requests of one model that may wait beside those that run; None for as many as run at once. Others
            get 429 and when to come back.
        timeout: Seconds that a request may take, its model's loading included.
        max_body: Bytes of a request's body.
        max_pixels: Pixels of a picture, read in its header.
        max_images: Pictures in one request.
        max_prompts: Points, boxes or example boxes in one request.
        max_texts: Texts in one request.
        max_candidates: Boxes that enter non-maximum suppression, of networks that need it.
        max_requests: Requests held at once, whatever they want.
        max_connections: Connections held at once.
        read_seconds: Time for a request's head, and again for its body; a client that is slower is cut off.
        write_seconds: Time for a client to take what it asked for.
        drain_seconds: Time for what is running once the server was told to stop.
        allow_urls: Fetch pictures that a request names by address; public addresses only.
    """

    host: str = "127.0.0.1"
    port: int = 9001
    api_key: str | None = field(default=None, repr=False)
    no_key: bool = False
    device: str | None = None
    backend: str | None = None
    precision: str | None = None
    fixed: bool = False
    max_models: int = 4
    max_batch: int | None = None
    max_wait_ms: float = 0.0
    concurrency: int | None = None
    max_queue: int | None = None
    timeout: float = 60.0
    max_body: int = 32 * MIB
    max_pixels: int = 50_000_000
    max_images: int = 16
    max_prompts: int = 256
    max_texts: int = 256
    max_candidates: int = 3000
    max_requests: int = 256
    max_connections: int = 1024
    read_seconds: float = 20.0
    write_seconds: float = 30.0
    drain_seconds: float = 30.0
    allow_urls: bool = False

    def __post_init__(self) -> None:
        for name in (
            "max_models", "max_body", "max_pixels", "max_images", "max_prompts", "max_texts", "max_candidates",
            "max_requests", "max_connections",
        ):  # fmt: skip
            positive(name, getattr(self, name))
        for name in ("max_batch", "concurrency", "max_queue"):
            if getattr(self, name) is not None:
                positive(name, getattr(self, name))
        for name in ("timeout", "read_seconds", "write_seconds", "drain_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise OptionError(f"{name} is not valid", found=repr(getattr(self, name)), expected="seconds above 0")
        if not 0 <= self.max_wait_ms <= 10_000:
            raise OptionError("max_wait_ms is not valid", found=repr(self.max_wait_ms), expected="0 to 10000")
        if not 0 <= self.port <= 65535:
            raise OptionError("port is not valid", found=repr(self.port), expected="0 to 65535")
        if self.api_key is not None and (len(self.api_key) < 8 or not self.api_key.isascii()):
            raise OptionError("the key is not usable", expected="8 or more ASCII characters; its value is not shown")
        if self.api_key is None and not self.no_key and not is_loopback(self.host):
            raise OptionError(
                f"the address {self.host} can be reached by others, and no key is asked for",
                expected="a key, or the word that none is wanted",
                fix="export LENSMOUNT_KEY=…; lensmount serve --api-key-env LENSMOUNT_KEY, or add --no-key",
            )


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach an address; names other than `localhost` are taken as public."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
