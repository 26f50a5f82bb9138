"""`python -m embedding search`: its arguments, and the way from a sentence to what it finds."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from embedding.client.backend import ENVIRONMENT, add_arguments, client_of
from embedding.client.errors import ClientError


if TYPE_CHECKING:
    from embedding.client.search.found import Found
    from embedding.client.search.queries import Query
    from embedding.client.search.store import Origin, Store

MAX_TOP: Final = 1000
DESCRIPTION: Final = """\
Find what is nearest to a sentence or a picture, in a file that `python -m embedding embed` made.

    python -m embedding search photos.parquet 'a red circle' --url http://127.0.0.1:8000
    python -m embedding search photos.parquet --image query.jpg --top 50 --html found.html --endpoint abc123
    python -m embedding search photos.parquet --queries sentences.txt --json --local

Several queries are answered in one run. Every vector is compared, so nothing near is missed. The worker that
embeds the query must serve the model that made the file; another fingerprint is refused.

FILE is .parquet (columns id and vector, fingerprint and model in the metadata), or .npy with the ids in
NAME.ids.txt and fingerprint and model in NAME.json."""
ENDING: Final = f"""\
{ENVIRONMENT}

exit status: 0 it was searched; 1 a query, the file or the worker is to blame, as the line on stderr says;
2 wrong arguments; 130 Ctrl-C."""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `search`."""
    command = commands.add_parser(
        "search",
        help="find pictures and texts by a sentence or a picture",
        description=DESCRIPTION,
        epilog=ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("file", type=Path, metavar="FILE", help="the vectors; see above")
    command.add_argument("texts", nargs="*", metavar="SENTENCE", help="what to look for, each in quotes")
    command.add_argument(
        "--image", action="append", default=[], metavar="FILE", help="a picture, or its URL, to look for"
    )
    command.add_argument("--queries", metavar="FILE", help="a file with a sentence a line; - reads stdin")
    command.add_argument(
        "--top", type=_top, default=20, metavar="N", help=f"how many to show for each, 1 to {MAX_TOP} (20)"
    )
    add_arguments(command)
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")
    command.add_argument("--html", type=Path, metavar="FILE", help="write a page that shows the pictures")
    command.add_argument(
        "--pictures", type=Path, default=Path(), metavar="DIR", help="where ids that are paths begin (here)"
    )
    command.add_argument(
        "--allow-remote",
        action="store_true",
        help="let the page load pictures behind URLs, whose servers then see who looks",
    )
    command.add_argument(
        "--fingerprint", metavar="ID", help="what made the vectors, for a file that does not say it"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do what *options* ask for; return the exit status. Raises StartupError."""
    try:
        found = _found(options)
        if options.html:
            _write_sheet(options, found)
        _tell(options, found)
    except ClientError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has read what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _found(options: argparse.Namespace) -> Found:
    """Check all that can be checked, then ask the worker, then read the file."""
    from embedding.client.search.found import found_in  # noqa: PLC0415  numpy, not for --help
    from embedding.client.search.queries import embed, queries_of  # noqa: PLC0415
    from embedding.client.search.rank import rank  # noqa: PLC0415
    from embedding.client.search.store import open_store  # noqa: PLC0415
    from embedding.client.waiting import telling_of_waits  # noqa: PLC0415

    queries = queries_of(options.texts, options.image, options.queries)
    store = open_store(options.file)
    origin = _origin(options, store)
    with client_of(options) as client, telling_of_waits():
        vectors = embed(queries, client, store, origin)
    return found_in(store, origin, queries, rank(store, vectors, top=options.top))


def _origin(options: argparse.Namespace, store: Store) -> Origin:
    """Return what made the vectors. Raises Unsearchable if nobody says it, or two say different things."""
    from embedding.client.search.store import Unsearchable  # noqa: PLC0415

    said, given = store.origin.fingerprint, options.fingerprint
    if said is None and given is None:
        raise Unsearchable(
            f"{options.file} does not say what made its vectors; if you know it, give --fingerprint"
        )
    if said is not None and given not in (None, said):
        raise Unsearchable(f"--fingerprint is {given}, and {options.file} says {said}")
    return store.origin if said is not None else replace(store.origin, fingerprint=given)


def _tell(options: argparse.Namespace, found: Found) -> None:
    from embedding.client.search.found import as_json, as_table  # noqa: PLC0415

    print(as_json(found) if options.json else as_table(found), flush=True)
    if found.skipped:
        print(f"{found.skipped} of {found.rows} vectors are not finite or zero: left out", file=sys.stderr)


def _write_sheet(options: argparse.Namespace, found: Found) -> None:
    from embedding.client.search.pictures import is_picture, thumbnails  # noqa: PLC0415  Pillow
    from embedding.client.search.sheet import sheet  # noqa: PLC0415
    from embedding.client.search.store import Unsearchable  # noqa: PLC0415

    ids = [result.id for _, results in found.results for result in results]
    shown = thumbnails(ids, options.pictures) | thumbnails(_asked(found), Path())
    page = sheet(found, shown, allow_remote=options.allow_remote)
    try:
        _write(options.html, page)
    except OSError as fault:
        raise Unsearchable(f"--html {options.html} cannot be written: {fault.strerror}") from None
    told = f"{options.html} written"
    if missing := sum(is_picture(name) and name not in shown for name in set(ids)):
        told += f"; {missing} of its pictures cannot be read here: --pictures says where their paths begin"
    print(told, file=sys.stderr)


def _write(path: Path, page: str) -> None:
    """Write *page* into *path*, whole or not at all. Raises OSError."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "it is there, and no regular file")
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(page, encoding="utf-8", errors="replace")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _asked(found: Found) -> list[str]:
    queries: list[Query] = [query for query, _ in found.results]
    return [query.value for query in queries if query.kind == "image"]


def _top(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_TOP:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number from 1 to {MAX_TOP}")
    return int(text)
