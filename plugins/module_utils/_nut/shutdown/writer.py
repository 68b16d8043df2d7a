# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writing to disks in a thread, for a loop that must not wait for them."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Callable

from ..base import files
from ..base.cli import PrintText
from ..base.log import append_line


class BackgroundWriter(threading.Thread):
    """Writes to disks, which may be slow or stuck, in a thread. What can't be written is told once, and left."""

    def __init__(self, say: PrintText) -> None:
        super().__init__(daemon=True)
        self.say = say
        self.jobs: queue.SimpleQueue[tuple[Path, Callable[[], None]] | None] = queue.SimpleQueue()
        self.broken: set[Path] = set()
        self._texts: dict[Path, str] = {}  # that wait to replace a file: of each file the newest
        self._lock = threading.Lock()

    def run(self) -> None:
        """Do one after another."""
        while (job := self.jobs.get()) is not None:
            path, work = job
            try:
                work()
            except (OSError, files.WriteError) as error:
                if path not in self.broken:
                    self.broken.add(path)
                    self.say(f"{path} can't be written: {getattr(error, 'strerror', None) or error}")

    def queue_line(self, path: Path, line: str) -> None:
        """Add a line to a file, so that it lasts over a power cut."""
        self.jobs.put((path, lambda: append_line(path, line)))

    def queue_text(self, path: Path, text: str) -> None:
        """Replace a file: whenever the power goes, the old or the new one is there. A text that still waits for that is dropped."""
        with self._lock:
            waits = path in self._texts
            self._texts[path] = text
        if not waits:
            self.jobs.put((path, lambda: self._replace_file(path)))

    def finish_writing(self, seconds: float) -> None:
        """Wait until all is written, but not longer than this."""
        self.jobs.put(None)
        self.join(seconds)

    def _replace_file(self, path: Path) -> None:
        with self._lock:
            text = self._texts.pop(path)
        files.replace_private_file(path, text)
