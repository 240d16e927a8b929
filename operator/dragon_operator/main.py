"""`dragon-operator`: the operator's command."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def operator() -> None:
    """DRAGON's operator: runs the servers of DragonDeployments and manages the devices of a fleet."""


@app.command()
def run(
    settings: Annotated[Path | None, typer.Option(help="Settings file (YAML); default: DRAGON_CONFIG.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Run until SIGTERM, in the cluster or with the current kubeconfig. Settings: docs/settings.md."""
    from dragon_operator import operator as running
    from dragon_operator.settings import OperatorSettings
    from dragon_runtime.process.daemon import run_daemon

    raise typer.Exit(
        run_daemon(
            "dragon-operator",
            OperatorSettings,
            running.run,
            settings_path=settings,
            overrides={"log.level": log_level},
            log_of=lambda loaded: loaded.log,
        )
    )


def main() -> None:
    """Console script."""
    app()


if __name__ == "__main__":
    main()
