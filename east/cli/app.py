"""The `east` command, to which modules of this package add theirs."""

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def describe() -> None:
    """EAST at extreme sparsity: plan, train, measure and render the paper's appendix."""
