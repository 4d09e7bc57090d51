"""Where the services of compose.yaml run without Docker: at this machine's address, or in network namespaces."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

_LOOPBACK = "127.0.0.1"
_HOSTS = Path("/etc/netns")


class OneAddress:
    """All services listen on this machine's own address. Their ports must be free."""

    def add(self, name: str, host: str) -> None:
        """Prepare for a process. Here there is nothing to do."""

    def command(self, name: str, command: Sequence[str]) -> list[str]:
        """Return the command that runs a command in the place of a process."""
        return list(command)

    def named(self, text: str, hosts: Sequence[str]) -> str:
        """Return a text with this machine's address in the place of host names."""
        names = "|".join(map(re.escape, hosts))
        return re.sub(rf"(?<=[@/])({names})(?=:\d)|(?<=host: )({names})$", _LOOPBACK, text, flags=re.M)

    def close(self) -> None:
        """Remove what was prepared."""


class Namespaces:
    """Each process has a network namespace, an address and a host name of its own, and knows the others by name.

    Needs root. Several deployments may run at a time, each in a subnet of its own.

    Args:
        subnet: A number from 0 to 255.
    """

    def __init__(self, subnet: int = 0) -> None:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            raise PermissionError("network namespaces need root, and the program ip (package iproute2)")
        self._subnet, self._network, self._bridge = subnet, f"10.213.{subnet}", f"ba{subnet}-bridge"
        self._addresses: dict[str, str] = {}
        self._hosts: dict[str, str] = {}
        self._is_closed = False
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.outside}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    @property
    def outside(self) -> str:
        """The address of this machine as the processes see it."""
        return f"{self._network}.1"

    def address(self, name: str) -> str:
        """Return the address of a process, which this machine can reach."""
        return self._addresses[name]

    def add(self, name: str, host: str) -> None:
        """Make the namespace of a process. The first process of a service also has the service's host name."""
        number = len(self._addresses) + 10
        namespace, link, address = self._namespace(name), f"ba{self._subnet}-{number}", f"{self._network}.{number}"
        self._addresses[name] = address
        self._hosts.setdefault(host, address)
        self._hosts[name] = address
        _ip("netns", "add", namespace)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("link", "set", link, "master", self._bridge, "up")
        _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", namespace, "link", "set", device, "up")
        lines = [f"{_LOOPBACK} localhost", *(f"{address} {host}" for host, address in self._hosts.items())]
        for other in self._addresses:
            folder = _HOSTS / self._namespace(other)
            folder.mkdir(parents=True, exist_ok=True)
            # Written in place: a process that runs has this very file mounted as its /etc/hosts.
            (folder / "hosts").write_text("\n".join(lines) + "\n")

    def command(self, name: str, command: Sequence[str]) -> list[str]:
        """Return the command that runs a command in the namespace of a process, with its host name."""
        with_name = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', name, *command]
        return ["ip", "netns", "exec", self._namespace(name), *with_name]

    def named(self, text: str, hosts: Sequence[str]) -> str:
        """Return a text as it is: host names work in namespaces."""
        return text

    def close(self) -> None:
        """Remove all namespaces and the bridge. The second time there is nothing to do."""
        for name in self._addresses:
            _ip("netns", "del", self._namespace(name))
            shutil.rmtree(_HOSTS / self._namespace(name), ignore_errors=True)
        self._addresses.clear()
        if not self._is_closed:
            self._is_closed = True
            _ip("link", "del", self._bridge)

    def _namespace(self, name: str) -> str:
        return f"ba{self._subnet}-{name}"


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
