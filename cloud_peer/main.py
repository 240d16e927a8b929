"""`dragon-cloud`: the cloud peer's command."""

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
documents_app = typer.Typer(no_args_is_help=True, help="Public documents.")
app.add_typer(documents_app, name="documents")

SettingsFile = Annotated[Path | None, typer.Option(help="Settings file (YAML); default: DRAGON_CONFIG.")]
DataFolder = Annotated[Path | None, typer.Option(help="Folder for an embedded store and models.")]
Level = Annotated[str | None, typer.Option(help="debug, info, warning or error.")]


@app.callback()
def cloud() -> None:
    """The cloud peer of DRAGON: answers sessions of devices from public documents."""


@app.command()
def run(
    settings: SettingsFile = None,
    replica: Annotated[str | None, typer.Option(help="Name of this replica.")] = None,
    documents: Annotated[Path | None, typer.Option(help="Folder of public documents to add at start.")] = None,
    data_folder: DataFolder = None,
    log_level: Level = None,
) -> None:
    """Serve sessions until SIGTERM, then drain. docs/settings.md lists the settings for the file."""
    # Before numpy is loaded: its threads spin while they wait, which takes a core from the language model.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from cloud_peer import peer
    from cloud_peer.settings import CloudSettings
    from dragon_runtime.process.daemon import run_daemon

    overrides = {"replica": replica, "documents": documents, "data_folder": data_folder, "log.level": log_level}
    raise typer.Exit(
        run_daemon(
            "dragon-cloud",
            CloudSettings,
            peer.run,
            settings_path=settings,
            overrides=overrides,
            log_of=lambda loaded: loaded.log,
        )
    )


@documents_app.command()
def add(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Folders, files, archives (.zip, .tar, .tar.gz) or http(s) addresses, optionally with #sha256=DIGEST.",
        ),
    ],
    timeout_seconds: Annotated[
        float, typer.Option(min=1, help="Time limit for Triton and Milvus to start, or to accept a document.")
    ] = 600,
    settings: SettingsFile = None,
    data_folder: DataFolder = None,
    log_level: Level = None,
) -> None:
    """Add documents to the store and return when they can be found. Adding the same documents again changes nothing."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from cloud_peer import public_documents
    from cloud_peer.settings import CloudSettings
    from dragon_runtime.process.daemon import run_daemon

    given = [public_documents.Source(source) for source in sources]
    raise typer.Exit(
        run_daemon(
            "dragon-cloud",
            CloudSettings,
            lambda loaded, stopped: public_documents.load(
                loaded, stopped, sources=given, timeout_seconds=timeout_seconds
            ),
            settings_path=settings,
            overrides={"data_folder": data_folder, "log.level": log_level},
            log_of=lambda loaded: loaded.log,
        )
    )


def main() -> None:
    """Console script."""
    app()


if __name__ == "__main__":
    main()
