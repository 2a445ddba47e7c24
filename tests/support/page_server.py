"""The web page's service in a process of its own, and a visitor who talks to it over HTTP without a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path

from warm_process import WarmProcess

# Nothing is measured by it: a test gives up after that.
STARTS_WITHIN = 600


@dataclass(frozen=True)
class Server:
    """A running service: its address, process id, log, the folder for temporary files, and the process itself."""

    url: str
    pid: int
    log: Path
    temporary: Path
    process: WarmProcess

    def resident_megabytes(self) -> float:
        """What the process holds in memory now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024

    def files(self) -> set[str]:
        """Every temporary file of the service, Gradio's among them."""
        return {str(path.relative_to(self.temporary)) for path in self.temporary.rglob("*") if not path.is_dir()}


@contextmanager
def serving(run: Path, folder: Path, *flags: str, before: str = "") -> Iterator[Server]:
    """Serve `run` on a free port until the block ends; temporary files and the log go to `folder`.

    before: code that the process runs first.
    """
    temporary, log = folder / "temporary", folder / "log.txt"
    temporary.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"TMPDIR": str(temporary), "GRADIO_TEMP_DIR": str(temporary / "gradio")}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    main = "import sys\nfrom diffrgen import serve\nfrom diffrgen.command import run_command\nsys.exit(run_command(serve.main))"
    command = [sys.executable, "-c", f"{before}\n{main}", str(run), "--port", "0", *flags]
    with log.open("w") as output:
        process = WarmProcess(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        yield Server(_address(process, log), process.pid, log, temporary, process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: WarmProcess, log: Path) -> str:
    """Wait for the line with the address."""
    end = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < end and process.poll() is None:
        found = re.search(r"http://\S+", log.read_text())
        if found:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no address within {STARTS_WITHIN} s: {log.read_text()}")


class Visitor:
    """Asks for reports as the page's script does, by Gradio's queue and event stream."""

    def __init__(self, url: str, address: str | None = None) -> None:
        import httpx

        # address: of this machine's, 127.0.0.1 to 127.255.255.254 on Linux, that the visitor comes from.
        transport = httpx.HTTPTransport(local_address=address)
        self.client = httpx.Client(base_url=url, timeout=300, transport=transport)
        self.session = uuid.uuid4().hex[:12]
        dependencies = self.client.get("config").json()["dependencies"]
        (self.event,) = [d for d in dependencies if [name for _, name in d["targets"]] == ["submit"]]

    def send(self, content: bytes) -> dict | str:
        """Upload an image: what a request names it by, or why it was refused."""
        answer = self.client.post("images", content=content)
        return {"token": answer.text} if answer.status_code == 200 else answer.text

    def ask(self, **request: object) -> str:
        """Ask for a report and return the HTML of the answer."""
        target, _ = self.event["targets"][0]
        body = {"data": [], "event_data": request, "fn_index": self.event["id"], "session_hash": self.session}
        joined = self.client.post("gradio_api/queue/join", json=body | {"trigger_id": target})
        joined.raise_for_status()
        event = joined.json()["event_id"]
        with self.client.stream("GET", "gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if message.get("msg") == "process_completed" and message["event_id"] == event:
                    assert message["success"], message
                    return message["output"]["data"][0]
        raise AssertionError("the stream ended without an answer")

    def report(self, content: bytes) -> str:
        """Upload an image and ask for its report: the HTML, or the refusal in words."""
        sent = self.send(content)
        return sent if isinstance(sent, str) else spoken(self.ask(image=sent))


def spoken(answer: str) -> str:
    """The message within an answer that is one, else the answer."""
    told = re.fullmatch(r"<p data-problem hidden>(.*)</p>", answer, re.DOTALL)
    return unescape(told[1]) if told else answer
