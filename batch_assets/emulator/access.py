"""Who may call the emulator: programs of this machine, and no page that a browser shows of another site.

The emulator has no authentication. A page of any site can make a browser send calls to it, and a site can let its
own name point to this machine to read the answers. `Host` and `Origin` show both.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.requests import Request

from batch_assets.emulator.wire import HttpError

_JSON = "application/json"


class AllowedHosts:
    """The names by which the emulator may be called.

    Names of the loopback interface are always allowed, and so is the address at which a connection arrived.

    Args:
        names: More names and addresses.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = {_normalized(name) for name in names}

    def check(self, request: Request) -> None:
        """Check the headers that name the server and the site of the page that sent the call.

        Raises:
            HttpError: 403 when one of them names another host; 400 when there are several `Host` headers: a proxy
                and a server may each believe another one.
        """
        if len(request.headers.getlist("host")) > 1:
            raise HttpError(400, "Host: send one header of this name")
        arrived_at = _normalized((request.scope.get("server") or ("", None))[0] or "")
        host = request.headers.get("host", "")
        if not self._allows(_name_of(f"http://{host}"), arrived_at):
            raise _refused("Host", host)
        origin = request.headers.get("origin")
        if origin is not None:
            if not self._allows(_name_of(origin), arrived_at):
                raise _refused("Origin", origin)
        elif request.headers.get("sec-fetch-site") == "cross-site":
            raise _refused("Sec-Fetch-Site", "cross-site")

    def _allows(self, name: str, arrived_at: str) -> bool:
        return name in self._names or name == "localhost" or _is_loopback(name) or name == arrived_at != ""


def check_json(request: Request) -> None:
    """Check that a call has a JSON body. A form of a web page cannot send one.

    Raises:
        HttpError: 415 when its type is another one.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _JSON:
        raise HttpError(415, f"Content-Type: set it to {_JSON}", type="invalid_request_error")


def _refused(header: str, value: str) -> HttpError:
    return HttpError(
        403,
        f"{header}: {value[:100]!r} is not a name of this emulator. Call it as localhost, or start it with "
        "--allow-host NAME",
    )


def _name_of(origin: str) -> str:
    """Return the host of an origin, a URL without a path; "" for anything else."""
    if not re.fullmatch(r"https?://[^@/?#\\\s]+", origin, re.IGNORECASE):
        return ""
    try:
        return _normalized(urlsplit(origin).hostname or "")
    except ValueError:
        return ""


def _normalized(name: str) -> str:
    """Return one spelling of a name or an address."""
    name = name.strip().strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
