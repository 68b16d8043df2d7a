#!/usr/bin/python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A web server and a mail server that record what arrives, a line of JSON each: recorder.py FILE.

The web server takes what is sent to /ok, refuses what is sent to /refuse, and never answers at /hang.
"""

import email
import email.policy
import http.server
import json
import socketserver
import sys
import threading
import time
from pathlib import Path

WEB_PORT, MAIL_PORT = 8099, 8025
LOCK = threading.Lock()


def record(**words):
    """Append what has arrived to the file."""
    with LOCK, Path(sys.argv[1]).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"at": time.time(), **words}) + "\n")


class WebHandler(http.server.BaseHTTPRequestHandler):
    """One request."""

    def do_POST(self):
        """Record a message, and answer as the path says."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        record(to=self.path, title=body["title"], body=body["message"], kind=body["type"])
        if self.path == "/hang":
            time.sleep(3600)
        self.send_response(200 if self.path == "/ok" else 403)
        self.end_headers()


class MailHandler(socketserver.StreamRequestHandler):
    """One connection of a client that speaks SMTP."""

    def handle(self):
        """Take one mail."""
        self.answer(220)
        for line in self.rfile:
            word = line.split()[0].upper() if line.split() else b""
            if word == b"DATA":
                self.answer(354)
                lines = iter(self.rfile.readline, b".\r\n")
                mail = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                part = mail.get_body(("plain", "html"))
                record(to="mail", title=str(mail["Subject"]), body=part.get_content() if part else "", kind="")
            self.answer(221 if word == b"QUIT" else 250)
            if word == b"QUIT":
                return

    def answer(self, code):
        """Send an answer."""
        self.wfile.write(b"%d ok\r\n" % code)


class MailServer(socketserver.ThreadingTCPServer):
    """The mail server."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    mail = MailServer(("localhost", MAIL_PORT), MailHandler)
    threading.Thread(target=mail.serve_forever, daemon=True).start()
    http.server.ThreadingHTTPServer(("localhost", WEB_PORT), WebHandler).serve_forever()
