"""Ways in which the content of a file may be wrong: cut, flipped, doubled, of other types, huge, deep, misencoded."""

import json
import random
from collections.abc import Callable
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**63, 10**400, -(10**400), 0.5, -0.0, 1e308, -1e308),
    *("", " ", "x", "-", "nan", "inf", "1e999", "0x10", "1_000", "٣", "²", "\x1b[2J", "‮", "a\nb", "a" * 5000),
    *("../../x", "/dev/null", "=1+1", "\ud800", "\x00"),
    *([], {}, [None], [[]], {"": None}, [1] * 50),
)
"""What a value is replaced by."""

TOKENS = (
    *("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000),
    *("[" * 3000, '{"a":' * 3000, '"\\ud800"', "'", "!!python/x"),
)
"""What no JSON holds, or what is hard to take in."""

FIELDS = (
    *("", "nan", "inf", "-inf", "1e999", "-1", "9" * 400, "9" * 5000, "0.5", "x"),
    *('"', '""', "a,b", "\x00", "\uff11", "1_0", " 1 ", "=1"),
)
"""Fields of a CSV file."""


WORDS = (
    *("null", "~", "[]", "{}", "1e400", "-1", "0", ".nan", ".inf", "yes", "true", "0o17", "1:30", "2001-01-01", "é"),
    *("[[", "&a [*a]", "*a", "!!binary x", "!!python/object:x", "'", "\t", "? [1]", "<<: 1", "- 1", "|", "%x", "@"),
    *("x" * 3000, "[" * 2000, "{a: " * 2000, "[" * 2000 + "]" * 2000, "9" * 5000),
)
"""What stands for a value in YAML."""


def mutated(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A content that is wrong, and what was done to it."""
    ways: list[Callable[[bytes, random.Random], bytes]] = [
        _cut,
        _flipped,
        _inserted,
        _doubled,
        _overwritten,
        _empty,
        _misencoded,
    ]
    structured = _structure(content)
    if structured is not None:
        ways += [_other_value, _other_value, _other_value, _other_token, _without_key, _deep]
    elif b"," in content[:200] and b"\n" in content:
        ways += [_other_field, _other_field, _other_field, _other_line]
    elif content.isascii():
        ways += [_other_word, _other_word, _other_word]
    way = draw.choice(ways)
    return way.__name__.strip("_").replace("_", " "), way(content, draw)


def _place(content: bytes, draw: random.Random) -> int:
    return draw.randrange(len(content) + 1)


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: _place(content, draw)]


def _flipped(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content or b"x")
    for _ in range(draw.choice((1, 1, 1, 8))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _inserted(content: bytes, draw: random.Random) -> bytes:
    place = _place(content, draw)
    return content[:place] + draw.randbytes(draw.choice((1, 4, 100))) + content[place:]


def _doubled(content: bytes, draw: random.Random) -> bytes:
    first, last = sorted((_place(content, draw), _place(content, draw)))
    return content[:last] + content[first:]


def _overwritten(content: bytes, draw: random.Random) -> bytes:
    place = _place(content, draw)
    return content[:place] + bytes(draw.choice((1, 16, 4096))) + content[place + 16 :]


def _empty(content: bytes, draw: random.Random) -> bytes:
    return draw.choice((b"", b"\n", b"\x00", b"null", b"[]", b"{}", b'""', b"0", b"\xef\xbb\xbf"))


def _misencoded(content: bytes, draw: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    encoding = draw.choice(("utf-16", "utf-32", "latin-1", "utf-8-sig"))
    return (text + draw.choice(("", "é"))).encode(encoding, "replace")


def _structure(content: bytes) -> Any:
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict | list) else None


def _spot(node: Any, draw: random.Random) -> tuple[Any, Any]:
    """A container somewhere in a structure, and a key or index of it."""
    while True:
        key = draw.choice(list(node)) if isinstance(node, dict) else draw.randrange(len(node))
        below = node[key]
        if not (isinstance(below, dict | list) and below) or draw.random() < 0.2:
            return node, key
        node = below


def _other_value(content: bytes, draw: random.Random) -> bytes:
    found = _structure(content)
    if found:
        node, key = _spot(found, draw)
        node[key] = draw.choice(VALUES)
    return json.dumps(found).encode()


def _other_token(content: bytes, draw: random.Random) -> bytes:
    found = _structure(content)
    if found:
        node, key = _spot(found, draw)
        node[key] = "a token"
    return json.dumps(found).replace('"a token"', draw.choice(TOKENS)).encode()


def _without_key(content: bytes, draw: random.Random) -> bytes:
    found = _structure(content)
    if found:
        node, key = _spot(found, draw)
        value = node.pop(key)
        if draw.random() < 0.5 and isinstance(node, dict):
            node[draw.choice(("", "unknown", "__class__", str(key).upper()))] = value
    return json.dumps(found).encode()


def _deep(content: bytes, draw: random.Random) -> bytes:
    depth = draw.choice((50, 2000, 100_000))
    opening, closing = draw.choice((("[", "]"), ('{"a":', "}")))
    nested = opening * depth + "1" + closing * depth
    found = _structure(content)
    if found and draw.random() < 0.7:
        node, key = _spot(found, draw)
        node[key] = "a token"
        return json.dumps(found).replace('"a token"', nested).encode()
    return nested.encode()


def _lines(content: bytes) -> list[list[str]]:
    return [line.split(",") for line in content.decode("utf-8", "replace").splitlines()]


def _other_field(content: bytes, draw: random.Random) -> bytes:
    lines = _lines(content)
    line = lines[draw.randrange(len(lines))] if draw.random() < 0.3 else lines[-1 - draw.randrange(len(lines) - 1 or 1)]
    line[draw.randrange(len(line))] = draw.choice(FIELDS)
    return "".join(",".join(line) + "\n" for line in lines).encode()


def _other_line(content: bytes, draw: random.Random) -> bytes:
    lines = _lines(content)
    place = draw.randrange(len(lines))
    what = draw.randrange(4)
    if what == 0:
        lines.pop(place)
    elif what == 1:
        lines.insert(place, lines[place])
    elif what == 2:
        lines[place] = lines[place][: draw.randrange(len(lines[place]) + 1)]
    else:
        draw.shuffle(lines[place])
    return "".join(",".join(line) + "\n" for line in lines).encode()


def _other_word(content: bytes, draw: random.Random) -> bytes:
    """Of a text such as YAML: what follows a colon, or stands in brackets."""
    lines = content.decode().splitlines()
    place = draw.randrange(len(lines) or 1)
    key, colon, _ = lines[place].partition(":") if lines else ("", "", "")
    odd = draw.choice(WORDS)
    if lines:
        lines[place] = f"{key}{colon} {odd}" if colon else odd
    return "\n".join(lines).encode() + b"\n"
