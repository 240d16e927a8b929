"""The store that settings name."""

from pathlib import Path

from dragon_runtime.interfaces import Embedder
from dragon_runtime.settings.groups import StoreSettings
from dragon_runtime.store.milvus import MilvusStore


async def open_store(settings: StoreSettings, folder: Path, *, embedder: Embedder) -> MilvusStore:
    """A Milvus server where `uri` names one, else the embedded store in `folder`.

    Raises:
        StoreError: it cannot be opened or reached.
    """
    if settings.uri is None:
        return await MilvusStore.open_folder(folder, embedder=embedder)
    token = None if settings.token is None else settings.token.get_secret_value()
    formers = "" if settings.former_tokens is None else settings.former_tokens.get_secret_value()
    return await MilvusStore.open_server(
        settings.uri, embedder=embedder, token=token, former_tokens=formers.split(), is_tls=settings.tls
    )
