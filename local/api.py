"""The public services of a local system in one process: `python -m local.api GRPC_PORT HTTP_PORT`."""

from __future__ import annotations

import logging
import signal
import sys
import threading

from waitress.server import create_server

from magpie.bootstrap import application

STOP_SECONDS = 5.0


def main() -> None:
    """Serve native gRPC and HTTP until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    grpc_port, http_port = (int(port) for port in sys.argv[1:])
    app = application()
    app.warm()
    stopped = threading.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: stopped.set())
    http = create_server(app.http_app(), host="127.0.0.1", port=http_port, threads=4)
    threading.Thread(target=http.run, name="http", daemon=True).start()
    grpc_server = app.native_server(f"127.0.0.1:{grpc_port}")
    logging.info("gRPC on 127.0.0.1:%d, HTTP on 127.0.0.1:%d", grpc_port, http_port)
    stopped.wait()
    grpc_server.stop(STOP_SECONDS).wait()
    http.close()


if __name__ == "__main__":
    main()
