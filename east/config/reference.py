"""What every key of the configuration means, written from the schema: `python -m east.config.reference` (`make docs`).

That writes config/schema.json, by which editors complete and check a configuration, the keys in config/README.md, and
the table of readings in docs/reproduction-notes.md.
"""

import json
import sys
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from east.config.choices import ChoiceOf, NameOf, schema_of
from east.config.files import REMOVABLE
from east.config.mistakes import model_of
from east.config.schema import Config
from east.config.vocabulary import Ambiguity, Choices, OfRunsAlone, Retrains, UnitName, metadata_of
from east.data.kind import dataset
from east.errors import EastError
from east.registry import Entry, Parameter
from east.sparse.kinds import KINDS

ROOT = Path(__file__).parents[2]
M = TypeVar("M")


@dataclass(frozen=True)
class Key:
    """A key of the configuration.

    Args:
        path: where it stands; `*` stands for any name or place in a list.
        owner: the section of the schema that has it.
        name: its last part.
        field: its type and metadata.
    """

    path: str
    owner: type[BaseModel]
    name: str
    field: FieldInfo

    def first(self, kind: type[M]) -> M | None:
        """The outermost metadata of a kind."""
        return next((found for found in metadata_of(self.field) if isinstance(found, kind)), None)

    @property
    def meaning(self) -> str:
        """What it means."""
        described = (found.description for found in metadata_of(self.field) if isinstance(found, FieldInfo))
        return self.field.description or next((text for text in described if text), "")

    @property
    def unit(self) -> str:
        """What its number counts, in brackets; empty where it has no unit."""
        unit = self.first(UnitName)
        return f" ({unit.name})" if unit else ""

    @property
    def choices(self) -> Choices | None:
        """What each of its names stands for, where it is a choice."""
        return self.first(Choices) if _model_in(self.field) is None else None


