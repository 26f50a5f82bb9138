"""The client and its process: how light its import is, Ctrl-C, and forks."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from embedding.client import ClientError, Closed, HttpClient, ServerlessClient
from tests.client.scripted import Answer, as_worker, scripted
from tests.loopback import LoopbackRunPod


ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "pydantic", "httpx", "PIL", "runpod", "open_clip", "fastapi", "embedding.settings")
MAX_IMPORT_S = 0.3


def python(program):
    """Return what *program* prints in a fresh interpreter."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout


def interrupted_after(delay_s, call):
    """Run *call* and send Ctrl-C to this process meanwhile; return how long the end took after it."""
    sent = []

    def interrupt():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(delay_s, interrupt)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call()
        return time.monotonic() - sent[0]
    finally:
        timer.join()


def test_import_is_light():
    """Importing the client brings nothing that a program would wait for."""
    loaded = python("import sys, embedding.client; print(*sys.modules)").split()

    assert [name for name in HEAVY if name in loaded] == []


def test_import_is_fast():
    """It takes less than 0.3 s, the best of five."""
    program = "import time; t = time.perf_counter(); import embedding.client; print(time.perf_counter() - t)"

    assert min(float(python(program)) for _ in range(5)) < MAX_IMPORT_S


@pytest.mark.parametrize("is_long", [False, True])
def test_ctrl_c_cancels_the_remote_job(is_long):
    """While nobody takes the job, before and after its id is known, Ctrl-C ends it on the platform."""
    with LoopbackRunPod() as platform:
        options = {"api_url": platform.base_url, "is_long": is_long, "max_batch_size": 1}
        with ServerlessClient(platform.endpoint_id, platform.api_key, **options) as client:
            took_s = interrupted_after(0.4, lambda: client.embed_texts(["a", "b", "c"]))
            jobs = platform.health()["jobs"]

    assert took_s < 4
    assert jobs["inQueue"] == jobs["inProgress"] == 0


def test_a_second_ctrl_c_waits_for_nothing():
    """Whoever insists is let go, even while the platform does not answer."""
    with scripted() as script:
        script.answers = [lambda _: time.sleep(8)] * 2
        client = ServerlessClient("x1", "key", api_url=f"{script.url}/v2")
        again = threading.Timer(0.8, os.kill, (os.getpid(), signal.SIGINT))
        again.start()
        took_s = interrupted_after(0.3, lambda: client.embed_text("x"))
        again.join()

    assert 0.4 < took_s < 2


def test_a_forked_process_uses_the_client_that_it_got():
    """A pool of processes shares a client made before them, and its parent goes on using it."""
    program = """
import multiprocessing, sys
from embedding.client import HttpClient

def embed(text):
    return client.embed_text(text).tolist()

with HttpClient(sys.argv[1]) as client:
    first = embed("a")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(embed, ["a", "b", "c", "d"]) == [first] * 4)
    print(embed("a") == first)
"""
    assert "fork" in multiprocessing.get_all_start_methods()
    with scripted() as script:
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, script.url]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)

    assert done.stdout.split() == ["True", "True"], done.stderr


def test_a_client_that_was_never_used_holds_nothing():
    """Making and closing a client starts no thread and opens no connection."""
    before = threading.active_count()
    clients = [HttpClient("http://127.0.0.1:9") for _ in range(20)]

    assert threading.active_count() == before
    for client in clients:
        client.close()


def wait_until(is_so, *, within_s=20):
    """Wait until *is_so* returns True."""
    end_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_dropped_clients_end():
    """Those that nobody closes end their threads and connections when they are collected."""
    threads, pools = [], []
    with scripted() as script:
        for _ in range(3):
            client = HttpClient(script.url)
            client.embed_text("x")
            threads.append(client._portal._thread)
            pools.append(client._client._transport._wire._http)
        del client
        gc.collect()

        wait_until(lambda: not any(thread.is_alive() for thread in threads))
    assert all(pool.is_closed for pool in pools)


@pytest.mark.parametrize("failing", [[Answer(401)], [lambda asked: as_worker(asked, failing=[0])] * 3])
@pytest.mark.usefixtures("short_pauses")
def test_what_a_call_raised_holds_no_client(failing):
    """Callers whose calls fail leave no threads behind until a collection that may be long in coming."""
    with scripted() as script:
        client, script.answers = HttpClient(script.url), failing
        gc.collect()
        gc.disable()
        try:
            with suppress(ClientError):
                client.embed_text("x")
            thread = client._portal._thread
            del client
            wait_until(lambda: not thread.is_alive())
        finally:
            gc.enable()


def test_a_client_may_be_dropped_in_its_own_thread():
    """Where the last reference goes in the loop that it is to end, that ends too."""
    with scripted() as script:
        client = HttpClient(script.url)
        client.embed_text("x")
        thread, loop, held = client._portal._thread, client._portal._loop, [client]
        del client
        gc.collect()
        loop.call_soon_threadsafe(held.clear)

        wait_until(lambda: not thread.is_alive())
    assert loop.is_closed()


def test_a_process_may_forget_its_clients():
    """A forked child may drop a client that its parent goes on using, and a process may end with one open."""
    program = """
import os, sys
from embedding.client import HttpClient

client = HttpClient(sys.argv[1])
client.embed_text("a")
child = os.fork()
if not child:
    del client
    os._exit(0)
print(os.waitpid(child, 0)[1], client.embed_text("b").shape)
"""
    with scripted() as script:
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, script.url]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)

    assert (done.returncode, done.stdout, done.stderr) == (0, "0 (4,)\n", "")


@pytest.mark.parametrize("fault", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_a_generator_may_end_its_program(fault):
    """What it raises is raised where the call was, and the client goes on."""

    def texts():
        yield "a"
        raise fault

    with scripted() as script, HttpClient(script.url) as client:
        with pytest.raises(type(fault)):
            client.embed_texts(texts())

        assert client.embed_text("x").shape == (4,)


def test_generators_may_wait_for_each_other():
    """However many calls of one client read, none takes the thread that another needs to go on."""
    together = threading.Barrier(34)  # asyncio has 32 threads at most

    def texts():
        together.wait(30)
        yield "a"
        yield str(client.embed_text("b"))

    with scripted() as script, HttpClient(script.url) as client:
        with ThreadPoolExecutor(together.parties) as callers:
            calls = [callers.submit(client.embed_texts, texts()) for _ in range(together.parties)]

    assert all(len(call.result()) == 2 for call in calls)


def test_closing_does_not_wait_for_a_generator():
    """A call whose generator says nothing is told that the client was closed, and closing goes on."""
    is_read, is_over = threading.Event(), threading.Event()

    def texts():
        is_read.set()
        is_over.wait(60)
        yield "a"

    def wait():
        with pytest.raises(Closed) as closed:
            client.embed_texts(texts())
        told.append(closed.value)

    told = []
    client = HttpClient("http://127.0.0.1:9")
    thread = threading.Thread(target=wait)
    thread.start()
    is_read.wait(20)
    start_s = time.monotonic()
    try:
        client.close()
        thread.join(20)
        took_s = time.monotonic() - start_s
    finally:
        is_over.set()

    assert (len(told), took_s < 30) == (1, True)


def test_help_teaches():
    """`help(ServerlessClient)` says what each argument is for."""
    for kind in (ServerlessClient, HttpClient):
        told = python(f"from embedding.client import {kind.__name__} as kind; help(kind)")

        assert all(f"*{name}" in told for name in ("secret", "timeout_s", "concurrency"))
        assert "embed_images" in told and "on_error" in told
