"""Runs the service: page or API, uploads and model behind one port."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from diffrgen.errors import DataError, reason_of
from diffrgen.serving.api.bearer import read_token
from diffrgen.serving.options import ServeOptions
from diffrgen.serving.private_folder import private_folder
from diffrgen.serving.signals import ended_by_signals

if TYPE_CHECKING:
    from diffrgen.serving.uvicorn_server import EndingServer

INSTALL = 'the web page needs Gradio: pip install "diffrgen[serve]"'
INSTALL_API = 'the API needs FastAPI and uvicorn: pip install "diffrgen[api]"'
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False"}


def serve(options: ServeOptions) -> None:
    """Serve until a signal ends the process; prints the address once it can be opened.

    SIGINT, SIGTERM and SIGHUP remove every temporary file and end the process that decodes images, then this one, with
    status 128 + the signal's number, also while a report is generated.

    Raises:
        DataError: a library is missing, the folder is no run, the address cannot be listened on, or the API's token is
            missing or too short.
    """
    if options.api:
        read_token()
    with ended_by_signals() as ending:
        with _listen(options.host, options.port) as listener, private_folder() as folder:
            # Gradio reads these when it is imported: no calls to other hosts, and no folder left behind.
            os.environ.update(QUIET, GRADIO_TEMP_DIR=str(folder / "gradio"))
            try:
                from diffrgen.serving.uvicorn_server import make_server

                if options.api:
                    from diffrgen.serving.api.application import made_application
                else:
                    from diffrgen.serving.application import made_application
            except ModuleNotFoundError as error:
                if error.name not in {"gradio", "uvicorn", "fastapi", "starlette", "python_multipart"}:
                    raise
                raise DataError(INSTALL_API if options.api else INSTALL) from error
            with made_application(options, folder) as application:
                server = make_server(application, options.limits)
                ending.stop = server.stop
                # Not asyncio.run, which would wait for the thread that generates a report.
                asyncio.new_event_loop().run_until_complete(_run(server, listener, options.host))
        if not server.started:
            raise DataError("the service could not be started; the reason is logged above")
        ending.exit()


async def _run(server: EndingServer, listener: socket.socket, host: str) -> None:
    """Run the server, and print its address once it answers."""
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not task.done():
        await asyncio.sleep(0.02)
    if server.started:
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{listener.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
    await task


def _listen(host: str, port: int) -> socket.socket:
    """Take the address before anything is loaded; DataError if it is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise DataError(
            f"cannot listen on {host}, port {port}: {reason_of(error)}; choose another with --host or --port"
        ) from error
    return listener
