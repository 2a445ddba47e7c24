"""Faults of the page: ends that leave something behind, and one client that locks all others out."""

from __future__ import annotations

import asyncio
import doctest
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the web page needs the extra diffrgen[serve]")
pytest.importorskip("httpx", reason="a visitor without a browser needs httpx")
from page_server import Visitor, serving, spoken

from diffrgen.errors import DataError
from diffrgen.images import ResizedImages, read_resized
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.serving import UploadLimits, clients
from diffrgen.serving.clients import Turns
from diffrgen.serving.connections import MOST_CONNECTIONS
from diffrgen.serving.gallery import Example
from diffrgen.serving.guard import MOST_PER_CLIENT, Guard
from diffrgen.serving.image_reader import ImageReader
from diffrgen.serving.private_folder import PREFIX, private_folder, remove_abandoned
from diffrgen.serving.service import ReportService

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked up in Linux's /proc")
# No limit of the service: after this a test gives up.
PATIENCE = 600
# Says when a report is being generated, and then generates for ever.
GENERATES_FOR_EVER = """
import threading, pathlib, os
from diffrgen.explanation import Explainer
def explain(*arguments, **options):
    pathlib.Path(os.environ["TMPDIR"], "generating").touch()
    threading.Event().wait()
    yield
Explainer.explain = explain
"""


