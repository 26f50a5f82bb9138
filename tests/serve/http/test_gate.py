"""Room: so many requests at once, so many bytes each, so many in all."""

from __future__ import annotations

import pytest

from embedding.errors import Overloaded, RequestTooLarge
from embedding.serve.http.gate import Gate


def gate(**limits):
    """Return a gate of 3 places, 100 bytes a body and 250 in all."""
    return Gate(**{"max_running": 3, "max_request_bytes": 100, "max_held_bytes": 250} | limits)


@pytest.mark.parametrize(("size", "allowed"), [(99, True), (100, True), (101, False)])
@pytest.mark.parametrize("chunk", [1, 7, 101])
def test_bytes_of_one(size, allowed, chunk):
    """A body may have so many bytes, in whatever pieces they come, and announce no more."""
    room = gate()
    with room.body() as body:
        if allowed:
            room.check_size(size)
            send(body, size, chunk)
            assert room.held_bytes == len(body.data) == size
        else:
            with pytest.raises(RequestTooLarge, match="the body has 101 bytes; the limit is 100"):
                room.check_size(size)
            with pytest.raises(RequestTooLarge, match="the limit is 100"):
                send(body, size, chunk)
    assert room.held_bytes == 0


@pytest.mark.parametrize(("last", "allowed"), [(49, True), (50, True), (51, False)])
def test_bytes_of_all(last, allowed):
    """All bodies together may have so many bytes; one that is over frees what it held."""
    room = gate()
    with room.body() as first, room.body() as second, room.body() as third:
        send(first, 100, 50)
        send(second, 100, 50)
        if allowed:
            send(third, last, 10)
        else:
            with pytest.raises(Overloaded, match="try again later"):
                send(third, last, 51)
    assert room.held_bytes == 0


@pytest.mark.parametrize(("size", "allowed"), [(24, True), (25, True), (26, False)])
def test_strangers_leave_room(size, allowed):
    """Bodies of callers who are not known yet take half the room at most, so that others find some."""
    room = gate()
    with room.body() as first, room.body(is_trusted=False) as stranger, room.body() as last:
        send(first, 100, 100)
        if allowed:
            send(stranger, size, size)
        else:
            with pytest.raises(Overloaded, match="try again later"):
                send(stranger, size, size)
        send(last, 100, 100)
        assert room.bodies == 3
    assert (room.held_bytes, room.bodies) == (0, 0)


def test_room_for_the_largest():
    """There is room for two of the largest bodies at least, so that a stranger's half holds one."""
    room = gate(max_request_bytes=200)
    with room.body(is_trusted=False) as stranger, room.body() as other:
        send(stranger, 200, 200)
        send(other, 200, 200)
    assert room.max_held_bytes == 400


def test_places():
    """So many requests run at once; one more is told to come again, and finds a place later."""
    room = gate()
    with room.place(), room.place():
        with room.place():
            assert room.running == 3
            with pytest.raises(Overloaded, match="3 requests are running already"), room.place():
                pass
        with room.place():
            assert room.running == 3
    assert room.running == 0


def send(body, size, chunk):
    """Add *size* bytes to *body* in pieces of *chunk*."""
    for start in range(0, size, chunk):
        body.add(bytes(min(chunk, size - start)))
