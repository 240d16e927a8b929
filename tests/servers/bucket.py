"""What a store that speaks S3 checks before it gives a file away, with Amazon's own code for the signature."""

import datetime as dt
from urllib.parse import parse_qsl, urlsplit

from awscrt.auth import (
    AwsCredentialsProvider,
    AwsSignatureType,
    AwsSignedBodyValue,
    AwsSigningAlgorithm,
    AwsSigningConfig,
    aws_sign_request,
)
from awscrt.http import HttpHeaders, HttpRequest

KEY_ID, SECRET_KEY, REGION = "KEY-OF-THE-TESTS", "secret/of+the+tests", "eu-north-1"
BUCKET = "our-models"
SECONDS = 30


def is_signed(path: str, *, host: str) -> bool:
    """Whether the query of a GET carries the signature that this bucket's owner makes, and has not ended."""
    query = dict(parse_qsl(urlsplit(path).query))
    if "X-Amz-Signature" not in query:
        return False
    signed_at = dt.datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    seconds = int(query["X-Amz-Expires"])
    config = AwsSigningConfig(
        algorithm=AwsSigningAlgorithm.V4,
        signature_type=AwsSignatureType.HTTP_REQUEST_QUERY_PARAMS,
        credentials_provider=AwsCredentialsProvider.new_static(KEY_ID, SECRET_KEY),
        region=REGION,
        service="s3",
        date=signed_at,
        expiration_in_seconds=seconds,
        use_double_uri_encode=False,
        should_normalize_uri_path=False,
        signed_body_value=AwsSignedBodyValue.UNSIGNED_PAYLOAD,
    )
    request = HttpRequest("GET", urlsplit(path).path, HttpHeaders([("Host", host)]))
    wanted = aws_sign_request(request, config).result(timeout=SECONDS).path
    is_running = signed_at <= dt.datetime.now(dt.UTC) < signed_at + dt.timedelta(seconds=seconds)
    return is_running and dict(parse_qsl(urlsplit(wanted).query)) == query
