#!/bin/sh
# nut-hotplug (homelab.nut): a Python program in an archive that follows these lines.
# Nearly every run finds that nothing has changed, and ends here. Importing from the archive would double the cost of such a run.
# So the only file that it needs is the archive's first entry, uncompressed, and is read directly: from the end of its name to the
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
        os._exit(0)  # a regular exit would take longer than the check
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
' "$0" "$@"
