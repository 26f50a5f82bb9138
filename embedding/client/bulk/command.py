"""`python -m embedding embed`: its arguments, its backend, and what it tells when it ends."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from embedding.client.backend import ENVIRONMENT, add_arguments, client_settings, local_settings
from embedding.client.bulk.errors import BulkError
from embedding.client.bulk.folder import RunFolder
from embedding.client.bulk.formats import failures_name, format_of
from embedding.client.bulk.progress import Progress
from embedding.client.bulk.rows import PICTURES
from embedding.client.bulk.session import PART_ROWS, Order, Session, counter
from embedding.client.bulk.sources import KINDS, Reading
from embedding.client.bulk.text import storable
from embedding.client.errors import ClientError
from embedding.installed import require_worker


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from embedding.client.bulk.session import Result

FAILED, SOME_FAILED, INTERRUPTED = 1, 3, 130
QUEUE_JOBS: Final = 1000
HTTP_REQUESTS: Final = 8
MOST_JOBS: Final = 10_000
BATCH_SIZE: Final = 64
MOST_ROWS: Final = 4096  # in a job; what a worker can be told to take
MOST_PART_ROWS: Final = 1_000_000
TOLD_SOURCES: Final = 5

ENDINGS: Final = " ".join(sorted(PICTURES))
DESCRIPTION: Final = f"""\
Embed everything in SOURCE, in order, into one file of vectors.

SOURCE is {KINDS}.
Several SOURCEs become one output, in the order in which they are given.

    folder          every picture below it that is not hidden, by name:
                    {ENDINGS}
    .txt, -         an item a line; a URL is a picture, any other line a text, and so are cells of tables
    .csv, .tsv      the --column, or the only one; the first line names the columns
    .parquet        the --column, or the only one: URLs and texts, or pictures as bytes
    .tar            the picture of each sample as WebDataset writes them, else its .txt

    python -m embedding embed photos/ --out photos.parquet --endpoint abc123
    python -m embedding embed urls.txt --out urls.parquet --url https://worker.example
    python -m embedding embed products.csv --column title --id-column sku --out titles.npy --local

Killed at any moment, it goes on when the same command is run again: what is done is kept in OUT.parts.
Rows that fail, by themselves or by their worker, are left out and listed in OUT.failed.csv
(photos.parquet.failed.csv, say); --retry-failed tries just those again, also where their
files were put right meanwhile. A SOURCE in which anything else was changed since OUT was made is refused:
--restart, or another OUT.

