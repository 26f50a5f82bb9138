"""One random change to what was signed, as whoever has no secret would try it, and whether it is one at all.

A change picks any value, at any depth, of a job or of an `auth`, and alters it a little (another case,
look-alike letters, a neighbouring number, the same number in another type), replaces, removes, renames,
doubles, wraps or moves it; or it edits the JSON text, where keys may then stand twice.
"""

from __future__ import annotations

import copy
import json
import unicodedata

from hypothesis import strategies as st


LOOKALIKES = str.maketrans("aceopxyAEHKMOPTX013", "асеорхуАЕНКМОРТХ०١３")
STRANGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
INDEX = st.integers(0, 1 << 16)
KINDS = st.sampled_from(
    ("near", "near", "near", "strange", "remove", "double", "rename", "wrap", "move", "reorder", "edit")
)
PIECES = (
    '"',
    ",",
    ":",
    "0",
    "1",
    "e1",
    ".0",
    "-",
    " ",
    "\\u0000",
    "\\ud800",
    "null",
    '"v": 3,',
    '"normalize": true,',
)


@st.composite
def tampered(draw, original):
    """Return *original*, a JSON value, after one change; some changes mean the same as before."""
    kind = draw(KINDS)
    if kind == "edit":
        return _edited(draw, original)
    changed = copy.deepcopy(original)
    if kind == "reorder":
        return _reordered(changed)
    places = [*_places(changed)]
    parent, key = places[draw(INDEX) % len(places)]
    if kind == "remove":
        del parent[key]
    elif kind in {"double", "rename"}:
        _renamed(draw, parent, key, keeps=kind == "double")
    else:
        parent[key] = _replacement(draw, kind, parent[key], places)
    return changed


def _replacement(draw, kind, value, places):
    if kind == "near":
        return near(value, draw(INDEX))
    if kind == "wrap":
        return draw(st.sampled_from([lambda value: [value], lambda value: {"x": value}, str]))(value)
    if kind == "move":
        parent, key = places[draw(INDEX) % len(places)]
        return copy.deepcopy(parent[key])
    return draw(STRANGE)


def _renamed(draw, parent, key, *, keeps):
    if isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[draw(INDEX) % len(parent)]))
    else:
        value = copy.deepcopy(parent[key]) if keeps else parent.pop(key)
        parent[str(near(key, draw(INDEX)))] = value


def near(value, choice: int):
    """Return a value that a careless reader takes for *value*; *choice* picks one."""
    return (others := _neighbours(value, choice // 32))[choice % 32 % len(others)]


def is_same(one, other, *, exact: bool = False) -> bool:
    """Return whether two JSON values mean the same: 1 and 1.0 do unless *exact*, 1 and true never do."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key], exact=exact) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(
            is_same(a, b, exact=exact) for a, b in zip(one, other, strict=True)
        )
    if exact or isinstance(one, bool | str | None) or isinstance(other, bool | str | None):
        return type(one) is type(other) and one == other
    return one == other


def is_same_auth(one, other) -> bool:
    """Return whether two `auth` are the same; hex may be written in either case."""
    return is_same(_with_lower_hex(one), _with_lower_hex(other), exact=True)


def _with_lower_hex(auth):
    sig = auth.get("sig") if isinstance(auth, dict) else None
    return auth | {"sig": sig.lower()} if isinstance(sig, str) and sig.isascii() else auth


def _neighbours(value, place: int) -> list:
    if isinstance(value, bool):
        return [not value, int(value), float(value), str(value), str(value).lower(), None, [value]]
    if isinstance(value, int | float) and not abs(value) < 2**60:
        return [None, 0, -value, str(value), [value]]
    if isinstance(value, int | float):
        return [
            value + 1, value - 1, -value, value * 10, float(value), str(value), bool(value), value + 0.5,
            2 * value, f"{value}.0", f" {value}", f"0{value}", None, 10**400 + int(value), [value],
        ]  # fmt: skip
    if isinstance(value, bytes):
        return [value + b"\0", value[:-1], value.swapcase(), b"", value * 2, value.hex().encode()]
    if not isinstance(value, str):
        return [None, [], {}, "", 0, False, [value]]
    at = place % (len(value) + 1)
    left, letter, right = value[:at], value[at : at + 1], value[at + 1 :]
    flipped = format(int(letter, 16) ^ 1, "x") if letter and letter in "0123456789abcdef" else letter * 2
    return [
        left + letter.swapcase() + right, left + letter.translate(LOOKALIKES) + right, left + right,
        left + " " + letter + right, left + "\0" + letter + right, left + "\u200b" + letter + right,
        left + letter * 2 + right, value + "\n", value.upper(), value.title(), value.translate(LOOKALIKES),
        unicodedata.normalize("NFD", value), unicodedata.normalize("NFKC", value), value[::-1], value.strip(),
        left + "\ud800" + right, left + flipped + right,
        int(value) if value.isdecimal() and len(value) < 50 else value + "\ufeff",
        left + (chr(ord(letter) ^ 1) if letter else "0") + right,
        value.encode("utf-8", "surrogatepass"), None, [value],
    ]  # fmt: skip


def _places(value):
    """Give every place in *value* as its container and the key or index there."""
    for key in [*value] if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list) and value[key]:
            yield from _places(value[key])


def _reordered(value):
    if isinstance(value, dict):
        return {key: _reordered(value[key]) for key in reversed(value)}
    return [_reordered(each) for each in value] if isinstance(value, list) else value


def _edited(draw, original):
    text = json.dumps(original, default=repr)
    start, length = draw(INDEX) % len(text), draw(st.integers(0, 2))
    piece = draw(st.sampled_from(PIECES) | st.just(text[start : start + 9]))
    try:
        return json.loads(text[:start] + piece + text[start + length :])
    except ValueError:
        return text
