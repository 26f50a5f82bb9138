"""20,000 small pictures in bulk, disturbed and killed, against an undisturbed run; memory and speed.

    python -m tests.bulk [--pictures N] [--seed N]

Leaves with status 1 if a row is missing, doubled or has another vector, or if a run that should end does not.
Ratios are told with their targets; they measure, and fail nothing.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from bench.serving import Command, serving
from tests.bulk import ceiling
from tests.bulk.pictures import fill_folder, fill_tar, picture
from tests.bulk.running import (
    HANDLER,
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
TARGET = 0.90
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
        plain_per_s = undisturbed(place)
        is_right = disturbed(place, options)
        own_per_s = workers_own()
        ratio("over the loopback platform, against the worker's own", plain_per_s, own_per_s)
        compare_local(place)
        flat(place)
    print("every row is there once, with its vector" if is_right else "THE RESULT DIFFERS")
    return 0 if is_right else 1


def run(place, out, *arguments, env):
    """Run to the end; return rows a second, measured by the run itself, and its memory."""
    process = start(*SOURCES, "--out", out, "--part-rows", PART_ROWS, *arguments, cwd=place, env=env)
    memory = Memory(process)
    status, output = finish(process, timeout_s=600)
    if status != 0:
        raise RuntimeError(f"{out} ended with {status}: {output[-1500:]}")
    line = next(line for line in output.splitlines() if " rows now, in " in line)
    return float(line.rpartition(": ")[2].split()[0].replace(",", "")), memory


def undisturbed(place):
    """Make plain.parquet by an open worker whose platform behaves; return rows a second."""
    with endpoint(worker=UNSIGNED) as platform:
        per_s, memory = run(
            place,
            "plain.parquet",
            "--endpoint",
            "loopback",
            env=environment(platform, EMBEDDING_HMAC_SECRET=""),
        )
    told = ", ".join(f"{mb:.0f}" for mb in memory.quarters())
    print(f"undisturbed: {per_s:.0f} rows/s; memory by quarters {told}, at most {max(memory.mb):.0f} MB")
    return per_s


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
    (ids, vectors), (plain_ids, plain) = table(out), table(place / "plain.parquet")
    cosines = np.sum(vectors * plain, axis=1) if vectors.shape == plain.shape else np.zeros(1)
    print(
        f"disturbed: {len(ids)} rows, {len(set(ids))} ids, equal to the undisturbed: {ids == plain_ids}; "
        f"cosines of rows {cosines.min():.6f} at least"
    )
    return ids == plain_ids and len(set(ids)) == options.pictures and 1 - cosines.min() < MOST_DIFFERENCE


def workers_own():
    """Return pictures a second of the worker, driven as the benchmarks do, in jobs of 64."""
    bodies = []
    for job in range(40):
        items = [
            {"image_base64": base64.b64encode(picture(job * 64 + number)).decode()} for number in range(64)
        ]
        bodies.append(json.dumps({"input": {"items": items, "encoding_format": "base64"}}).encode())
    with serving(Command(HANDLER, UNSIGNED)) as served:
        served.load(bodies, callers=16, duration_s=3)
        return 64 * served.load(bodies, callers=16, duration_s=12).jobs_per_s


def local(place):
    """Return rows a second of --local."""
    per_s, memory = run(place, "local.parquet", "--local", env=environment())
    told = ", ".join(f"{mb:.0f}" for mb in memory.quarters())
    print(f"--local: {per_s:.0f} rows/s; memory by quarters {told} MB, the model included")
    return per_s


def compare_local(place):
    """Measure --local and the ceiling in turns, since a machine that others use is now faster, now slower."""
    rates, ceilings = [], []
    for _ in range(2):
        rates.append(local(place))
        ceilings.append(ceiling.measure(place / "folder"))
        (place / "local.parquet").unlink()
    decoded, bare = (statistics.mean(each[name] for each in ceilings) for name in ("decoded", "bare"))
    mine = statistics.mean(rates)
    ratio("--local, against the same pictures read, decoded and embedded with nothing else", mine, decoded)
    print(f"pictures that lie decoded before the engine: {bare:.0f} a second")


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


def ratio(what, mine, other):
    """Tell a ratio and its target."""
    verdict = "met" if mine / other >= TARGET else "MISSED"
    print(f"{what}: {mine:.0f} / {other:.0f} = {mine / other:.3f}, target {TARGET:.2f} {verdict}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
