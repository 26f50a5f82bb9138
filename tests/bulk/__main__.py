"""20,000 small pictures in bulk, disturbed and killed, against an undisturbed run; and memory.

    python -m tests.bulk [--pictures N] [--seed N]

Leaves with status 1 if a row is missing, doubled or has another vector, or if a run that should end does not.
Memory is told, by quarters of a run; it fails nothing. How fast bulk runs are, `python -m bench` measures.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from tests.bulk.pictures import fill_folder, fill_tar
from tests.bulk.running import (
    SECRET,
    WORKER,
    Memory,
    endpoint,
    environment,
    faults_told,
    finish,
    kill_after,
    parts_of,
    start,
)
from tests.bulk.stand_in import StandIn, table
from tests.bulk.stand_in import run as bulk_run


SOURCES = ("folder", "shard.tar")
PART_ROWS = 1024
UNSIGNED = {name: value for name, value in WORKER.items() if value != SECRET} | {"ALLOW_INSECURE_AUTH": "1"}
MOST_DIFFERENCE = 1e-2  # of a cosine from 1, in bf16 and batches of other sizes
TEXTS = 200_000


def main():
    """Run all of it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bulk", description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=20_000, metavar="N", help="(20000)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of faults and kills (1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bulk-") as folder:
        place = Path(folder)
        half = options.pictures // 2
        fill_folder(place / "folder", range(half))
        fill_tar(place / "shard.tar", range(half, options.pictures))
        print(f"{options.pictures} pictures of 96x96, half in a folder, half in a tar")
        undisturbed(place)
        is_right = disturbed(place, options) & local(place)
        flat(place)
    print("every row is there once, with its vector" if is_right else "THE RESULT DIFFERS")
    return 0 if is_right else 1


def run(place, out, *arguments, env):
    """Run to the end; return its memory."""
    process = start(*SOURCES, "--out", out, "--part-rows", PART_ROWS, *arguments, cwd=place, env=env)
    memory = Memory(process)
    status, output = finish(process, timeout_s=600)
    if status != 0:
        raise RuntimeError(f"{out} ended with {status}: {output[-1500:]}")
    return memory


def undisturbed(place):
    """Make plain.parquet by an open worker whose platform behaves, and tell its memory."""
    with endpoint(worker=UNSIGNED) as platform:
        memory = run(
            place,
            "plain.parquet",
            "--endpoint",
            "loopback",
            env=environment(platform, EMBEDDING_HMAC_SECRET=""),
        )
    print(f"undisturbed: {memory.told()}")


def disturbed(place, options):
    """Make disturbed.parquet through faults and kills; return whether it equals plain.parquet."""
    out, chosen = place / "disturbed.parquet", random.Random(options.seed)
    parts = -(-options.pictures // PART_ROWS)
    started_s = time.monotonic()
    with endpoint(share=0.05, done_delay_s=0.1, duplicates=True, seed=options.seed) as platform:
        arguments = (*SOURCES, "--out", out.name, "--part-rows", PART_ROWS, "--endpoint", "loopback")
        for share in (0.15, 0.4, 0.7):
            process = start(*arguments, cwd=place, env=environment(platform))
            was_running = kill_after(process, out, max(1, int(parts * share)), more_s=chosen.uniform(0, 1))
            print(
                f"killed with {parts_of(out)} of {parts} parts there" if was_running else "IT WAS DONE BEFORE"
            )
        run(place, out.name, "--endpoint", "loopback", env=environment(platform))
        print(f"{faults_told(platform)}; {time.monotonic() - started_s:.0f} s in all")
    return is_equal(place, out.name)


def local(place):
    """Make local.parquet by --local and tell its memory; return whether it equals plain.parquet."""
    memory = run(place, "local.parquet", "--local", env=environment())
    print(f"--local, the model included: {memory.told()}")
    return is_equal(place, "local.parquet")


def is_equal(place, name):
    """Tell how an output compares with plain.parquet; return whether each row is there once, and alike."""
    (ids, vectors), (plain_ids, plain) = table(place / name), table(place / "plain.parquet")
    cosines = np.sum(vectors * plain, axis=1) if vectors.shape == plain.shape else np.zeros(1)
    print(
        f"{name}: {len(ids)} rows, {len(set(ids))} ids, equal to the undisturbed: {ids == plain_ids}; "
        f"cosines of rows {cosines.min():.6f} at least"
    )
    return ids == plain_ids and len(set(ids)) == len(ids) and 1 - cosines.min() < MOST_DIFFERENCE


def flat(place):
    """Tell the memory of a run of ten times as many texts, through a backend that costs nothing."""
    listed = place / "texts.txt"
    listed.write_text("".join(f"text number {number}\n" for number in range(TEXTS)), encoding="utf-8")
    backend, held_mb = StandIn(max_items=64), []
    look = threading.Event()

    def keep_looking():
        while not look.wait(0.25):
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            held_mb.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)

    looking = threading.Thread(target=keep_looking)
    looking.start()
    bulk_run(place / "texts.parquet", listed, backend=backend)
    look.set()
    looking.join()
    size = len(held_mb) // 4
    told = ", ".join(f"{max(held_mb[i * size : (i + 1) * size]):.0f}" for i in range(4))
    print(f"{TEXTS} texts through a backend that costs nothing: at most {told} MB in each quarter")


if __name__ == "__main__":
    sys.exit(main())
