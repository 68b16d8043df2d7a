#!/bin/sh
# nut-hotplug (homelab.nut): a Python program in an archive, behind these lines.
# What the last run has left in /run tells with next to nothing that there is nothing to do; if it does not, the archive is run.
exec /usr/bin/python3 -ISc '
import posix, sys
del sys.argv[0]
if sys.argv[1:] == ["run"]:
    try:
        import marshal
        exec(marshal.loads(posix.read(posix.open("/run/nut-hotplug.%x.code" % sys.hexversion, posix.O_NOFOLLOW), 1 << 20)))
    except Exception:
        pass
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
' "$0" "$@"
