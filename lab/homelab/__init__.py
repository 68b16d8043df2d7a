# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start, inspect and remove a homelab in containers."""

from __future__ import annotations

import concurrent.futures
import hashlib
import ipaddress
import json
import os
import re
import shutil
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Callable

from .hosts import KNOWS_CGROUP_V1, SITES, LabHost
from .images import build_image
from .podman import LabError, limit_options, log_step, run_command, run_podman

__all__ = ["HostState", "Lab", "LabError"]

CHECKOUT = Path(__file__).resolve().parents[2]
CGROUP_V1 = CHECKOUT / "lab" / "images" / "common" / "cgroup-v1.conf"
V2_INIT = "/opt/lab/common/v2-init"  # in the images
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INSTANCES = 512  # inotify instances that a lab needs
FIRST_ADDRESS = 10  # of a host, in the lab's network
READY_SECONDS = 90  # from the start until ssh answers; 5 to 15 on two cores

SSH_CONFIG = """\
# Written by lab/lab. ssh -F {file} HOST
Host *
  HostName 127.0.0.1
  IdentityFile "{state}/id_ed25519"
  IdentitiesOnly yes
  UserKnownHostsFile "{state}/known_hosts"
  StrictHostKeyChecking yes
  LogLevel ERROR
"""


@dataclass(frozen=True)
class HostState:
    """The state of a host."""

    condition: str  # podman's word, such as "running", or "removed"
    began: float | None  # when its shutdown began, in seconds since 1970
    down: float | None  # when it ended


