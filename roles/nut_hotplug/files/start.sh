#!/bin/sh
# nut-hotplug (homelab.nut): a Python program in an archive, behind these lines.
# Nearly each run finds that nothing has changed, and ends here. Started as `python3 ARCHIVE` that would cost a quarter more:
# Python loads runpy first, and what that wants. Python does not tidy up either, as that takes longer than to look.
exec /usr/bin/python3 -ISc '
import os, sys
del sys.argv[0]
sys.path.insert(0, sys.argv[0])
if sys.argv[1:] == ["run"]:
    from _nut.hotplug.quiet import is_quiet
    if is_quiet("/run/nut-hotplug.quiet"):
        os._exit(0)
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
' "$0" "$@"
