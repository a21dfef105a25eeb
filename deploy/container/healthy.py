"""Exit 0 while the coordinator of this container answers /healthz with ok: its database answers, its disk has room.

Asks on loopback, where the certificate need not be checked: it is our own process. Run by the image's HEALTHCHECK.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys

TIMEOUT_S = 8.0


def connection(web: str) -> http.client.HTTPConnection:
    """To the web address of the settings: TLS wherever that is not loopback."""
    host, _, port = web.rpartition(":")
    if host in ("127.0.0.1", "localhost", "[::1]") and not os.environ.get("SHARDWORK_WEB_CERTIFICATE_FILE"):
        return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=TIMEOUT_S)
    unchecked = ssl.create_default_context()
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", int(port), timeout=TIMEOUT_S, context=unchecked)


def main() -> int:
    asked = connection(os.environ.get("SHARDWORK_WEB", "0.0.0.0:8080"))
    try:
        asked.request("GET", "/healthz", headers={"Host": "localhost"})
        answer = asked.getresponse()
        said = answer.read(200).decode(errors="replace").strip()
    except OSError as error:
        print(f"no answer: {type(error).__name__}", file=sys.stderr)
        return 1
    print(said)
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
