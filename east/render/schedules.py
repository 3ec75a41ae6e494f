"""Every different density schedule of a plan, and where it stands in the figure of all of them."""

from pydantic import TypeAdapter

from east.config.choices import is_plugins
from east.config.plan import Plan
from east.config.run import CycleSpec, Frozen, RunSpec
from east.config.tables import GridTable
from east.render.numbers import density_text


class DrawnSchedule(Frozen):
    """A cyclic schedule of Tables 2-5, by a run that has it; schedules with the same panel are drawn together."""

    panel: str
    run: RunSpec


SCHEDULES: TypeAdapter[tuple[DrawnSchedule, ...]] = TypeAdapter(tuple[DrawnSchedule, ...])


def distinct_schedules(plan: Plan) -> tuple[DrawnSchedule, ...]:
    """Every different schedule of Tables 2-5, once, in their order.

    A panel holds what has a pattern, a multiplier, a target density and a number of epochs in common; its title names
    the last two only where the plan has several of them.
    """
    specs = [
        plan.run(row.runs[0].id).spec for table in plan.tables if isinstance(table, GridTable) for row in table.rows
    ]
    # What a plugin gives is not drawn: nobody but a training executes it.
    cyclic = [(spec, spec.cycle) for spec in specs if spec.cycle is not None and not is_plugins(spec.cycle.pattern)]
    targets = {spec.sparsity.density for spec, _ in cyclic}
    lengths = {spec.training.epochs for spec, _ in cyclic}

    def panel(spec: RunSpec, cycle: CycleSpec) -> str:
        title = f"{str(cycle.pattern).capitalize()}, {cycle.multiplier:g}×"
        if len(targets) > 1:
            title += f" of {density_text(spec.sparsity.density)}"
        return f"{title}, {spec.training.epochs} epochs" if len(lengths) > 1 else title

    found: dict[object, DrawnSchedule] = {}
    for spec, cycle in cyclic:
        sparsity = spec.sparsity
        drops = sparsity.drop_fraction, sparsity.drop_fraction_end
        # What the figure does not show makes no other schedule.
        shown = cycle.model_copy(update={"update_period": 1, "end": "target"})
        key = shown, sparsity.density, drops, spec.training.epochs
        found.setdefault(key, DrawnSchedule(panel=panel(spec, cycle), run=spec))
    return tuple(found.values())
