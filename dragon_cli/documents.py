"""`dragonctl documents`: the device's private documents."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Column, Table
from rich.text import Text

from dragon_cli.api_client import ApiClient
from dragon_cli.command import ApiKey, ApiUrl, Json, connect, run
from dragon_core.errors import DocumentError, OurError, shown, shown_lines
from dragon_runtime.documents.text import MEDIA_TYPES

app = typer.Typer(no_args_is_help=True, help="The device's private documents: add, list, show, delete, search.")
POLL_SECONDS = 0.2


@app.command()
def add(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders: txt, md, pdf, html.")],
    url: ApiUrl = None,
    api_key_file: ApiKey = None,
) -> None:
    """Add documents to the device and wait until they can be found. Adding the same file again changes nothing."""
    run(_add(paths, url, api_key_file))


async def _add(paths: Iterable[Path], url: str | None, api_key_file: Path | None) -> None:
    files = [file for path in paths for file in files_below(path)]
    async with connect(url, api_key_file) as client:
        num_failed = await add_files(client, files, Console(stderr=True))
    if num_failed:
        raise DocumentError(f"{num_failed} of {len(files)} documents were not added")
    typer.echo(f"{len(files)} documents can be found" if len(files) > 1 else f"{shown(files[0].name)} can be found")


def files_below(path: Path) -> list[Path]:
    """The file itself, or every document in the folder.

    Raises:
        OurError: there is none.
    """
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in MEDIA_TYPES and file.is_file())
        if not found:
            raise OurError(f"{path} contains no document ({', '.join(sorted(MEDIA_TYPES))})")
        return found
    if not path.is_file():
        raise OurError(f"{path}: no such file")
    return [path]


async def add_files(client: ApiClient, files: list[Path], console: Console) -> int:
    """Send files and follow their progress; returns how many failed. Interrupted, the device goes on with them."""
    num_failed = 0
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(files))

        def tell(file: Path, problem: str) -> None:
            progress.console.print(Text.assemble((shown(str(file)), "red"), f": {shown(problem)}"), soft_wrap=True)

        for number, file in enumerate(files):
            progress.update(task, description=f"adding {shown(file.name)}", completed=number)
            try:
                document = await client.add_document(file)
                told = None
                while document["state"] not in {"done", "failed"}:
                    if document["error"] != told and (told := document["error"]):
                        tell(file, told)
                    if document["num_passages"]:
                        part = document["num_passages_done"] / document["num_passages"]
                        progress.update(task, completed=number + part)
                    await asyncio.sleep(POLL_SECONDS)
                    document = await client.document(document["id"])
                problem = document["error"]
            except OurError as error:
                problem = str(error)
            if problem:
                num_failed += 1
                tell(file, problem)
    return num_failed


@app.command(name="list")
def list_documents(url: ApiUrl = None, api_key_file: ApiKey = None, is_json: Json = False) -> None:
    """List every document."""
    documents = run(_list(url, api_key_file))
    if is_json:
        typer.echo(json.dumps(documents, ensure_ascii=False))
        return
    if not documents:
        typer.echo("there are no documents; `dragonctl documents add` adds some")
        return
    table = Table(Column("name", overflow="fold"), "state", "passages", "bytes", Column("id", no_wrap=True))
    for document in documents:
        total = document["num_passages"]
        num_passages = "" if total is None else f"{document['num_passages_done']}/{total}"
        row = (document["state"], num_passages, str(document["size_bytes"]), document["id"])
        table.add_row(Text(shown(document["name"])), *row)
        if document["error"]:
            table.add_row(Text(shown(document["error"]), "red"))
    Console().print(table)


async def _list(url: str | None, api_key_file: Path | None) -> list[dict[str, Any]]:
    async with connect(url, api_key_file) as client:
        return [document async for document in client.documents()]


@app.command()
def show(document_id: str, url: ApiUrl = None, api_key_file: ApiKey = None) -> None:
    """Show the details of a document."""

    async def get() -> dict[str, Any]:
        async with connect(url, api_key_file) as client:
            return await client.document(document_id)

    for key, value in run(get()).items():
        typer.echo(f"{key:<20}{'' if value is None else shown(str(value))}")


@app.command()
def delete(
    document_ids: Annotated[list[str], typer.Argument(help="Ids, as shown by `list`.")],
    url: ApiUrl = None,
    api_key_file: ApiKey = None,
) -> None:
    """Remove documents and all their passages."""

    async def remove() -> None:
        async with connect(url, api_key_file) as client:
            for document_id in document_ids:
                await client.delete_document(document_id)
                typer.echo(f"removed {document_id}")

    run(remove())


@app.command()
def search(
    query: str,
    num_passages: Annotated[int, typer.Option(min=1, max=100, help="Number of passages to show.")] = 5,
    url: ApiUrl = None,
    api_key_file: ApiKey = None,
    is_json: Json = False,
) -> None:
    """Show the passages that an answer to QUERY would use, with their relevance."""

    async def find() -> list[dict[str, Any]]:
        async with connect(url, api_key_file) as client:
            return await client.search(query, num_passages=num_passages)

    passages = run(find())
    if is_json:
        typer.echo(json.dumps(passages, ensure_ascii=False))
        return
    for passage in passages:
        typer.echo(f"{passage['relevance']:.3f}  {passage['document_id']}\n{shown_lines(passage['text'])}\n")
