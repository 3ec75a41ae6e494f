"""What commands read: the plan, and options that are JSON."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from east.errors import EastError

if TYPE_CHECKING:
    from east.config import Plan

T = TypeVar("T")


def read_plan(configfiles: list[Path] | None) -> "Plan":
    """The plan of config.yaml with these overlays."""
    from east.config import make_plan, read_config

    return make_plan(read_config(*(configfiles or [])))


def parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    """What an option's JSON describes; `-` stands for standard input, where a plan of any size fits.

    Raises:
        EastError: it is no JSON, or describes something else.
    """
    try:
        return parse(sys.stdin.read() if text == "-" else text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the text"
        raise EastError(f"{option}: {key}: {first['msg']}.") from None
    except json.JSONDecodeError as error:
        raise EastError(f"{option} is no JSON: {error}.") from None
