"""Where models and documents are: `pvc://CLAIM/PATH` names a volume of the namespace, the rest is fetched."""

from dataclasses import dataclass

SCHEME = "pvc://"


@dataclass(frozen=True, slots=True)
class VolumePath:
    """A path on the volume of a claim."""

    claim: str
    path: str


def volume_path(uri: str) -> VolumePath | None:
    """What a `pvc://` address names; None for one that is fetched."""
    if not uri.startswith(SCHEME):
        return None
    claim, _, path = uri.removeprefix(SCHEME).partition("/")
    return VolumePath(claim=claim, path=path)
