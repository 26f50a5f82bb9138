"""What a controller reads: every line an event, in order, one end, whatever the reader does meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from embedding.serve import events
from embedding.serve.mode import Mode
from embedding.serve.queue import make_handler
from embedding.serve.start import Worker
from embedding.settings import Settings, wants_events
from tests.fakes import FakeModel, fake_actions
from tests.loopback import LoopbackRunPod
from tests.serve.conftest import HANDLER, ROOT, SLOW_HANDLER, WORKER
from tests.serve.controller import COMPLETE, NEXT, Controller, Grammar, GrammarError, run_to_the_end
from tests.serve.http.process import OPEN, SERVE, serving
from tests.serve.http.test_life import SLOW, SLOW_ENV


ON = {"WORKER_EVENTS": "1"}
FREE = {"text": ""}  # no word, so a slowed forward takes no longer
FREE_JOB = {"id": "1", "input": {"text": "a"}}
FEW = 20  # lines for hundreds of jobs: two, but a starved machine pauses among them
START = ["connected", "initializing", "loading", "ready"]
ONE_TASK = [*START, "working", "text", "ready", "cleaning_up"]
LOCAL = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | ON


@pytest.fixture
def controller(tmp_path):
    """Return a controller whose FIFO awaits a worker."""
    controller = Controller(tmp_path)
    yield controller
    controller.close()


def line(event, **fields):
    """Return an event as it is written."""
    return json.dumps({"event": event, **fields})


class TestGrammar:
    """The controller itself: it must be able to find fault."""

    @pytest.mark.parametrize("last", [state for state in NEXT if state and state != "text"])
    def test_every_order_but_one_is_a_fault(self, last):
        """After each state only those that may follow pass."""
        for state in filter(None, NEXT):
            grammar = Grammar()
            grammar.told = [last]
            kind = {"connected": "connection", "completed": "finish", "failed": "finish"}.get(state, "worker")
            told = {"worker": {"status": state, "message": "m"}}.get(kind, {"status": state})
            told = {"content": "c"} if state == "text" else told
            kind = "text" if state == "text" else kind
            if state in NEXT[last] and state != "completed":
                grammar.take(line(kind, **told))
            else:
                with pytest.raises(GrammarError):
                    grammar.take(line(kind, **told))

    @pytest.mark.parametrize(
        "bad",
        ["", "ready", "[]", "{}", line("connection"), line("connection", status="connected", more=1),
         line("connection", status=None), line("worker", status="initializing", message="m"), "{}{}"],
    )  # fmt: skip
    def test_what_is_no_first_line(self, bad):
        """Print, other JSON, missing and unknown fields are faults."""
        with pytest.raises(GrammarError):
            Grammar().take(bad)

    def test_completed_means_all_of_it(self):
        """A run that ends while it still works has not completed."""
        assert COMPLETE.fullmatch(" ".join([*ONE_TASK, "completed"]))
        assert not COMPLETE.fullmatch(" ".join([*START, "working", "cleaning_up", "completed"]))
        assert not COMPLETE.fullmatch(" ".join([*START, "completed"]))


class TestQueue:
    def test_a_session(self, controller):
        """Bursts, hundreds of jobs at once, a reader who stops, and SIGTERM amid work: each told in order."""
        with LoopbackRunPod(hold_s=1.0) as platform:
            command = controller.command([sys.executable, "-P", str(SLOW_HANDLER)])
            with platform.worker(command, env=WORKER | ON) as worker:
                assert controller.wait("ready", timeout_s=60) == START
                for count in (2, 3):
                    assert platform.run_sync(FREE).status == "COMPLETED"
                    assert controller.wait("ready", count=count)[4:] == ["working", "ready"] * (count - 1)

                before = len(controller.told)
                assert run_jobs(platform, 400) == {"COMPLETED"}
                controller.wait_last("ready", after=before)
                assert 2 <= len(controller.told) - before <= FEW

                controller.stop_reading()
                for _ in range(6):
                    assert run_jobs(platform, 20) == {"COMPLETED"}
                    time.sleep(1.5 * events.QUIET_S)
                before = len(controller.told)
                controller.read_on()
                assert platform.run_sync(FREE).status == "COMPLETED"
                controller.wait_last("ready", after=before)
                assert 2 <= len(controller.told) - before <= 8  # what nobody took is left out

                job = platform.submit({"text": "one"})
                controller.wait_last("working")
                worker.terminate()
                assert controller.wait("completed")[-4:] == ["working", "ready", "cleaning_up", "completed"]
                assert worker.wait() == 0
                assert platform.result(job).status == "COMPLETED"
                assert "--- Starting Serverless Worker" in worker.log()
                assert worker.log().count("fingerprint ") == 1


def run_jobs(platform, count):
    """Run *count* jobs at once and return their states."""
    return {result.status for result in platform.wait_all(platform.submit_many([FREE] * count))}


class Lost(FakeModel):
    """A model whose device fails at the first text."""

    def embed_texts(self, _tokens):
        raise torch.AcceleratorError("the device is lost", 1)


@pytest.mark.parametrize(("model", "outcome"), [(FakeModel, "completed"), (Lost, "failed")])
def test_a_session_whose_device_fails(model, outcome, monkeypatch):
    """The exit status is 0 where the queue was asked for a fresh worker; the session has failed."""
    actions = fake_actions(model=model())
    with piped() as (tell, read):
        tell.loading()
        handler = make_handler(actions, tell)
        monkeypatch.setattr("embedding.serve.queue.run_sdk", lambda run, **_: asyncio.run(run(FREE_JOB)))
        engine = actions.pipeline.engine
        worker = Worker(Settings.from_env({}), Mode.QUEUE, engine, "", actions, handler, tell)

        assert worker.run() == 0
        assert read().told == [*START, "working", "ready", "cleaning_up", outcome]


class TestHttp:
    def test_load_and_a_device_that_fails(self, controller):
        """Hundreds of requests are few lines; a device that fails ends the session as failed, with 1."""
        with serving(
            SLOW_ENV | ON | {"WORKER_CONCURRENCY": "64"}, command=controller.command(SLOW)
        ) as service:
            assert controller.wait("ready") == START
            with ThreadPoolExecutor(8) as threads:
                assert set(threads.map(lambda _: ask(service.client, FREE), range(300))) == {200}
            controller.wait_last("ready", after=len(START))
            assert 2 <= len(controller.told) - len(START) <= FEW
            ask(service.client, {"text": "a " * 40})

            assert service.process.wait(20) == 1
            assert controller.wait("failed")[-2:] == ["cleaning_up", "failed"]
            assert "listening on" in service.log()

    def test_a_reader_who_goes_away(self, controller):
        """A broken pipe is told once in the log; requests are answered, and SIGTERM ends it with 0."""
        with serving(OPEN | ON, command=controller.command(SERVE)) as service:
            controller.wait("ready")
            controller.close()
            for _ in range(3):
                assert ask(service.client, FREE) == 200
                time.sleep(1.5 * events.QUIET_S)

            assert service.stop() == 0
            assert service.log().count("nobody reads the events any more") == 1


def ask(client, body):
    """Post *body* as a text and return the status."""
    return client.post("/v1/embed/text", json=body).status_code


class TestOneTask:
    @pytest.mark.parametrize("job", [FREE_JOB, {"id": "1", "input": {"text": 5}}])
    def test_dry_run(self, job):
        """The text event is the whole answer, or the whole error."""
        with piped() as (tell, read):
            tell.loading()
            tell.ready(is_session=False)
            answer = asyncio.run(make_handler(fake_actions(), tell)(job))
            tell.close("error" in answer)

            grammar = read()
            assert grammar.told == [*ONE_TASK, "failed" if "error" in answer else "completed"]
            assert json.loads(grammar.text) == answer

    def test_failing_smoke_test(self, tmp_path):
        """A task that fails tells its result too, and that it has failed."""
        env = LOCAL | {"SMOKE_TEST_IMAGE_URL": "http://127.0.0.1/x.jpg"}
        status, grammar, log = run_to_the_end(HANDLER, env=env, cwd=tmp_path)

        assert (status, grammar.told) == (1, [*ONE_TASK, "failed"])
        assert "✗ URL_REFUSED: " in grammar.text
        assert grammar.text.endswith("smoke test FAILED")
        assert grammar.text in log


class TestFailedStarts:
    @pytest.mark.parametrize(
        ("env", "told", "reason"),
        [
            ({}, ["initializing"], "EMBEDDING_HMAC_SECRET is not set"),
            ({"MAX_BATCH_SIZE": "0"}, ["initializing"], "MAX_BATCH_SIZE"),
            (
                {"MODEL_PATH": "nowhere", "MODEL_NAME": "mine", "EMBEDDING_HMAC_SECRET": "s" * 32},
                ["initializing", "loading"],
                "nowhere does not exist",
            ),
        ],
        ids=["no secret", "bad limit", "wrong model path"],
    )
    def test_one_line_and_a_finish(self, env, told, reason, tmp_path):
        """A start that is refused ends as failed, with the one line on stderr and status 1."""
        queue = {"RUNPOD_SERVERLESS": "1", "RUNPOD_WEBHOOK_GET_JOB": "http://127.0.0.1:9/job-take/$ID?x"}
        status, grammar, log = run_to_the_end(HANDLER, env=LOCAL | queue | env, cwd=tmp_path)

        assert (status, grammar.told) == (1, ["connected", *told, "failed"])
        assert log.startswith("✗ cannot start: ")
        assert log.count("\n") == 1
        assert reason in log

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_stopped_while_it_loads(self, controller, number, tmp_path):
        """A start that is stopped has failed, and the process dies by the signal as without events."""
        process = subprocess.Popen(
            controller.command(HANDLER), env=LOCAL, cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        controller.wait("loading")
        process.send_signal(number)

        assert process.wait(20) == -number
        assert controller.wait("failed") == ["connected", "initializing", "loading", "failed"]

    def test_one_that_leaves_with_0(self):
        """The HTTP service stops with 0 while it loads: it was never ready, so it has failed."""
        with piped() as (tell, read):
            tell.loading()
            tell.close(0)

            assert read().told == ["connected", "initializing", "loading", "failed"]


PROGRAM = """
import os, subprocess, sys, threading, time, ctypes
from embedding.serve import events
tell = events.open_events()
tell.loading()
tell.ready(is_session={is_session})
print("printed")
{body}
"""
ENDS = {
    "returns": ("sys.exit(tell.until_the_end(lambda: 0))", 0, "completed"),
    "returns a status": ("sys.exit(tell.until_the_end(lambda: 3))", 3, "failed"),
    "exits": ("tell.until_the_end(lambda: sys.exit(0))", 0, "completed"),
    "exits with a status": ("tell.until_the_end(lambda: sys.exit(4))", 4, "failed"),
    "exits with a message": ("tell.until_the_end(lambda: sys.exit('no'))", 1, "failed"),
    "raises": ("tell.until_the_end(lambda: 1 / 0)", 1, "failed"),
    "leaves at once": ("os._exit(0)", 0, "completed"),
    "leaves at once with a status": ("os._exit(5)", 5, "failed"),
    "leaves from a thread": (
        "threading.Thread(target=os._exit, args=[6]).start(); time.sleep(9)", 6, "failed"
    ),
    "does not say how": ("", 0, "failed"),
    "says it twice": ("tell.close(0); tell.close(1); tell.loading(); tell.answer('late')", 0, "completed"),
    "is stopped twice": (
        "os.fork() or (os.kill(os.getppid(), 15), os._exit(0)); os.kill(os.getpid(), 15); time.sleep(9)",
        -15, "completed",
    ),
    "is stopped": ("os.kill(os.getpid(), 15); time.sleep(9)", -15, "completed"),
}  # fmt: skip
INTRUDERS = {
    "child process": "subprocess.run(['echo', 'from a child'])",
    "C": "ctypes.CDLL(None).puts(b'from C'); ctypes.CDLL(None).fflush(None)",
    "descriptor 1": "os.write(1, b'from 1\\n')",
    "fork": "os.fork() or (print('from a fork'), tell.close(1), os._exit(0)); os.wait()",
    "sys.stdout": "sys.__stdout__.write('from the stream\\n')",
}


class TestEnds:
    """Programs without a model, each a process of its own."""

    @pytest.mark.parametrize("end", ENDS)
    def test_there_is_one_finish(self, end):
        """However a process comes to its end, that is told once and last, and its status stays what it is."""
        body, status, outcome = ENDS[end]
        done, grammar, _log = run_program(body)

        assert (done, grammar.told) == (status, [*START, "cleaning_up", outcome])

    def test_one_task_that_is_stopped(self):
        """A task that was stopped has failed; a session, above, did what it was told to."""
        body, status, _ = ENDS["is stopped"]
        done, grammar, _log = run_program(body, is_session=False)

        assert (done, grammar.told[-1]) == (status, "failed")

    @pytest.mark.parametrize("intruder", INTRUDERS)
    def test_nothing_else_is_on_stdout(self, intruder):
        """What is printed, by whomever, is on stderr, and no line of it among the events."""
        done, grammar, log = run_program(f"{INTRUDERS[intruder]}\ntell.close(0)")

        assert (done, grammar.told) == (0, [*START, "cleaning_up", "completed"])
        assert "printed\n" in log
        assert "from " in log

    @pytest.mark.parametrize(
        ("closed", "is_told"), [(">&-", False), ("2>&-", True), (">&- 2>&-", False), ("<&- >&-", False)]
    )
    def test_started_without_descriptors(self, closed, is_told):
        """A stdout or stderr that is closed stops nothing, and events never land among prints."""
        body = PROGRAM.format(is_session=True, body="tell.close(0)")
        command = ["bash", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, body]
        done, grammar, log = run_to_the_end(command, env=LOCAL, cwd=ROOT)

        assert (done, '"event"' in log) == (0, False)
        assert grammar.told == ([*START, "cleaning_up", "completed"] if is_told else [])

    def test_a_reader_who_never_reads(self, controller):
        """A pipe that stays full holds up the end for FLUSH_S, and no job at all."""
        body = PROGRAM.format(
            is_session=True,
            body="time.sleep(0.2); start = time.monotonic(); events.FLUSH_S = 0.5\n"
            "for _ in range(100_000):\n    with tell.job(): pass\n"
            "assert time.monotonic() - start < 2; assert tell._lines.qsize() < 5; tell.close(0)",
        )
        controller.stop_reading()
        began_s = time.monotonic()
        done = subprocess.run(
            controller.command([sys.executable, "-c", body]), env=LOCAL, timeout=30, check=False
        )

        assert done.returncode == 0
        assert 0.5 <= time.monotonic() - began_s < 3


def run_program(body, *, is_session=True):
    """Run PROGRAM with *body*; return exit status, grammar and stderr."""
    program = PROGRAM.format(is_session=is_session, body=body)
    return run_to_the_end([sys.executable, "-c", program], env=LOCAL, cwd=ROOT)


class TestJobs:
    """The one thread that writes, over a pipe in this process."""

    def test_alternating_jobs_are_one_burst(self):
        """Jobs with short pauses between, thousands a second, are one `working`, and `ready` at their end."""
        with piped() as (tell, read):
            tell.loading()
            tell.ready(is_session=True)
            end_s = time.monotonic() + 0.5
            count = 0
            while time.monotonic() < end_s:
                with tell.job():
                    count += 1
                time.sleep(0)
            time.sleep(3 * events.QUIET_S)
            tell.close(0)

            assert count > 1000
            assert read().told == [*START, "working", "ready", "cleaning_up", "completed"]

    @pytest.mark.parametrize("pause_s", [0, 2 * events.QUIET_S])
    def test_a_job_just_before_the_end(self, pause_s):
        """However short a burst, and however soon the end: it is told whole and first."""
        with piped() as (tell, read):
            tell.loading()
            tell.ready(is_session=True)
            with tell.job():
                pass
            time.sleep(pause_s)
            tell.close(0)

            assert read().told == [*START, "working", "ready", "cleaning_up", "completed"]

    def test_jobs_that_the_end_cuts_off(self):
        """A worker that leaves while jobs run was not ready again."""
        with piped() as (tell, read):
            tell.loading()
            tell.ready(is_session=True)
            with tell.job():
                tell.close(1)

            assert read().told == [*START, "working", "cleaning_up", "failed"]

    def test_answers_of_a_session_are_its_callers(self):
        """No text is told in a session, whoever else may read the events."""
        with piped() as (tell, read):
            tell.loading()
            tell.ready(is_session=True)
            with tell.job():
                tell.answer({"embedding": [0.1]})
            tell.close(0)

            assert "text" not in read().told

    def test_long_and_odd_texts_are_one_line(self):
        """Line ends, other scripts and a text longer than a pipe holds come through as they were."""
        text = "a\nb\u2028c\u2713 " * 50_000
        with piped() as (tell, read):
            tell.loading()
            tell.ready(is_session=False)
            with ThreadPoolExecutor(1) as threads:
                reading = threads.submit(read)
                with tell.job():
                    tell.answer(text)
                tell.close(0)

                assert reading.result(10).text == text

    def test_a_pipe_that_does_not_block(self):
        """A reader's end may have made the pipe nonblocking: the writer waits for room all the same."""
        with piped(blocking=False) as (tell, read):
            tell.loading()
            tell.ready(is_session=False)
            with tell.job():
                tell.answer("x" * 200_000)
            time.sleep(0.1)
            with ThreadPoolExecutor(1) as threads:
                reading = threads.submit(read)
                tell.close(0)

                assert reading.result(10).text == "x" * 200_000


@contextmanager
def piped(*, blocking=True):
    """Yield events, and what reads them to the end and returns their grammar."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, blocking)
    tell = events.Events(theirs)

    def read():
        content = b""
        while b'"finish"' not in content:
            content += os.read(ours, 1 << 16)
        grammar = Grammar()
        for each in content.split(b"\n")[:-1]:
            grammar.take(each)
        return grammar

    try:
        yield tell, read
    finally:
        tell.close(1)
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(None, False), ("", False), ("0", False), ("false", False), ("maybe", False),
     ("1", True), (" 1 ", True), ("true", True), ("ON", True)],
)  # fmt: skip
def test_when_events_are_wanted(value, wanted):
    """Only what says yes turns them on; a value that is none is refused later, by the settings."""
    assert wants_events({} if value is None else {"WORKER_EVENTS": value}) is wanted
