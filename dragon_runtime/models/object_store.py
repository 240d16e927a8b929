"""Files in an object store that speaks S3: their address is signed, and then fetched like any other.

Source: Amazon S3 API reference, "Authenticating requests: using query parameters" (Signature Version 4).
"""

import datetime as dt
import re
from urllib.parse import unquote

import httpx

from dragon_core.errors import ModelError
from dragon_runtime.redaction import redacted

SCHEME = "s3://"
ADDRESS = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]+)/(?P<key>[^?]+)(?:\?(?P<where>.*))?")
DEFAULT_REGION = "us-east-1"
SIGNED_FOR = dt.timedelta(minutes=15)
"""A download may begin so late; it may take longer."""


def signed_address(uri: str, credentials: str | None) -> str:
    """Where a file of a bucket is, for whoever has this address.

    Args:
        uri: s3://BUCKET/KEY in Amazon's store and us-east-1; ?endpoint=https://HOST and &region=REGION name others.
        credentials: ACCESS_KEY_ID:SECRET_ACCESS_KEY. They are used here and sent nowhere.

    Raises:
        ModelError: the address or the credentials have another form.
    """
    import obstore
    from obstore.store import S3Store

    found = ADDRESS.fullmatch(uri)
    where = httpx.QueryParams(found["where"]) if found else httpx.QueryParams()
    endpoint = where.get("endpoint")
    if found is None or not where.keys() <= {"endpoint", "region"} or not _is_server(endpoint):
        raise ModelError(
            f"{redacted(uri)} is no file of a bucket: write s3://BUCKET/KEY, followed by "
            "?endpoint=https://HOST and &region=REGION where they are needed"
        )
    key_id, _, secret = (credentials or "").partition(":")
    if not secret:
        raise ModelError(
            f"the token for {redacted(uri)} must be ACCESS_KEY_ID:SECRET_ACCESS_KEY; "
            "a file that everybody may read has an https address"
        )
    store = S3Store(
        found["bucket"],
        region=where.get("region", DEFAULT_REGION),
        access_key_id=key_id,
        secret_access_key=secret,
        client_options={"allow_http": True},  # what crosses is a signature for one file, and the file's digest is known
        **({} if endpoint is None else {"endpoint": endpoint}),
    )
    return obstore.sign(store, "GET", unquote(found["key"]), SIGNED_FOR)


def _is_server(endpoint: str | None) -> bool:
    if endpoint is None:
        return True
    try:
        url = httpx.URL(endpoint)
    except httpx.InvalidURL:
        return False
    return url.scheme in {"http", "https"} and bool(url.host)