The id of a row is the file's path, ARCHIVE.tar/MEMBER, the cell of --id-column, or else the line or the cell
itself (of pictures as bytes: FILE.parquet#ROW). In it, bytes that are no UTF-8 stand as \\udcXX."""
ENDING: Final = f"""\
{ENVIRONMENT}

exit status: 0 every row has its vector; 3 the output is made, and some rows failed; 1 it could not begin, or
stopped and can go on: the line on stderr says which; 2 wrong arguments; 130 Ctrl-C."""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `embed`."""
    command = commands.add_parser(
        "embed",
        help="embed a folder, a list, a table or an archive into a file of vectors",
        description=DESCRIPTION,
        epilog=ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("sources", nargs="+", metavar="SOURCE", help="what to embed; see above")
    command.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="OUT",
        help="NAME.parquet: columns id and vector, the model's fingerprint in the metadata; "
        "or NAME.npy, with NAME.ids.txt and NAME.json",
    )
    add_arguments(command)
    command.add_argument(
        "--concurrency",
        type=_number(1, MOST_JOBS),
        metavar="N",
        help=f"jobs in flight at most, 1 to {MOST_JOBS} ({QUEUE_JOBS} by the queue, fewer while the "
        f"endpoint has few workers or refuses; {HTTP_REQUESTS} over HTTP; of no use with --local)",
    )
    command.add_argument(
        "--batch-size",
        type=_number(1, MOST_ROWS),
        default=BATCH_SIZE,
        metavar="N",
        help=f"rows in a job, 1 to {MOST_ROWS} ({BATCH_SIZE}, which is what a worker takes unless told "
        f"otherwise, and the most with --local)",
    )
    _add_reading(command)
    command.set_defaults(run=run)


def _add_reading(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--as",
        dest="how",
        choices=["auto", "image", "text"],
        default="auto",
        help="what lines, cells and archives hold; image: URLs or paths (auto)",
    )
    command.add_argument("--column", metavar="NAME", help="of a table: the column to embed")
    command.add_argument(
        "--id-column", metavar="NAME", help="of a table: the column of ids (else the value is its own id)"
    )
    command.add_argument(
        "--dtype", choices=["float32", "float16"], default="float32", help="of the vectors (float32)"
    )
    command.add_argument(
        "--part-rows",
        type=_number(1, MOST_PART_ROWS),
        default=PART_ROWS,
        metavar="N",
        help=f"rows of a part, 1 to {MOST_PART_ROWS}: what a kill can cost is those under way ({PART_ROWS})",
    )
    again = command.add_mutually_exclusive_group()
    again.add_argument("--retry-failed", action="store_true", help="try again what failed, and complete OUT")
    again.add_argument(
        "--restart",
        action="store_true",
        help="drop what was begun, and replace OUT when done; once killed, it goes on without this flag",
    )


def _number(least: int, most: int) -> Any:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} must be a whole number from {least} to {most}")
        return int(text)

    return parse


def run(options: argparse.Namespace) -> int:
    """Do what *options* ask for; return the exit status. Raises StartupError."""
    order = Order(
        sources=tuple(options.sources),
        reading=Reading(options.how, options.column, options.id_column),
        out=options.out,
        dtype=options.dtype,
        part_rows=options.part_rows,
        is_retry=options.retry_failed,
        is_restart=options.restart,
    )
    try:
        result = _embed(order, options)
    except ClientError as fault:
        print(_with_flags(order, f"error: {fault}"), file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        told = "interrupted: run the same command to go on; what is done is kept"
        print(_with_flags(order, told), file=sys.stderr)
        return INTERRUPTED
    try:
        print("\n".join(map(storable, _told(order, result))), flush=True)
    except BrokenPipeError:  # whoever read it has gone, and the output is made
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return SOME_FAILED if result.failed else 0


def _with_flags(order: Order, told: str) -> str:
    """Return *told*, which may say how to go on, for a command that would begin anew each time."""
    same = "the same command"
    return told.replace(same, f"{same} without --restart") if order.is_restart else told


def _embed(order: Order, options: argparse.Namespace) -> Result:
    if options.local:
        require_worker("--local")
    format_of(order.out)
    if not order.out.parent.is_dir():
        raise BulkError(f"--out {order.out}: there is no folder {order.out.parent}")
    with RunFolder(order.out) as folder:
        session = Session(order, folder)
        if not session.prepare():
            return session.result()
        backend = _backend(options)
        progress = Progress(backend.window, counter(order))
        gc.freeze()  # what is imported is looked through for garbage over and over else
        return session.run(backend, progress)


def _backend(options: argparse.Namespace) -> Any:
    if options.local:
        settings_here = local_settings()
        from embedding.client.bulk.local import Local  # noqa: PLC0415

        return Local(settings_here, batch_size=options.batch_size)
    from embedding.client.bulk.remote import over_http, through_queue  # noqa: PLC0415

    settings = client_settings(options)
    is_queue = settings.backend == "runpod_serverless"
    make, usual = (through_queue, QUEUE_JOBS) if is_queue else (over_http, HTTP_REQUESTS)
    try:
        return make(
            settings,
            concurrency=options.concurrency or usual,
            batch_size=options.batch_size,
            dtype=options.dtype,
        )
    except ValueError as fault:
        raise BulkError(str(fault)) from None


def _named(sources: Sequence[str]) -> str:
    """Return *sources* as they are told: a shell may have made a thousand of a glob."""
    more = f" and {len(sources) - TOLD_SOURCES} more" if len(sources) > TOLD_SOURCES else ""
    return " ".join(sources[:TOLD_SOURCES]) + more


def _told(order: Order, result: Result) -> Iterator[str]:
    """Yield what is told of a run that is done, line by line."""
    about, failed = result.about, sum(result.failed.values())
    vectors = f"{_many(result.rows - failed, 'vector')} of {about['dim']} {about['dtype']}"
    yield f"{order.out}: {vectors} for {_many(result.rows, 'row')} of {_named(order.sources)}"
    if about["fingerprint"] is not None:
        yield f"fingerprint {about['fingerprint']}, model {about['model']}"
    if result.took_s:
        rate = result.embedded_now / result.took_s
        yield f"{_many(result.embedded_now, 'row')} now, in {result.took_s:.1f} s: {rate:.1f} rows/s"
    else:
        yield "nothing was left to do"
    if failed:
        codes = ", ".join(f"{code} {count}" for code, count in result.failed.most_common())
        name = order.out.with_name(failures_name(order.out))
        yield f"{_many(failed, 'row')} failed: {codes}; listed in {name}, and --retry-failed tries again"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