class Lab:
    """A lab of this checkout: its containers, and a directory for its state."""

    def __init__(self, name: str, checkout: Path = CHECKOUT) -> None:
        """Name a lab without starting anything."""
        self.name = name
        self.state = checkout / ".lab" / name
        # the names of containers differ between checkouts on one machine
        self.prefix = f"nutlab-{hashlib.sha256(str(checkout).encode()).hexdigest()[:6]}-{name}"

    @classmethod
    def from_environment(cls) -> Lab:
        """Return the lab that the environment variable LAB names."""
        name = os.environ.get("LAB") or "default"
        if not name.replace("-", "").isalnum():
            raise LabError(f"LAB={name}: the name of a lab may contain letters, digits and hyphens only")
        return cls(name)

    # Inspection

    def read_hosts(self) -> dict[str, dict[str, int]]:
        """Return the hosts of the lab: name -> ports on loopback ({"ssh": n, "api": n})."""
        try:
            known: dict[str, dict[str, int]] = json.loads((self.state / "lab.json").read_text())["hosts"]
        except FileNotFoundError:
            return {}
        return known

    def find_host(self, name: str) -> LabHost:
        """Return a host of this lab by name. Raise LabError if the lab does not have it."""
        up = self.read_hosts()
        for host in all_hosts(SITES):
            if host.name == name and name in up:
                return host
        raise LabError(
            f"this lab has no host {name}. " + (f"Its hosts: {', '.join(up)}" if up else "Start it: make lab")
        )

    def started_sites(self) -> list[str]:
        """Return the names of the sites that were started."""
        up = self.read_hosts()
        return [site for site, hosts in SITES.items() if any(host.name in up for host in hosts)]

    def read_states(self) -> dict[LabHost, HostState]:
        """Return the state of every host of the lab."""
        return {self.find_host(name): self._read_state(name) for name in self.read_hosts()}

    def container_name(self, name: str) -> str:
        """Return the name of a host's container."""
        return f"{self.prefix}-{name}"

    def _read_state(self, name: str) -> HostState:
        found = run_podman("inspect", "--type", "container", self.container_name(name), check=False)
        if found.returncode:
            return HostState("removed", None, None)
        seen = json.loads(found.stdout)[0]["State"]
        running = seen["Status"] == "running"
        try:
            began = float((self.state / "hosts" / name / "shutdown-began").read_text())
        except (FileNotFoundError, ValueError):
            # the shutdown has not begun (or, with ValueError, the file is being written)
            began = None
        down = None if running else parse_timestamp(seen["FinishedAt"])
        return HostState(seen["Status"], began, down)

    # Start and removal

    def start_sites(self, sites: Iterable[str]) -> None:
        """Start the hosts of these sites with their mains on. Leave running hosts alone."""
        self._check_podman()
        wanted = list(all_hosts({site: SITES[site] for site in sites}))
        images = {pair: build_image(*pair) for pair in sorted({(host.kind, host.release) for host in wanted})}
        self._prepare_lab()
        known = self.read_hosts()
        for host in wanted:
            ports = known.setdefault(host.name, {})
            for service in ("ssh", "api") if host.kind == "truenas" else ("ssh",):
                if service not in ports:
                    ports[service] = _find_free_port()
        (self.state / "lab.json").write_text(json.dumps({"name": self.name, "hosts": known}, indent=2))
        started = [host for host in wanted if self._start_host(host, images[host.kind, host.release], known[host.name])]
        if started:
            log_step(f"waiting for {', '.join(host.name for host in started)}")
        run_in_parallel(self._wait_for_boot, wanted)
        self._write_ssh_files(known)
        for host in wanted:
            if "api" in known[host.name]:
                self._save_fingerprint(host.name, known[host.name]["api"])

    def is_running(self) -> bool:
        """Return whether the lab is up and every host of it is running."""
        states = self.read_states()
        return bool(states) and all(state.condition == "running" for state in states.values())

    def remove_lab(self) -> None:
        """Remove the lab's containers, network and directory."""
        if not self.state.exists():
            return
        names = run_podman("ps", "--all", "--quiet", "--filter", f"label=lab={self.prefix}").stdout.split()
        if names:
            log_step(f"removing {len(names)} containers")
            run_podman("rm", "--force", "--time", "0", *names)
        run_podman("network", "rm", "--force", self.prefix)
        shutil.rmtree(self.state)

    def cut_power(self, name: str) -> None:
        """Stop a host at once, as if its plug were pulled."""
        run_podman("kill", self.container_name(self.find_host(name).name))

    def control_ups(self, host: str, *words: str) -> str:
        """Run lab/ups for a host and return its output."""
        return run_command([str(CHECKOUT / "lab" / "ups"), host, *words], env={**os.environ, "LAB": self.name}).stdout

    def _check_podman(self) -> None:
        if shutil.which("podman") is None:
            raise LabError("podman is not installed. `make lab` installs what the lab needs.")
        if os.geteuid() != 0 and run_podman("info", "--format", "{{.Host.CgroupsVersion}}").stdout.strip() != "v2":
            raise LabError(
                "without root, containers can run systemd only if the kernel uses cgroup v2 alone, but this machine uses v1 "
                "too. Run the lab as root: sudo make lab"
            )

    def _raise_inotify_limit(self) -> None:
        """Allow more inotify instances, because the kernel's default is enough for only a few systemds."""
        try:
            if int(INOTIFY.read_text()) < INSTANCES:
                INOTIFY.write_text(f"{INSTANCES}\n")
                log_step(f"set {INOTIFY} to {INSTANCES} until this machine reboots")
        except (OSError, ValueError):
            # not permitted, or the file is missing; small labs run nevertheless
            return

    def _prepare_lab(self) -> None:
        """Make the lab's directory, ssh key and network."""
        self._raise_inotify_limit()
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (self.state / "id_ed25519").exists():
            run_command(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(self.state / "id_ed25519")]
            )
        if run_podman("network", "exists", self.prefix, check=False).returncode:
            run_podman("network", "create", "--label", f"lab={self.prefix}", self.prefix)

    def _start_host(self, host: LabHost, image_id: str, ports: dict[str, int]) -> bool:
        """Start a host, after its UPS. Return False if the host was running already."""
        if host.ups:
            folder = self.state / "usb" / host.name
            folder.mkdir(parents=True, exist_ok=True)
            emulator = ["python3", "/opt/lab/usb/emulator.py", "/run/usb"]
            options = ["--network", "none", "--volume", f"{folder}:/run/usb", image_id]
            if self._ensure_running(f"usb-{host.name}", options, emulator):
                self._plug_in_upses(host)
            if self._read_state(host.name).condition == "exited":
                # the host went down in a power cut, and would go down again
                log_step(f"restoring the mains of {host.name}")
                self.control_ups(host.name, "mains", "on")
        folder = self.state / "hosts" / host.name
        folder.mkdir(parents=True, exist_ok=True)
        numbers = self._number_hosts()
        # the MAC address as well, because other hosts remember it
        network = f"{self.prefix}:alias={host.name},ip={numbers[host.name][0]},mac={numbers[host.name][1]}"
        options = ["--systemd", "always", "--hostname", host.name, "--network", network]
        if not host.ups:
            # A secondary finds its primary without a name server, as the doctor demands.
            primaries = [other for site in SITES.values() if host in site for other in site if other.ups]
            options += [f"--add-host={other.name}:{numbers[other.name][0]}" for other in primaries]
        # the journal is kept outside of the container, to show what happened during a power cut
        (folder / "journal").mkdir(exist_ok=True)
        options += ["--volume", f"{folder}:/lab", "--volume", f"{folder}/journal:/var/log/journal"]
        home = "/root" if host.user == "root" else f"/home/{host.user}"
        options += ["--volume", f"{self.state}/id_ed25519.pub:{home}/.ssh/authorized_keys:ro"]
        if host.ups:
            options += ["--volume", f"{self.state / 'usb' / host.name}:/run/usb"]
            # for the sandbox of a drill: a unit's own mounts (which AppArmor's profile for containers forbids) and its own network
            options += [
                "--cap-add",
                "SYS_ADMIN",
                "--cap-add",
                "NET_ADMIN",
                "--cap-add",
                "SYS_PTRACE",
                "--security-opt",
                "apparmor=unconfined",
            ]
        elif host.group == "pve":
            options += ["--cap-add", "NET_ADMIN"]  # for nftables, as on every host that is no container
        cgroup_options, first_process = choose_init(host.release, has_cgroup_v1())
        options += cgroup_options
        for service, inside in (("ssh", 22), ("api", 443)):
            if service in ports:
                options += ["--publish", f"127.0.0.1:{ports[service]}:{inside}"]
        return self._ensure_running(host.name, [*options, image_id], first_process)

    def _number_hosts(self) -> dict[str, tuple[str, str]]:
        """Return the IP address and the MAC address of each host, the same at each start, like those of machines at home."""
        seen = json.loads(run_podman("network", "inspect", self.prefix).stdout)[0]
        subnet = ipaddress.ip_network(seen["subnets"][0]["subnet"])
        return {
            host.name: (str(subnet[number]), f"02:00:00:00:00:{number:02x}")
            for number, host in enumerate(all_hosts(SITES), FIRST_ADDRESS)
        }

    def _plug_in_upses(self, host: LabHost) -> None:
        """Plug in the UPSes of a host as soon as its emulator answers."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                self.control_ups(host.name, "status")
                break
            except LabError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        for ups in host.ups:
            serial = [] if ups.serial is None else ["--serial", ups.serial]
            self.control_ups(host.name, "plug", ups.model, *serial)

    def _ensure_running(self, name: str, options: list[str], command: list[str]) -> bool:
        """Start a container unless it is running. Return whether it had to be started."""
        container = self.container_name(name)
        condition = self._read_state(name).condition
        if condition == "running":
            return False
        if condition == "exited":
            run_podman("start", container)
            return True
        # replace a container that never started
        run_podman("rm", "--force", "--ignore", container)
        label = f"lab={self.prefix}"
        run_podman("run", "--detach", "--name", container, "--label", label, *limit_options(), *options, *command)
        return True

    def _wait_for_boot(self, host: LabHost) -> None:
        """Wait until systemd has finished booting and sshd listens."""
        deadline = time.monotonic() + READY_SECONDS
        container = self.container_name(host.name)
        while time.monotonic() < deadline:
            # don't wait longer than the deadline for a boot that hangs
            waits = [
                "timeout",
                f"{max(1, deadline - time.monotonic()):.0f}",
                "systemctl",
                "is-system-running",
                "--wait",
            ]
            asked = run_podman("exec", container, *waits, check=False)
            if asked.stdout.strip() in ("running", "degraded"):
                return
            if self._read_state(host.name).condition != "running":
                raise LabError(f"{host.name} did not stay up. See: podman logs {container}")
            time.sleep(0.5)
        raise LabError(f"{host.name} did not boot within {READY_SECONDS} s. Log in: podman exec -it {container} bash")

    def _save_fingerprint(self, name: str, port: int) -> None:
        """Save the fingerprint of a TrueNAS's self-signed certificate for the inventory."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                certificate = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=5))
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise LabError(f"the API of {name} did not start within {READY_SECONDS} s: {error}") from None
                time.sleep(0.3)
        (self.state / "hosts" / name / "fingerprint").write_text(hashlib.sha256(certificate).hexdigest())

    def read_fingerprint(self, name: str) -> str:
        """Return the SHA-256 fingerprint of a TrueNAS's certificate, in hexadecimal."""
        return (self.state / "hosts" / name / "fingerprint").read_text()

    def _write_ssh_files(self, known: dict[str, dict[str, int]]) -> None:
        config = SSH_CONFIG.format(file=self.state / "ssh_config", state=self.state)
        keys = ""
        for name, ports in known.items():
            user = self.find_host(name).user
            config += f"\nHost {name}\n  User {user}\n  Port {ports['ssh']}\n  HostKeyAlias {name}\n"
            keys += (
                f"{name} "
                + run_podman("exec", self.container_name(name), "cat", "/etc/ssh/ssh_host_ed25519_key.pub").stdout
            )
        (self.state / "ssh_config").write_text(config)
        (self.state / "known_hosts").write_text(keys)


