"""Thumbnails are small JPEGs of what is on this machine; what is no picture has none, and stops nothing."""

from __future__ import annotations

import base64
import io
import tarfile

import pytest
from PIL import Image

from embedding.client.search import pictures
from embedding.client.search.pictures import MAX_PIXELS, THUMBNAIL_PX, thumbnail_of, thumbnails


def picture(size=(640, 480), kind="JPEG", mode="RGB", colour="red"):
    """Return an encoded picture of one colour."""
    into = io.BytesIO()
    Image.new(mode, size, colour).save(into, kind)
    return into.getvalue()


def opened(data_uri):
    """Return the picture in *data_uri*."""
    head, _, body = data_uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_file(kind, tmp_path):
    """A file below the folder is found by its relative path, and is made small."""
    (tmp_path / "one.bin").write_bytes(picture(kind=kind))
    shown = opened(thumbnails(["one.bin"], tmp_path)["one.bin"])

    assert shown.size == (THUMBNAIL_PX, 168)
    assert shown.getpixel((9, 9))[0] > 240


def test_member_of_an_archive(tmp_path):
    """A member is found by ARCHIVE.tar/MEMBER; a link in the archive is not followed."""
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for name in ("a/1.jpg", "a/2.jpg"):
            member = tarfile.TarInfo(name)
            member.size = len(picture())
            archive.addfile(member, io.BytesIO(picture()))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.jpg")
        archive.addfile(link)
    (tmp_path / "secret.jpg").write_bytes(picture())
    ids = ["shard.tar/a/2.jpg", "shard.tar/link.jpg", "shard.tar/none.jpg"]

    assert set(thumbnails(ids, tmp_path)) == {"shard.tar/a/2.jpg"}


@pytest.mark.parametrize(
    "name",
    [
        "nowhere.jpg",
        "a red circle",
        "",
        "x" * 5000,
        "a\0b",
        "https://example.com/a.jpg",
        "text.txt",
        "d",
        "bad.tar/1.jpg",
    ],
)
def test_what_is_no_picture(name, tmp_path):
    """A text, a URL, a folder or a damaged archive has no thumbnail."""
    (tmp_path / "text.txt").write_text("hello", encoding="utf-8")
    (tmp_path / "bad.tar").write_bytes(b"no archive" * 100)
    (tmp_path / "d").mkdir()

    assert thumbnails([name], tmp_path) == {}


def test_transparency_is_shown_on_white():
    """As the worker sees it."""
    content = picture(kind="PNG", mode="RGBA", colour=(255, 0, 0, 0))

    assert min(opened(thumbnail_of(io.BytesIO(content))).getpixel((9, 9))) > 250


@pytest.mark.parametrize("content", [picture()[:300], picture(kind="PNG")[:60], b"", b"\xff\xd8\xff"])
def test_a_damaged_picture(content):
    """It has none."""
    assert thumbnail_of(io.BytesIO(content)) is None


@pytest.mark.parametrize(("pixels", "is_opened"), [(-1, True), (0, True), (1, False)])
def test_pixels_of_a_picture(pixels, is_opened, monkeypatch):
    """A picture of more than 50 megapixels, by its header, is not decoded."""
    monkeypatch.setattr("embedding.client.search.pictures.MAX_PIXELS", 1000 + 0 * MAX_PIXELS)
    content = picture((1000 + pixels, 1), "PNG")

    assert (thumbnail_of(io.BytesIO(content)) is not None) is is_opened


def test_each_id_is_looked_for_once(tmp_path, monkeypatch):
    """Ids that lie in one archive are found in one walk over it, under each of their names."""
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for number in range(50):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = len(picture((8, 8)))
            archive.addfile(member, io.BytesIO(picture((8, 8))))
    ids = [f"s.tar/{number}.jpg" for number in range(50)] + ["./s.tar/7.jpg"]
    asked, located = [], pictures._located
    monkeypatch.setattr(pictures, "_located", lambda *of: asked.append(of) or located(*of))

    assert set(thumbnails([*ids, *ids], tmp_path)) == set(ids)
    assert len(asked) == len(ids)
