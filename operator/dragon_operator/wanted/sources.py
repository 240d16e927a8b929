"""Locations of models and documents: `pvc://CLAIM/PATH` names a volume of the namespace, others are downloaded."""

from dataclasses import dataclass

SCHEME = "pvc://"


@dataclass(frozen=True, slots=True)
class VolumePath:
    """A path on the volume of a claim."""

    claim: str
    path: str


def volume_path(uri: str) -> VolumePath | None:
    """Claim and path of a `pvc://` address; None for an address to download from."""
    if not uri.startswith(SCHEME):
        return None
    claim, _, path = uri.removeprefix(SCHEME).partition("/")
    return VolumePath(claim=claim, path=path)
