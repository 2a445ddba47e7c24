"""The service as one process: page, uploads and model behind one port."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from diffrgen.errors import DataError
from diffrgen.serving.options import ServeOptions
from diffrgen.serving.upload import private_folder

if TYPE_CHECKING:
    from uvicorn import Server

INSTALL = 'the web page needs Gradio: pip install "diffrgen[serve]"'
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False"}

MOST_CONNECTIONS, STOPS_WITHIN = 256, 2


def serve(options: ServeOptions) -> None:
    """Serve until interrupted; prints the page's address once it can be opened.

    Raises:
        DataError: Gradio is missing, the folder is no run, or the address cannot be listened on.
    """
    with _listen(options.host, options.port) as listener, private_folder() as folder:
        # Read when Gradio is imported: it is to call nobody, and to leave no folder of its own behind.
        os.environ.update(QUIET, GRADIO_TEMP_DIR=str(folder / "gradio"))
        try:
            import uvicorn

            from diffrgen.serving.application import make_application
        except ModuleNotFoundError as error:
            if error.name not in {"gradio", "uvicorn"}:
                raise
            raise DataError(INSTALL) from error
        application = make_application(options, folder)
        # No access log: nothing that a visitor sends is written down.
        server = uvicorn.Server(
            uvicorn.Config(
                application,
                access_log=False,
                log_level="warning",
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=STOPS_WITHIN,
            )
        )
        asyncio.run(_run(server, listener, options.host))


async def _run(server: Server, listener: socket.socket, host: str) -> None:
    """Run the server, and say where it is once it answers."""
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not task.done():
        await asyncio.sleep(0.02)
    if server.started:
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{listener.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
    await task


def _listen(host: str, port: int) -> socket.socket:
    """Take the address before anything is loaded; DataError where it is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot listen on {host}, port {port}: {reason}; choose another with --host or --port") from error
    return listener