def keys(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[Key]:
    """Every key of a section and of those in it, in the order of the schema."""
    for name, field in section.model_fields.items():
        if any(isinstance(found, OfRunsAlone) for found in metadata_of(field)):
            continue  # of a run's description alone
        yield Key(prefix + name, section, name, field)
        inner = _model_in(field)
        if inner is not None:
            many = model_of(field.annotation) is None
            yield from keys(inner, f"{prefix}{name}.{'*.' if many else ''}")


def open_matters() -> list[tuple[Key, Ambiguity]]:
    """What the paper leaves open, with nothing left empty, and the key that has it, in the order of the notes."""
    matters = []
    for key in keys():
        if about := key.first(Ambiguity):
            reading, other, choices = about.reading or value_text(key.field.default), about.other, key.first(Choices)
            if not other and choices is not None:
                other = "; ".join(f"{name}: {meaning}" for name, meaning in choices.meanings.items() if name != reading)
            matters.append((key, replace(about, reading=reading, other=other, keys=about.keys or (key.path,))))
    return sorted(matters, key=lambda matter: matter[1].number)


def value_text(value: object) -> str:
    """A value as the report prints it."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


class _Partial(GenerateJsonSchema):
    """Nothing is required, because an overlay says only what it changes."""

    def field_is_required(self, *_: Any, **__: Any) -> bool:
        return False

    def field_title_should_be_set(self, *_: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """The JSON Schema of config.yaml and of any overlay."""
    schema = Config.model_json_schema(schema_generator=_Partial)
    for key in keys():
        node = _section(schema, key.owner)["properties"][key.name]
        node["description"] = _explained(key) + key.unit
        if key.path in REMOVABLE:
            _allow_null(node)
    about = "config.yaml, or an overlay of it: nothing is required, and null takes an entry away"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "description": about}


def key_tables() -> str:
    """Every key, a table for each section, in Markdown; names that several keys accept are explained at the first."""
    schema = json_schema()
    sections: dict[type[BaseModel], dict[str, list[Key]]] = {}
    for key in keys():
        parent = key.path.removesuffix(key.name).rstrip(".")
        sections.setdefault(key.owner, {}).setdefault(parent, []).append(key)
    explained: list[Choices | None] = []
    blocks = []
    for owner, places in sections.items():
        rows = []
        for key in next(iter(places.values())):
            values = _values(_section(schema, owner)["properties"][key.name]) + key.unit
            again = key.first(Retrains)
            rows.append([f"`{key.name}`", values, again.what if again else _default(key), _explained(key, explained)])
            explained.append(key.choices)
        heading = " and ".join(f"`{place}`" for place in places) if owner is not Config else "Sections"
        head = ["key", "values", "trains again where it changes" if owner is Config else "default", "meaning"]
        blocks.append(f"### {heading}\n\n{_markdown_table(head, rows)}")
    return "\n\n".join(blocks)


def entry_tables() -> str:
    """What the project's registries hold, a table for each of them, in Markdown."""
    blocks = []
    for kind in (*KINDS.values(), dataset):
        rows = []
        for entry in kind:
            parameters = "<br>".join(map(_parameter, entry.parameters, repeat(entry)))
            rows.append([f"`{entry.name}`", entry.summary.rstrip("."), parameters, entry.paper])
        table = _markdown_table(["name", "meaning", "parameters", "paper"], rows)
        blocks.append(f"### {kind.name.capitalize()}\n\n{table}")
    return "\n\n".join(blocks)


def _parameter(parameter: Parameter, entry: Entry) -> str:
    unit = f" ({parameter.unit})" if parameter.unit else ""
    default = (
        "" if parameter.is_required or parameter.default == () else f", by default {_default_text(parameter.default)}"
    )
    meaning = f": {parameter.meaning}" if parameter.meaning else ""
    return f"`{parameter.name}`, {_values(schema_of(parameter, entry))}{unit}{default}{meaning}"


def readings_table() -> str:
    """What the paper leaves open, in Markdown."""
    head = ["#", "matter", "the paper", "the authors' code", "here", "key", "other reading in"]
    rows = []
    for _, about in open_matters():
        settled = ", ".join(f"`{key}`" for key in about.keys)
        overlays = ", ".join(f"`{overlay}`" for overlay in about.overlays) or "–"
        rows.append([str(about.number), about.matter, about.paper, about.as_coded, about.reading, settled, overlays])
    return _markdown_table(head, rows)


def documents(root: Path = ROOT) -> dict[Path, str]:
    """Each file that is generated, or has a generated part, with the text that it should have."""
    readme, notes = root / "config" / "README.md", root / "docs" / "reproduction-notes.md"
    with_keys = _with_part(readme.read_text(encoding="utf-8"), readme, "keys", key_tables())
    return {
        root / "config" / "schema.json": json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n",
        readme: _with_part(with_keys, readme, "methods", entry_tables()),
        notes: _with_part(notes.read_text(encoding="utf-8"), notes, "readings", readings_table()),
    }


def _with_part(whole: str, file: Path, name: str, text: str) -> str:
    """A file's text with another part between the two comments that bear its name."""
    begin, end = f"<!-- {name}: written by make docs -->\n", f"<!-- {name}: end -->"
    before, found, rest = whole.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise EastError(f"{file} has no part '{name}': put '{begin.strip()}' and '{end}' where it belongs.")
    return f"{before}{begin}\n{text}\n\n{end}{after}"


def _section(schema: dict[str, Any], owner: type[BaseModel]) -> dict[str, Any]:
    section: dict[str, Any] = schema if owner is Config else schema["$defs"][owner.__name__]
    return section


def _allow_null(node: dict[str, Any]) -> None:
    """In place of any entry of a mapping: an overlay takes it away so."""
    null = {"type": "null"}
    patterns = node.get("patternProperties", {})
    node["additionalProperties"] = False if patterns else {"anyOf": [node["additionalProperties"], null]}
    patterns.update({pattern: {"anyOf": [entry, null]} for pattern, entry in patterns.items()})


def _model_in(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field holds, by itself, in a list, or under names."""
    parts = (field.annotation, *get_args(field.annotation))
    return next((model for part in parts if (model := model_of(part)) is not None), None)


def _values(node: dict[str, Any] | bool) -> str:
    """What a key accepts, in words."""
    if isinstance(node, bool) or not node:
        return "any value"
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(_values(part) for part in node["anyOf"]))
    if "enum" in node or "const" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    match node.get("type"):
        case "array" if "prefixItems" in node:
            each = dict.fromkeys(_values(part) for part in node["prefixItems"])
            return f"list of {len(node['prefixItems'])}: {' or '.join(each)}"
        case "array":
            items = "these" if "anyOf" in node["items"] else _values(node["items"])
            return "list" if items == "section" else f"list of {items}"
        case "object" if "properties" in node:
            return "section"
        case "string" if "not" in node:
            return "a plugin's"
        case "object":
            names = ", ".join(f"`{name}`" for name in node.get("propertyNames", {}).get("enum", [])) or "any name"
            entries = [*node.get("patternProperties", {}).values(), node["additionalProperties"]]
            return f"{names}: {_values(entries[0])}"
        case "boolean":
            return "`true`, `false`"
        case "null":
            return "`null`"
        case "string":
            return "text"
        case "integer" | "number" as kind:
            bounds = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
            limits = [f"{sign} {node[bound]:g}" for bound, sign in bounds.items() if bound in node]
            return " ".join([kind, ", ".join(limits)]).strip()
    return "section"


def _default(key: Key) -> str:
    if key.field.is_required() or model_of(key.field.annotation) is not None:
        return ""
    default = key.field.get_default(call_default_factory=True)
    return "" if default == {} else _default_text(default)


def _default_text(default: object) -> str:
    if isinstance(default, tuple):
        return ", ".join(f"`{each:g}`" for each in default)
    return f"`{'null' if default is None else str(default).lower() if isinstance(default, bool) else default}`"


def _explained(key: Key, before: Container[Choices | None] = ()) -> str:
    """What a key means; what its choices stand for, unless that was said before; why it is as it is."""
    text, choices, ambiguity = key.meaning, key.choices, key.first(Ambiguity)
    of_registry = key.first(ChoiceOf) or key.first(NameOf)
    if of_registry is not None:
        name = of_registry.kind.name
        text += f": see [{name}](#{name.replace(' ', '-')})"
    if choices is not None and choices not in before:
        text += ". " + "; ".join(f"`{name}`: {meaning}" for name, meaning in choices.meanings.items())
    return text if ambiguity is None else f"{text}. Reading {ambiguity.number}: {ambiguity.reason}"


def _markdown_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def main() -> int:
    """Write whatever is out of date, and name it."""
    for file, text in documents().items():
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            print(f"{file.relative_to(ROOT)} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