def has_cgroup_v1() -> bool:
    """Return whether this machine's kernel uses cgroup v1, alone or beside v2."""
    return not Path("/sys/fs/cgroup/cgroup.controllers").exists()


def choose_init(release: str, is_v1: bool) -> tuple[list[str], list[str]]:
    """Return podman's options for a machine's cgroups, and its first process. release: of Debian. is_v1: from has_cgroup_v1()."""
    if not is_v1:
        return [], ["/sbin/init"]
    if release in KNOWS_CGROUP_V1:
        return ["--volume", f"{CGROUP_V1}:/etc/systemd/system.conf.d/cgroup-v1.conf:ro"], ["/sbin/init"]
    rights = ["--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined"]
    return ["--cgroupns", "private", *rights], ["/bin/sh", V2_INIT]


def all_hosts(sites: dict[str, tuple[LabHost, ...]]) -> Iterable[LabHost]:
    """Return the hosts of sites."""
    return (host for hosts in sites.values() for host in hosts)


def run_in_parallel(work: Callable[[LabHost], None], hosts: list[LabHost]) -> None:
    """Call a function for all hosts in parallel. Raise the first error."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(len(hosts), 1)) as pool:
        for done in [pool.submit(work, host) for host in hosts]:
            done.result()


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def parse_timestamp(stamp: str) -> float:
    """Return podman's timestamp in seconds since 1970. It has nanoseconds, more than Python can parse."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", stamp).replace("Z", "+00:00")).timestamp()
