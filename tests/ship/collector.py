"""Traces and metrics before a collector of another maker: gRPC's own server with OpenTelemetry's own messages, plain and over TLS,
and the same messages over HTTP. Not here: which spans there are (src/telemetry/tests).

usage: collector.py PROGRAM"""

import contextlib
import http.server
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent import futures
from pathlib import Path

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from servers import free_port, wait_for

TOKEN = "Bearer of a collector"
# Until the spans of a request and the metrics after it have come.
WAIT_SECONDS = 60


class Kept:
    """What came, of those who have the token."""

    def __init__(self):
        self.spans, self.metrics, self.refused = [], set(), 0

    def spans_of(self, request):
        self.spans += [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]

    def metrics_of(self, request):
        self.metrics |= {metric.name for resource in request.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics}

    def is_complete(self):
        names = {span.name for span in self.spans}
        return {"POST /graphql", "query", "user.page"} <= names and "graphql_server_operation_duration_seconds" in self.metrics


def check(kept, context):
    if ("authorization", TOKEN) not in context.invocation_metadata():
        kept.refused += 1
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you")


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, kept):
        self.kept = kept

    def Export(self, request, context):
        check(self.kept, context)
        self.kept.spans_of(request)
        return trace_service_pb2.ExportTraceServiceResponse()


class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, kept):
        self.kept = kept

    def Export(self, request, context):
        check(self.kept, context)
        self.kept.metrics_of(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


def by_grpc(stack, kept, port, keys=None):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(kept), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(kept), server)
    if keys:
        key, certificate = (file.read_bytes() for file in keys)
        server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([(key, certificate)]))
    else:
        server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    stack.callback(lambda: server.stop(0).wait())


def over_http(stack, kept, port):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            known = self.headers["authorization"] == TOKEN and self.headers["content-type"] == "application/x-protobuf"
            if known and self.path == "/v1/traces":
                kept.spans_of(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
            elif known and self.path == "/v1/metrics":
                kept.metrics_of(metrics_service_pb2.ExportMetricsServiceRequest.FromString(body))
            self.send_response(200 if known else 401)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.shutdown)


def certificate(folder):
    """A key, and a certificate for this machine that it has signed itself."""
    key, signed = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", signed, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"],
        check=True, stderr=subprocess.DEVNULL)
    return key, signed


def ask(port):
    body = json.dumps({"query": "{ users(first: 1) { nodes { id } } }"}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"content-type": "application/json"})
    urllib.request.urlopen(request, timeout=20).read()


def attempt(program, protocol, listen, scheme="http", token=TOKEN, settings=None):
    """What a collector gets of a server that is asked something."""
    kept = Kept()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        collector, port = free_port(), free_port()
        listen(stack, kept, collector)
        environment = {
            "PORT": str(port), "HOME": folder, "RUST_LOG": "warn", "OTEL_EXPORTER_OTLP_ENDPOINT": f"{scheme}://127.0.0.1:{collector}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={token.replace(' ', '%20')}",
            "XP_TELEMETRY_OTLP_METRICS_INTERVAL": "500ms", **(settings or {}),
        }
        log = open(f"{folder}/log", "w+")
        server = subprocess.Popen([program, "dev"], env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=log)
        stack.callback(lambda: (server.terminate(), server.wait(30)))
        wait_for(f"http://127.0.0.1:{port}/readyz")
        ask(port)
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end and not kept.is_complete() and not kept.refused:
            time.sleep(0.1)
        log.seek(0)
        return kept, log.read()


def main(program):
    with tempfile.TemporaryDirectory() as folder:
        keys = certificate(Path(folder))
        trusted = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(keys[1])}
        with_tls = lambda stack, kept, port: by_grpc(stack, kept, port, keys)  # noqa: E731
        for name, kept in [
            ("gRPC", attempt(program, "grpc", by_grpc)[0]),
            ("gRPC over TLS", attempt(program, "grpc", with_tls, "https", settings=trusted)[0]),
            ("HTTP", attempt(program, "http/protobuf", over_http)[0]),
        ]:
            names = sorted({span.name for span in kept.spans})
            print(f"{name}: {len(kept.spans)} spans, {len(kept.metrics)} metrics")
            assert kept.is_complete(), f"{name}: {names}, {sorted(kept.metrics)[:5]}"
        refused, _ = attempt(program, "grpc", by_grpc, token="another")
        assert refused.refused and not refused.spans and not refused.metrics, "the token is looked at"
        print("gRPC, another token: refused")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
