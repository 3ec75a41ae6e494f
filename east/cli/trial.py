"""`east try`: one run by its names alone, trained and shown, with the entry that makes it a row of a configuration."""

from pathlib import Path
from typing import Annotated

import typer

from east.checkout import sources
from east.cli.common import (
    CORES,
    ConfigFiles,
    DataDir,
    Device,
    Engine,
    ImageFolder,
    Threads,
    complete_dataset,
    complete_method,
    complete_network,
)
from east.cli.runs import train_here
from east.cli.status import print_run
from east.shown import say, tell

FINGERPRINT_DIGITS = 8
"""Of a fingerprint, in the name of a folder."""


def try_run(
    model: Annotated[str, typer.Argument(help="A network, see `east list networks`.", autocompletion=complete_network)],
    dataset: Annotated[
        str, typer.Argument(help="A data set, see `east list datasets`.", autocompletion=complete_dataset)
    ],
    method: Annotated[
        str,
        typer.Option(
            help="The paper's system (east), or a labelled row of config/methods.yaml, such as rigl or set.",
            autocompletion=complete_method,
        ),
    ] = "east",
    density: Annotated[float | None, typer.Option(help="Target density; the configuration's if absent.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE by the keys of a run, such as training.epochs=3; may be given again."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The seed; the configuration's first if absent.")] = None,
    plugin: Annotated[
        list[Path] | None, typer.Option(help="A file that adds to the methods; may be given several times.")
    ] = None,
    configfile: ConfigFiles = None,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("results/try"),
    data_dir: DataDir = Path("data"),
    image_folder: ImageFolder = None,
    device: Device = "auto",
    engine: Engine = "auto",
    threads: Threads = CORES,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Train nothing: print the entry alone.")] = False,
) -> None:
    """Train one run without a configuration file, show its curve, and print the entry that would make it a row.

    The recipe is that of the table whose network and data set are the most alike, scaled to the epochs that are asked
    for. The same command again goes on with the run, or shows it.
    """
    # As for `east train`: before anything is imported that decides numbers.
    began = sources()
    from east.operations.trial import make_trial

    trial = make_trial(
        model,
        dataset,
        method,
        density=density,
        settings=settings or (),
        seed=seed,
        plugins=plugin or (),
        configfiles=configfile or (),
    )
    planned = trial.run
    if not dry_run:
        table, row = f"{model}-{dataset}", f"{method}-{planned.fingerprint[:FINGERPRINT_DIGITS]}"
        run_id = f"{table}/{row}/seed{planned.spec.seed}"
        run = planned.model_copy(update={"id": run_id, "table": table, "row": row})
        tell(*(f"note: {note}" for note in trial.plan.notes if f"recipes.{planned.recipe}:" in note))
        folder = results / "runs" / run_id
        described = trial.plan.config.datasets[dataset].folder
        train_here(
            planned.spec,
            folder,
            began,
            data_dir=data_dir,
            folder=Path(described) if described else None,
            image_folder=image_folder,
            device=device,
            engine=engine,
            threads=threads,
            plugins=tuple(trial.plan.config.catalogue.paths.values()),
        )
        print_run(run, results)
        say("", f"# {folder}", "# As a row, in an overlay with a `name` of its own:")
    say(*trial.text().rstrip("\n").split("\n"))
