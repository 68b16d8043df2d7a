# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writing files in a thread, for loops that must not wait for a slow disk."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Callable

from ..base import files
from ..base.cli import PrintText
from ..base.log import append_line


class BackgroundWriter(threading.Thread):
    """Writes files in a thread, because a disk may be slow or hang. Reports the first failure of each file, and goes on."""

    def __init__(self, log: PrintText) -> None:
        super().__init__(daemon=True)
        self.log = log
        self.jobs: queue.SimpleQueue[tuple[Path, Callable[[], None]] | None] = queue.SimpleQueue()
        self.failed_paths: set[Path] = set()
        self._pending_texts: dict[Path, str] = {}  # file -> the newest text that is to replace it
        self._lock = threading.Lock()

    def run(self) -> None:
        """Work through the queue until finish_writing()."""
        while (job := self.jobs.get()) is not None:
            path, work = job
            try:
                work()
            except (OSError, files.WriteError) as error:
                if path not in self.failed_paths:
                    self.failed_paths.add(path)
                    self.log(f"can't write {path}: {getattr(error, 'strerror', None) or error}")

    def queue_line(self, path: Path, line: str) -> None:
        """Append a line to a file, and sync it so that it survives a power cut."""
        self.jobs.put((path, lambda: append_line(path, line)))

    def queue_work(self, path: Path, work: Callable[[], None]) -> None:
        """Do work that writes below a path. It may raise OSError or files.WriteError."""
        self.jobs.put((path, work))

    def queue_text(self, path: Path, text: str) -> None:
        """Replace a file atomically: a power cut leaves the old or the new text. A text still queued for it is dropped."""
        with self._lock:
            is_queued = path in self._pending_texts
            self._pending_texts[path] = text
        if not is_queued:
            self.jobs.put((path, lambda: self._replace_file(path)))

    def finish_writing(self, seconds: float) -> None:
        """Wait until the queue is written, at most so many seconds."""
        self.jobs.put(None)
        self.join(seconds)

    def _replace_file(self, path: Path) -> None:
        with self._lock:
            text = self._pending_texts.pop(path)
        files.replace_private_file(path, text)
