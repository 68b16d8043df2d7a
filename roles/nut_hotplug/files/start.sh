#!/bin/sh
# nut-hotplug (homelab.nut): a Python program in an archive, behind these lines.
# Nearly each run finds that nothing has changed, and ends here. Importing from the archive would cost such a run as much as all
# the rest, so the one file that it needs comes first in the archive, uncompressed, and is cut out: from behind its name to the
# next entry.
exec /usr/bin/python3 -ISc '
import os, sys
del sys.argv[0]
if sys.argv[1:] == ["run"]:
    archive = os.open(sys.argv[0], os.O_RDONLY)
    begin = os.read(archive, 16384)
    os.close(archive)
    start = begin.rindex(b"quiet.py# Copyright") + 8
    exec(begin[start : begin.index(b"PK\3\4", start)])
    if is_quiet("/run/nut-hotplug.quiet"):
        os._exit(0)  # tidying up would take longer than looking did
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
' "$0" "$@"
