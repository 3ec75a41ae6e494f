"""Every different density schedule of a plan, and where it stands in the figure of all of them."""

from pydantic import TypeAdapter

from east.config.plan import Plan
from east.config.run import CycleSpec, Frozen, RunSpec
from east.config.tables import GridTable
from east.render.numbers import density_text


class Schedule(Frozen):
    """A cyclic schedule of Tables 2-5; schedules with the same panel are drawn together."""

    panel: str
    pattern: str
    multiplier: float
    cycles: int
    cycle_length: float
    length_multiplier: float
    target: float
    epochs: int
    drop_fraction: float
    drop_fraction_end: float


SCHEDULES: TypeAdapter[tuple[Schedule, ...]] = TypeAdapter(tuple[Schedule, ...])


def distinct_schedules(plan: Plan) -> tuple[Schedule, ...]:
    """Every different schedule of Tables 2-5, once, in their order.

    A panel holds what has a pattern, a multiplier, a target density and a number of epochs in common; its title names
    the last two only where the plan has several of them.
    """
    specs = [
        plan.run(row.runs[0].id).spec for table in plan.tables if isinstance(table, GridTable) for row in table.rows
    ]
    cyclic = [(spec, spec.cycle) for spec in specs if spec.cycle is not None]
    targets = {spec.sparsity.density for spec, _ in cyclic}
    lengths = {spec.training.epochs for spec, _ in cyclic}

    def panel(spec: RunSpec, cycle: CycleSpec) -> str:
        title = f"{cycle.pattern.capitalize()}, {cycle.multiplier:g}×"
        if len(targets) > 1:
            title += f" of {density_text(spec.sparsity.density)}"
        return f"{title}, {spec.training.epochs} epochs" if len(lengths) > 1 else title

    found = (
        Schedule(
            panel=panel(spec, cycle),
            target=spec.sparsity.density,
            epochs=spec.training.epochs,
            drop_fraction=spec.sparsity.drop_fraction,
            drop_fraction_end=spec.sparsity.drop_fraction_end,
            **cycle.model_dump(exclude={"update_period", "end"}),
        )
        for spec, cycle in cyclic
    )
    return tuple(dict.fromkeys(found))
