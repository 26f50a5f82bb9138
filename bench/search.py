"""Search over a million vectors in a file, against one matrix product over the same numbers in memory.

    python -m bench.search [--rows N]

prints the seconds of both, as JSON: opening the file, which the page cache holds, reading it and ranking by
one query, and by 20; a product of float32 and its 20 largest, with numpy's own threads.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.figures import spread
from bench.model import run_python
from bench.report import Measure
from embedding.client.search.rank import rank
from embedding.client.search.store import open_store


if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from bench.plan import Plan
    from bench.report import Row

    Vectors = npt.NDArray[np.float32]

DIM: Final = 512
GROUP_ROWS: Final = 4_000
TOP: Final = 20
QUERIES: Final = 20
TURNS: Final = 3

SEARCH: Final = Measure(
    "search", "seconds to rank the vectors of a Parquet file, 512 numbers each, for one query", "s"
)
VS_MEMORY: Final = Measure("search_vs_memory", "the same against a product over an array in memory", "×")
MEASURES: Final = (SEARCH, VS_MEMORY)


def measure(plan: Plan) -> list[Row]:
    """Measure both; return the rows that *plan* wants."""
    rows = plan.lengths.search_rows
    plan.say(f"  {rows} vectors")
    told = json.loads(run_python("-m", "bench.search", "--rows", str(rows)))
    file, memory = told["file_s"], told["memory_s"]
    about = f"{rows:,} vectors: {spread(file, '.2f')}; {QUERIES} queries {spread(told['file_20_s'], '.2f')} s"
    made = {
        SEARCH: (median(file), about),
        VS_MEMORY: (median(file) / median(memory), f"in memory {spread(memory, '.2f')} s"),
    }
    return [measure.row(*figures) for measure, figures in made.items() if plan.wants(measure.name)]


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.search", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="vectors (1000000)")
    rows = parser.parse_args().rows
    rng = np.random.default_rng(0)
    vectors, queries = _directions(rng, rows), _directions(rng, QUERIES)  # (N, D), (Q, D)
    with tempfile.TemporaryDirectory(prefix="search-") as folder:
        file = _written(Path(folder) / "vectors.parquet", vectors)
        calls: dict[str, Callable[[], object]] = {
            "file_s": lambda: rank(open_store(file), queries[:1], top=TOP),
            "file_20_s": lambda: rank(open_store(file), queries, top=TOP),
            "memory_s": lambda: np.argpartition(vectors @ queries[0], -TOP)[-TOP:],
        }
        took: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(TURNS):
            for name, call in calls.items():
                took[name].append(_seconds(call))
    print(json.dumps(took))


def _directions(rng: np.random.Generator, count: int) -> Vectors:
    vectors = rng.standard_normal((count, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _written(path: Path, vectors: Vectors) -> Path:
    """Write *vectors* as `python -m embedding embed` does: a row group for each part."""
    schema = pa.schema([("id", pa.string()), ("vector", pa.list_(pa.float32(), DIM))])
    with pq.ParquetWriter(path, schema, compression="NONE", use_dictionary=False) as writer:
        for first in range(0, len(vectors), GROUP_ROWS):
            group = vectors[first : first + GROUP_ROWS]
            ids = pa.array([str(first + row) for row in range(len(group))])
            column = pa.FixedSizeListArray.from_arrays(pa.array(group.reshape(-1)), DIM)
            writer.write_table(pa.table([ids, column], schema=schema))
    return path


def _seconds(call: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    call()
    return time.perf_counter() - started_s


if __name__ == "__main__":
    _main()
