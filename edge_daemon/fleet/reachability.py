"""Checks whether a TLS server can be reached; if not, gives a reason that a person can act on."""

import asyncio
import datetime as dt
import socket
import ssl
import time
from collections.abc import Callable

from dragon_core.errors import OurError, RetryableError

CONNECT_SECONDS = 15.0
_TIME_CODES = {9, 10}
"""OpenSSL: a certificate is not yet valid, or has expired."""


async def require_tls_server(
    host: str, port: int, context: ssl.SSLContext, *, clock: Callable[[], float] = time.time
) -> None:
    """Connect and leave again.

    Raises:
        OurError: another server answers, or the clock of this machine is wrong. RetryableError: no server answers.
    """
    where = f"the broker at {host}:{port}"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
            writer.close()
            await writer.wait_closed()
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _TIME_CODES:
            now = dt.datetime.fromtimestamp(clock(), dt.UTC)
            raise OurError(
                f"{where} has a certificate that is not valid at {now:%Y-%m-%d %H:%M:%S UTC}, which is what this "
                f"device's clock says ({error.verify_message}): set the clock, or renew the broker's certificate"
            ) from error
        raise OurError(
            f"{where} cannot be trusted: {error.verify_message}; something else answers there, "
            "or the broker has a new authority: ask for a new join token"
        ) from error
    except TimeoutError as error:
        raise RetryableError(
            f"{where} does not answer within {CONNECT_SECONDS:.0f} s: check for a firewall in between",
            retry_after_seconds=30.0,
        ) from error
    except socket.gaierror as error:
        raise RetryableError(f"{where}: there is no such host ({error.strerror})", retry_after_seconds=30.0) from error
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise RetryableError(f"{where} cannot be reached: {reason}", retry_after_seconds=30.0) from error
