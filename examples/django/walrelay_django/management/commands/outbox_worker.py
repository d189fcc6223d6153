"""manage.py outbox_worker: calls the registered handlers.

It starts "walrelay deliver", which posts events to it over the loopback interface. Each handler
gets each event of its types, in order for each key; its changes to the database and the note
that it has handled the event are one transaction. What raises is tried again with backoff,
and then parked: walrelay parked list.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import signal
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import close_old_connections, router, transaction
from django.utils.dateparse import parse_datetime
from django.utils.module_loading import autodiscover_modules

from ...events import Event
from ...models import HandledEvent
from ...registry import event_registry


class Command(BaseCommand):
    help = "Handle events until SIGTERM or SIGINT"

    def add_arguments(self, parser):
        parser.add_argument("--walrelay", default=os.environ.get("OUTBOX_WORKER_BIN", "walrelay"), help="the binary (default walrelay)")
        parser.add_argument("--concurrency", type=int, default=4, help="calls at a time for each handler (default 4)")

    def handle(self, *, walrelay, concurrency, **_):
        autodiscover_modules("handlers")
        if not event_registry.handlers:
            raise CommandError("no handler is registered: put @event_registry.register(…) into the module handlers of an app")
        secret = secrets.token_bytes(32)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler_class(secret, self.stderr))
        server.daemon_threads = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "secret"), "w", opener=private) as file:
                file.write("whsec_" + base64.b64encode(secret).decode())
            path = os.path.join(folder, "handlers.yaml")
            with open(path, "w") as file:  # JSON is YAML, too
                json.dump({"handlers": [
                    {"name": name, "url": f"http://127.0.0.1:{server.server_port}/{name}", "secret_file": "secret", "concurrency": concurrency, "types": types or []}
                    for name, (_, types) in event_registry.handlers.items()
                ]}, file)
            environ = {"WALRELAY_POSTGRES_URL": database_url(), **os.environ}
            deliver = subprocess.Popen([walrelay, "deliver", "--handlers", path], env=environ)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: deliver.terminate())
            code = deliver.wait()
        server.shutdown()
        server.server_close()
        if code:
            raise CommandError(f"walrelay deliver ended with {code}")


def private(path, flags):
    return os.open(path, flags, 0o600)


def database_url():
    """The default database's address, for walrelay."""
    db = settings.DATABASES["default"]
    user = quote(db.get("USER") or "", safe="")
    if db.get("PASSWORD"):
        user += ":" + quote(db["PASSWORD"], safe="")
    return f"postgres://{user}@{db.get('HOST') or 'localhost'}:{db.get('PORT') or 5432}/{quote(db['NAME'], safe='')}"


def handler_class(secret, stderr):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not self.signed(body):
                return self.answer(401, "the signature is wrong")
            close_old_connections()
            try:
                self.answer(*self.call(body))
            finally:
                close_old_connections()

        def signed(self, body):
            text = f"{self.headers.get('webhook-id')}.{self.headers.get('webhook-timestamp')}.".encode() + body
            want = "v1," + base64.b64encode(hmac.new(secret, text, hashlib.sha256).digest()).decode()
            return hmac.compare_digest(want, self.headers.get("webhook-signature") or "")

        def call(self, body):
            name = self.path[1:]
            if name not in event_registry.handlers:
                return 404, "no such handler"
            function, _ = event_registry.handlers[name]
            event = self.event(body)
            try:
                with transaction.atomic(using=router.db_for_write(HandledEvent)):
                    _, is_new = HandledEvent.objects.get_or_create(handler=name, key=self.headers["Idempotency-Key"])
                    if is_new:
                        function(event)
            except Exception as error:  # whatever it is, the event is tried again
                stderr.write(f"{name}: {event.event_type} {event.id}: {error!r}")
                return 500, repr(error)
            return 204, ""

        def event(self, body):
            attributes = {name[3:].lower(): unquote(value) for name, value in self.headers.items() if name.lower().startswith("ce-")}
            attributes.pop("specversion", None)
            content_type = self.headers.get("Content-Type") or "application/json"
            is_json = content_type.split(";")[0].strip().lower().endswith("json")
            data = json.loads(body) if body and is_json else body or None
            time = attributes.pop("time", None)
            return Event(
                event_type=attributes.pop("type"), source=attributes.pop("source"), id=attributes.pop("id"), data=data,
                subject=attributes.pop("subject", None), key=attributes.pop("partitionkey", None),
                time=time and parse_datetime(time), attempt=int(self.headers.get("Walrelay-Attempt") or 1), extensions=attributes,
            )

        def answer(self, code, text):
            content = text.encode()
            self.send_response(code)
            if code != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass  # walrelay says what fails

    return Handler
