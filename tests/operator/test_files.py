"""`list_files` shows what lies below the allowed folders, and nothing of what lies outside."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from embedding.contract.operator import ListFilesRequest
from embedding.errors import InvalidInput, ResponseTooLarge
from embedding.operator import files
from embedding.operator.files import REFUSAL, list_files
from embedding.operator.operator import Operator, OperatorTerms
from tests.fakes import fake_actions


EVERYTHING = {"limit": 1000, "offset": 0}
SECRET = "outside.txt"


@pytest.fixture
def tree(tmp_path):
    """Return a root `volume` with a few files, and beside it what must not show."""
    root = tmp_path / "volume"
    (root / "models" / "a").mkdir(parents=True)
    (root / "models" / "b.bin").write_bytes(b"x" * 10)
    (root / "models" / "c").write_bytes(b"")
    (tmp_path / "volume-of-others").mkdir()
    (tmp_path / SECRET).write_text("x" * 1000)
    (root / "\udcff").mkdir()  # a byte that is no UTF-8
    (root / "up").symlink_to("..")
    (root / "models" / "out").symlink_to(tmp_path)
    (root / "models" / "file").symlink_to(tmp_path / SECRET)
    return root


def listed(path, *roots, **options):
    """Return what is answered, once it was JSON."""
    answer = list_files(str(path), [str(root) for root in roots], **EVERYTHING | options)
    assert orjson.loads(orjson.dumps(answer)) == answer == json.loads(json.dumps(answer, allow_nan=False))
    return answer


def names(entries):
    """Return the names of *entries*."""
    return [entry["name"] for entry in entries]


def test_a_folder(tree):
    """Folders and files are told by name, files with their size, links as links, and all with their time."""
    os.utime(tree / "models" / "b.bin", (1, 1_700_000_000.9))
    answer = listed(tree / "models", tree)

    assert names(answer["directories"]) == ["a"]
    assert answer["directories"][0].keys() == {"name", "modified"}
    assert answer["files"][:1] == [{"name": "b.bin", "size_bytes": 10, "modified": 1_700_000_000}]
    assert [(each["name"], each["size_bytes"], each.get("kind")) for each in answer["files"]] == [
        ("b.bin", 10, None),
        ("c", 0, None),
        ("file", 0, "link"),
        ("out", 0, "link"),
    ]
    totals = ("total_files", "total_directories", "total_bytes", "next_offset", "complete", "status")
    assert [answer[name] for name in totals] == [4, 1, 10, None, True, "ok"]


def test_special_files(tree):
    """Pipes and sockets are told as such, and nothing waits for them."""
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "socket"))
        answer = listed(tree, tree)

    kinds = {each["name"]: each.get("kind") for each in answer["files"]}
    assert kinds == {"pipe": "other", "socket": "other", "up": "link"}
    with pytest.raises(InvalidInput, match=REFUSAL):
        listed(tree / "pipe", tree)


def test_roots(tree, tmp_path):
    """Without a path the roots that are there are listed, in order of their names and once each."""
    refused = str(tmp_path / ("a" * 300))  # an OSError, as from a volume that is away
    roots = (refused, str(tree), str(tmp_path / "volume-of-others"), str(tmp_path / "nowhere"), str(tree))
    operator = Operator(OperatorTerms(True, roots, (), None, {}))
    answer = asyncio.run(operator.run(ListFilesRequest(action="list_files", request_id="r"), None))

    assert answer["request_id"] == "r"
    assert names(answer["directories"]) == [str(tree), str(tmp_path / "volume-of-others")]
    assert (answer["path"], answer["files"], answer["complete"]) == (None, [], True)
    assert answer["total_bytes"] == 0


@pytest.mark.parametrize("missing", [-1, 0, 1])
def test_answer_that_is_carried(tree, missing):
    """An answer of more bytes than are carried says how to ask for less."""
    operator = Operator(OperatorTerms(True, (str(tree),), (), None, {}))
    job = {"action": "list_files", "path": str(tree / "models")}
    size = len(json.dumps(asyncio.run(fake_actions(operator=operator).run(job))))
    asked = fake_actions(operator=operator, max_response_bytes=size - missing).run(job)

    if missing <= 0:
        assert asyncio.run(asked)["total_files"] == 4
    else:
        with pytest.raises(ResponseTooLarge, match="ask for a smaller limit"):
            asyncio.run(asked)


def test_pages(tree):
    """Pages follow one another without a gap, folders first, and the last says that it is."""
    for name in ("x", "y", "z"):
        (tree / "models" / "a" / name).mkdir()
    for name in ("4", "3", "2", "1"):
        (tree / "models" / "a" / name).touch()
    pages, offset = [], 0
    while offset is not None:
        page = listed(tree / "models" / "a", tree, limit=2, offset=offset)
        pages.append((names(page["directories"]), names(page["files"])))
        assert (page["total_files"], page["total_directories"]) == (4, 3)
        offset = page["next_offset"]

    assert pages == [(["x", "y"], []), (["z"], ["1"]), ([], ["2", "3"]), ([], ["4"])]
    assert listed(tree / "models" / "a", tree, offset=7)["files"] == []


def test_nothing_stays_open(tree):
    """No descriptor is left behind, whether the folder is there or not."""
    before = len([*Path("/proc/self/fd").iterdir()])
    listed(tree / "models" / "a", tree)
    with pytest.raises(InvalidInput):
        listed(tree / "models" / "a" / "b", tree)

    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_as_shipped():
    """So many entries are read, for so long; only folders are opened, and nothing is waited for."""
    assert (files.MAX_SCANNED, files.SCAN_S) == (100_000, 10)
    assert files._OPEN == os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK


@pytest.mark.parametrize(("count", "is_complete"), [(4, True), (5, True), (6, False)])
def test_entries_that_are_read(tree, monkeypatch, count, is_complete):
    """A folder of more entries than are read says that it has more."""
    monkeypatch.setattr(files, "MAX_SCANNED", 5)
    for number in range(count):
        (tree / "models" / "a" / str(number)).touch()
    answer = listed(tree / "models" / "a", tree)

    assert (answer["total_files"], answer["complete"]) == (min(count, 5), is_complete)


def test_time(tree, monkeypatch):
    """So does one that takes too long."""
    monkeypatch.setattr(files, "SCAN_S", -1.0)

    assert listed(tree / "models", tree)["complete"] is False


def test_root_that_is_a_link(tree, tmp_path):
    """A root may be a link, as the operator chose it; so may the whole file system."""
    (tmp_path / "mount").symlink_to(tree)

    assert names(listed(tmp_path / "mount" / "models", tmp_path / "mount")["directories"]) == ["a"]
    assert names(listed(tree / "models", "/")["directories"]) == ["a"]


def test_the_innermost_root_counts(tree):
    """A root that is reached by a link inside another is a root all the same."""
    (tree / "linked").symlink_to(tree / "models")

    assert listed(tree / "linked" / "a", tree, tree / "linked")["complete"]
    assert listed(f"{tree}/models//a/./", tree)["complete"]


@pytest.mark.parametrize(
    "path",
    [
        "{root}/..", "{root}/../volume/models", "{root}/models/../..", "{root}/up", "{root}/up/volume/models",
        "{root}/models/out", "{root}/models/out/volume", "{root}/models/file", "{root}/models/c",
        "{root}/nothing", "{root}-of-others", "{root}x", "/", "/etc", "", ".", "models", "~", "{root}/\0",
        "{root}\0", "\udcff", "{root}/\udcff", "{root}/" + "a" * 256, "{root}/" + "a/" * 3000, "//{root}",
        "{root}/ ", "/proc/self/root", "{root}/models/a/\\..\\..",
    ],
)  # fmt: skip
def test_one_refusal(tree, path):
    """Whether it is not there, no folder, a link or outside cannot be told from the answer."""
    with pytest.raises(InvalidInput) as fault:
        listed(path.replace("{root}", str(tree)), tree)

    assert fault.value.message == REFUSAL


@pytest.mark.parametrize("root", ["", "relative", "volume"])
def test_roots_are_absolute(tree, monkeypatch, root):
    """A root that is none opens nothing below the folder that the worker happens to run in."""
    monkeypatch.chdir(tree.parent)

    with pytest.raises(InvalidInput, match=REFUSAL):
        listed(f"{root}/models" if root else "volume", root)


PARTS = st.sampled_from(
    ["..", ".", "", "models", "a", "out", "up", "file", "volume", "\0", "\udc80", "c", "b.bin"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(PARTS | st.text(max_size=8), max_size=8), absolute=st.booleans())
@example(parts=["models", "out"], absolute=False)
def test_any_path(tree, parts, absolute):
    """No path shows anything that lies outside, or raises anything but the refusal."""
    path = "/".join(["" if absolute else str(tree), *parts])
    try:
        answer = listed(path, tree)
    except InvalidInput:
        return
    real = Path(os.path.realpath(path))
    assert real == tree or tree in real.parents
    assert SECRET not in names(answer["files"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.binary(min_size=1, max_size=30).filter(lambda name: not {*name} & {0, 47}), max_size=5))
@example({b"\xff\xfe", b"\xed\xa0\x80", b'"\\\n', b"x" * 255})
def test_any_name(tmp_path_factory, found):
    """Whatever files are called on the disk, the answer is JSON, and each has its line."""
    folder = tmp_path_factory.mktemp("names")
    found -= {b".", b".."}
    for name in found:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).touch()
    answer = listed(folder, folder)

    assert sorted(names(answer["files"])) == sorted(
        name.decode("utf-8", "backslashreplace") for name in found
    )
    assert answer["total_files"] == len(found)


def test_a_link_put_there_meanwhile(tree, monkeypatch):
    """A folder that becomes a link between two looks is not followed: what is opened is what was judged."""
    opened = os.open

    def swap(path, flags, **options):
        if path == "a":
            (tree / "models" / "a").rmdir()
            (tree / "models" / "a").symlink_to(tree.parent)
        return opened(path, flags, **options)

    monkeypatch.setattr(files.os, "open", swap)

    with pytest.raises(InvalidInput, match=REFUSAL):
        listed(tree / "models" / "a", tree)