def png(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


RADIOGRAPH = png(np.add.outer(np.arange(200), np.arange(180)).astype(np.uint8))


def is_report(answer: str) -> bool:
    return '<article class="diffrgen' in answer


def wait_until(condition, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE} s for {what}"
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """The processes that `pid` has started and that still run."""
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


# Ends


@contextmanager
def generating(run: Path, folder: Path):
    """A service with a report under way that never ends, and the process that decodes its images."""
    with serving(run, folder, "--examples", "1", before=GENERATES_FOR_EVER) as server:
        visitor = Visitor(server.url)
        sent = visitor.send(RADIOGRAPH)
        # The visitor leaves with the service, so that what becomes of the answer does not matter.
        threading.Thread(target=suppressed, args=(visitor.ask,), kwargs={"image": sent}, daemon=True).start()
        wait_until((server.temporary / "generating").exists, "the report to be generated")
        (decoder,) = children(server.pid)
        yield server, decoder


def suppressed(ask, **request: object) -> None:
    try:
        ask(**request)
    except Exception as error:
        print(f"the visitor was cut off: {error}")


@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_every_signal_ends_it_clean_while_a_report_is_generated(tiny_run, tmp_path, number):
    with generating(tiny_run, tmp_path) as (server, decoder):
        (private,) = server.temporary.glob("diffrgen-serve-*")
        assert private.stat().st_mode & 0o777 == 0o700
        server.process.send_signal(number)
        assert server.process.wait(PATIENCE) == 128 + number
    wait_until(lambda: not runs(decoder), "the decoding process to end")
    assert [path.name for path in server.temporary.iterdir()] == ["generating"]


@linux
def test_a_kill_ends_the_decoding_process_and_the_next_start_removes_the_files(tiny_run, tmp_path):
    with generating(tiny_run, tmp_path) as (server, decoder):
        server.process.kill()
        server.process.wait(PATIENCE)
    wait_until(lambda: not runs(decoder), "the decoding process to end")
    (left,) = server.temporary.glob("diffrgen-serve-*")
    with serving(tiny_run, tmp_path, "--examples", "1") as again:
        (new,) = again.temporary.glob("diffrgen-serve-*")
    assert new != left


@linux
def test_a_signal_ends_the_start_clean(tiny_run, tmp_path):
    """The network is being loaded: its loading says so, and waits for ever."""
    code = f"""
import pathlib, signal, sys, threading
from diffrgen import serve
from diffrgen.command import run_command
from diffrgen.reporting.reporter import Reporter
def load(*arguments, **options):
    print("loading", flush=True)
    threading.Event().wait()
Reporter.__init__ = load
sys.argv[1:] = [{str(tiny_run)!r}, "--port", "0"]
sys.exit(run_command(serve.main))
"""
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "loading\n"
        assert list(tmp_path.glob("diffrgen-serve-*"))
        process.terminate()
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_private_folder_is_its_users_alone_and_goes_with_its_content(temporary):
    with private_folder() as folder:
        (folder / "image.png").write_bytes(b"x")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.parent == temporary
    assert list(temporary.iterdir()) == []


def test_an_abandoned_folder_is_removed_and_nothing_else(temporary):
    abandoned, other = temporary / f"{PREFIX}abandoned", temporary / "diffrgen-other"
    elsewhere, link = temporary / "elsewhere", temporary / f"{PREFIX}link"
    for folder in (abandoned, other, elsewhere):
        folder.mkdir()
        (folder / "kept").touch()
    link.symlink_to(elsewhere)
    (temporary / f"{PREFIX}file").touch()
    with private_folder() as living:
        remove_abandoned(temporary)
        assert living.is_dir()
        names = {path.name for path in temporary.iterdir()}
    assert names == {living.name, other.name, elsewhere.name, link.name, f"{PREFIX}file"}
    assert (elsewhere / "kept").exists()


# One client and the others


@pytest.fixture(scope="module")
def server(tiny_run, tmp_path_factory):
    with serving(tiny_run, tmp_path_factory.mktemp("faults"), "--examples", "1") as server:
        yield server


def connected(url: str, sent: bytes, address: str = "127.0.0.1") -> socket.socket:
    host, port = url.split("/")[2].split(":")
    connection = socket.create_connection((host, int(port)), PATIENCE, (address, 0))
    connection.sendall(sent)
    return connection


UPLOAD = b"POST /images HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n"


def test_half_open_connections_lock_nobody_out(server):
    """Over the limit the newest is served: each new connection closes the one that has waited longest."""
    with ExitStack() as stack:
        for _ in range(MOST_CONNECTIONS + 4):
            stack.enter_context(connected(server.url, b"GET / HTTP/1.1\r\nhost: 127"))
        assert is_report(Visitor(server.url).report(RADIOGRAPH))


def test_a_request_whose_headers_do_not_come_is_closed(tiny_run, tmp_path):
    with serving(tiny_run, tmp_path, "--examples", "1", "--header-seconds", "0.5") as server:
        for sent in (b"", b"GET / HTTP/1.1\r\nhost: 127"):
            with connected(server.url, sent) as connection:
                assert connection.recv(100) == b""
        # A second request on a connection that has been answered before.
        with connected(server.url, b"GET /robots.txt HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\nGET") as connection:
            received = b""
            while part := connection.recv(65536):
                received += part
            assert received.startswith(b"HTTP/1.1 200")


@linux
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_stalled_uploads_lock_nobody_out(server, address):
    """For another client at once, for one of the same address when the pause has grown too long."""
    with ExitStack() as stack:
        stalled = [stack.enter_context(connected(server.url, UPLOAD % 1000 + b"\x89P")) for _ in range(8)]
        assert is_report(Visitor(server.url, address).report(RADIOGRAPH))
        for connection in stalled:
            answer = b""
            while part := connection.recv(4096):
                answer += part
            assert answer.startswith(b"HTTP/1.1 408")


def test_a_stalled_request_is_told_so(server):
    sent = b"POST /gradio_api/queue/join HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n{"
    with connected(server.url, sent) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_tiny_uploads_lock_nobody_out(server):
    """What is no image is refused when it is sent; of images that nobody asks for, the oldest are forgotten."""
    flooder = Visitor(server.url)
    for _ in range(8):
        assert flooder.send(b"\xff\xd8") == (
            "This is not an X-ray image: needed a PNG, JPG or DICOM file; this one is none of them."
        )
        assert "cannot be read" in flooder.send(b"\xff\xd8\xff")
    for _ in range(8):
        assert "token" in flooder.send(png(np.zeros((1, 1), np.uint8)))
    assert is_report(Visitor(server.url).report(RADIOGRAPH))


def test_one_client_holds_half_of_the_connections_at_most():
    """The others' requests are answered while its own are."""
    released, answered = asyncio.Event(), []

    async def application(scope, receive, send) -> None:
        if scope["client"][0] == "10.0.0.1":
            await released.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def ask(guard: Guard, host: str) -> None:
        async def send(message) -> None:
            if message["type"] == "http.response.start":
                answered.append((host, message["status"]))

        await guard({"type": "http", "path": "/config", "method": "GET", "client": (host, 1)}, None, send)

    async def scenario() -> None:
        guard = Guard(application, UploadLimits(), unbounded=frozenset())
        tasks = [asyncio.create_task(ask(guard, "10.0.0.1")) for _ in range(MOST_PER_CLIENT + 1)]
        await asyncio.sleep(0)
        await ask(guard, "10.0.0.2")
        assert sorted(answered) == [("10.0.0.1", 429), ("10.0.0.2", 200)]
        released.set()
        await asyncio.gather(*tasks)
        assert answered.count(("10.0.0.1", 200)) == MOST_PER_CLIENT
        await ask(guard, "10.0.0.1")
        assert answered[-1] == ("10.0.0.1", 200)

    asyncio.run(scenario())


def test_client_names():
    assert doctest.testmod(clients).failed == 0


async def hold(turns: Turns, client: str, order: list[str], release: asyncio.Event) -> str:
    try:
        async with turns.turn(client):
            order.append(client)
            await release.wait()
            release.clear()
            return "served"
    except DataError:
        return "refused"


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_places_go_to_clients_by_turns():
    async def scenario() -> list[str]:
        turns, order, release = Turns(1, per_client=1, waiting=9), [], asyncio.Event()
        tasks = [asyncio.create_task(hold(turns, client, order, release)) for client in "aaaabbc"]
        for _ in tasks:
            await settled()
            release.set()
        assert await asyncio.gather(*tasks) == ["served"] * 7
        return order

    assert "".join(asyncio.run(scenario())) == "abcabaa"


def test_a_client_has_no_more_than_its_places():
    async def scenario() -> None:
        turns, order, release = Turns(3, per_client=2, waiting=9), [], asyncio.Event()
        tasks = [asyncio.create_task(hold(turns, client, order, release)) for client in "aaab"]
        await settled()
        assert "".join(order) == "aab"
        for _ in tasks:
            release.set()
            await settled()
        assert "".join(order) == "aaba"
        assert await asyncio.gather(*tasks) == ["served"] * 4

    asyncio.run(scenario())


def test_where_all_waiting_places_are_taken_the_client_with_most_gives_way():
    async def scenario() -> list[str]:
        turns, order, release = Turns(1, per_client=1, waiting=3), [], asyncio.Event()
        tasks = [asyncio.create_task(hold(turns, client, order, release)) for client in "aaaabbc"]
        for _ in tasks:
            await settled()
            release.set()
        assert "".join(order) == "abca"
        return await asyncio.gather(*tasks)

    # a, then three of a wait; b displaces the last; b's second would have as many as a has; c displaces one more of a.
    assert asyncio.run(scenario()) == ["served", "served", "refused", "refused", "served", "refused", "served"]


def test_a_client_that_goes_away_gives_its_place_to_the_next():
    async def scenario() -> None:
        turns, order, release = Turns(1, per_client=1, waiting=9), [], asyncio.Event()
        tasks = [asyncio.create_task(hold(turns, client, order, release)) for client in "abc"]
        await settled()
        tasks[1].cancel()
        tasks[0].cancel()
        await settled()
        release.set()
        assert await tasks[2] == "served"
        assert order == ["a", "c"]
        async with turns.turn("d"):
            pass

    asyncio.run(scenario())


# Decoding


@pytest.fixture
def reader(tmp_path):
    reader = ImageReader(tmp_path, (32, None), UploadLimits(decode_seconds=0.05))
    yield reader
    reader.close()


def test_an_image_that_takes_too_long_costs_its_process_and_the_next_is_read(reader, tmp_path):
    """16 million pixels take more than 0.05 s of processor time on any machine."""
    heavy = png(np.random.default_rng(0).integers(0, 256, (4000, 4000), dtype=np.uint8))
    with pytest.raises(DataError, match="cannot be read"):
        reader.read(heavy).result(PATIENCE)
    reader._limits = UploadLimits()
    image = reader.read(RADIOGRAPH).result(PATIENCE)
    (tmp_path / "radiograph.png").write_bytes(RADIOGRAPH)
    for size in (32, None):
        assert image.at(size).tobytes() == read_resized(tmp_path / "radiograph.png", size).tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["radiograph.png"]


def test_a_request_that_waits_keeps_its_image_and_does_not_hold_up_the_loop():
    """While the model works, others wait for it with images that no longer can expire, and the loop is free."""
    working, go_on = threading.Event(), threading.Event()

    def explain(*arguments, **options):
        working.set()
        assert go_on.wait(PATIENCE)
        raise DataError("enough")

    explainer = SimpleNamespace(explain=explain, reporter=SimpleNamespace(takes_priors=False))
    service = ReportService(explainer, [Example(Path("a.png"), "a", "", "")], UploadLimits(), GenerationOptions())

    async def scenario() -> list[str]:
        first = asyncio.create_task(service.answer({"example": 0}, "a"))
        await asyncio.to_thread(working.wait, PATIENCE)
        token = service.held.put(ResizedImages({1: Image.new("L", (1, 1))}), "b")
        second = asyncio.create_task(service.answer({"image": {"token": token}}, "b"))
        await settled()
        assert len(service.held) == 0
        assert not first.done()
        assert not second.done()
        go_on.set()
        return await asyncio.gather(first, second)

    assert all("cannot be read" in spoken(answer) for answer in asyncio.run(scenario()))
