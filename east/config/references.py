"""Names in a configuration: those that are used must be there, and those that are given must be free."""

from collections.abc import Iterator

from east.config.datasets import unknown_names
from east.config.places import Location, Mistake
from east.config.schema import Config

RESERVED = frozenset(
    {"table6", "tableb1", "tablemethods", "runs", "epochs", "appendix", "comparison", "claims", "audit", "cost"}
)
"""Names of the project's own files among the tables and figures, in small letters."""


def broken_references(config: Config) -> Iterator[Mistake]:
    """Names that stand for nothing, or for two things."""
    yield from _recipes(config)
    yield from _datasets(config)
    yield from _tables(config)
    for name, claim in config.claims.items():
        for place, table in enumerate(claim.tables):
            if table not in config.tables:
                sentence = f"'{table}' is not a table; there are {', '.join(config.tables) or 'none'}."
                yield Mistake(("claims", name, "tables", place), sentence)
    if len(set(config.seeds)) < len(config.seeds):
        yield Mistake(("seeds",), f"{list(config.seeds)} names a seed twice.")
    for name in config.methods.systems:
        if config.methods.systems.count(name) > 1:
            yield Mistake(("methods", "systems"), f"'{name}' stands there twice. Name it once.")


def _recipes(config: Config) -> Iterator[Mistake]:
    used: dict[Location, str] = {("tables", name, "recipe"): table.recipe for name, table in config.tables.items()}
    used |= {("methods", "recipes", dataset): recipe for dataset, recipe in config.methods.recipes.items()}
    used |= {("methods", "systems", i): system for i, system in enumerate(config.methods.systems)}
    used["cost", "recipe"] = config.cost.recipe
    for location, recipe in used.items():
        if recipe not in config.recipes:
            yield Mistake(location, f"'{recipe}' is not a recipe; there are {', '.join(config.recipes) or 'none'}.")


def _datasets(config: Config) -> Iterator[Mistake]:
    systems = (config.recipes[name] for name in config.methods.systems if name in config.recipes)
    wanted = {
        *(table.dataset for table in config.tables.values()),
        *config.methods.recipes,
        config.cost.dataset,
        *(dataset for recipe in systems for dataset in recipe.datasets),
    }
    for dataset in sorted(wanted - set(config.datasets)):
        yield Mistake(("datasets",), f"'{dataset}' is used by a table or method but not described here.")
    yield from unknown_names(config)


def _tables(config: Config) -> Iterator[Mistake]:
    seen: dict[str, str] = {}
    for name in config.tables:
        plain = name.lower()
        if plain in RESERVED:
            yield Mistake(("tables", name), f"'{name}' is a table of the project's own. Give yours another name.")
        if plain in seen:
            sentence = f"'{seen[plain]}' and '{name}' are one name where files do not tell capitals apart. Rename one."
            yield Mistake(("tables", name), sentence)
        seen[plain] = name
