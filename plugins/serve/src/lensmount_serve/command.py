"""`lensmount serve`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from lensmount.cli.settings import DeviceName
from lensmount.errors import OptionError


def serve(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models to load first: ids, files, folders, or NAME=one of these.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any.")] = 9001,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable with the key to ask for.")] = None,
    no_key: Annotated[bool, typer.Option("--no-key", help="Ask for no key on an address that others reach.")] = False,
    fixed: Annotated[bool, typer.Option("--fixed", help="Clients cannot add models.")] = False,
    max_models: Annotated[int, typer.Option(help="Models held at once.")] = 4,
    max_batch: Annotated[int | None, typer.Option(help="Pictures in one run.")] = None,
    max_wait: Annotated[float, typer.Option(help="Milliseconds that a run waits to be filled.")] = 0.0,
    concurrency: Annotated[int | None, typer.Option(help="Runs of one model at once.")] = None,
    max_queue: Annotated[int | None, typer.Option(help="Requests that may wait for one model.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that a request may take.")] = 60.0,
    max_body_mb: Annotated[int, typer.Option(help="Megabytes of a request.")] = 32,
    max_pixels: Annotated[int, typer.Option(help="Pixels of a picture.")] = 50_000_000,
    allow_urls: Annotated[bool, typer.Option("--allow-urls", help="Fetch pictures by public addresses.")] = False,
    backend: Annotated[str | None, typer.Option(help="Backend of all models.")] = None,
    device: DeviceName = None,
    precision: Annotated[str | None, typer.Option(help="Precision of all models.")] = None,
) -> None:
    """Answer requests over HTTP: the routes of inference_sdk clients, /v1/predict, and a page to try models on."""
    import logging

    from lensmount.cli.output import err
    from lensmount_serve.app import make_app
    from lensmount_serve.server import make_server
    from lensmount_serve.settings import MIB, Settings

    key = None
    if api_key_env is not None:
        key = os.environ.get(api_key_env)
        if not key:
            raise OptionError(
                "the key is not there", found=f"no environment variable {api_key_env}", fix=f"export {api_key_env}=…"
            )
    settings = Settings(
        host=host,
        port=port,
        api_key=key,
        no_key=no_key,
        fixed=fixed,
        max_models=max(max_models, len(models or ())),
        max_batch=max_batch,
        max_wait_ms=max_wait,
        concurrency=concurrency,
        max_queue=max_queue,
        timeout=timeout,
        max_body=max_body_mb * MIB,
        max_pixels=max_pixels,
        allow_urls=allow_urls,
        backend=backend,
        device=device,
        precision=precision,
    )
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.captureWarnings(True)
    app = make_app(models or (), settings)
    server = make_server(app, settings)
    app.on_failed = lambda: setattr(server, "should_exit", True)
    err().print(f"http://{host}:{port}/ (a page to try models on); Ctrl-C stops", markup=False, soft_wrap=True)
    server.run()
    if app.failed is not None:
        raise app.failed
