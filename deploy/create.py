"""Create a thing once, though answers get lost and others create at the same time.

RunPod lets two things have one name. So after an answer that was lost the list is read before anything is
sent again, more than once, because a list may lag; and after an endpoint was created the list is read for a
twin that somebody else created meanwhile: the oldest stays, and a younger one of ours goes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from deploy.errors import Unanswered


if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.api import Api, Json

TRIES: Final = 3
LOOKS_AFTER_S: Final = (0.0, 0.5, 1.5)


def create_once(
    create: Callable[[], Json], find: Callable[[], Json | None], *, notice: Callable[[str], None]
) -> Json:
    """Return what *create* made, or what *find* finds of it after an answer that was lost."""
    for tries_left in reversed(range(TRIES)):
        try:
            return create()
        except Unanswered as lost:
            notice(f"{lost.message.splitlines()[0]}; looking whether it was made")
            if found := _look(find):
                return found
            if not tries_left:
                raise
    raise AssertionError("the last try returns or raises")


def create_endpoint(api: Api, body: Json, *, notice: Callable[[str], None]) -> Json:
    """Create an endpoint and return the one that now has its name, ours or an older twin."""
    created = create_once(
        lambda: api.create_endpoint(body),
        lambda: min(_called(api, body["name"]), key=_age, default=None),
        notice=notice,
    )
    oldest = min([*_called(api, body["name"]), created], key=_age)
    if oldest["id"] != created["id"]:
        notice(f"another {body['name']} was created at the same time: keeping it, deleting {created['id']}")
        api.delete_endpoint(created["id"])
    return oldest


def _called(api: Api, name: str) -> list[Json]:
    return [each for each in api.endpoints() if each["name"].removesuffix(" -fb") == name]


def _age(endpoint: Json) -> tuple[str, str]:
    return endpoint["createdAt"], endpoint["id"]


def _look(find: Callable[[], Json | None]) -> Json | None:
    for pause_s in LOOKS_AFTER_S:
        time.sleep(pause_s)
        if found := find():
            return found
    return None
