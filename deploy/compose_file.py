"""What compose.yaml says about each service, for programs that run the services without Docker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

COMPOSE = Path(__file__).with_name("compose.yaml")
OWN_IMAGE = "batch-assets"
# ${NAME:?}, with a text after it or not, and ${NAME:-default}.
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[?-])(?P<rest>[^}]*))?\}")


@dataclass(frozen=True)
class Service:
    """One service.

    Attributes:
        name: Its name, which is also its host name.
        image: The image.
        command: What runs in it; empty for the image's own command.
        environment: Its variables, without those of the image.
        health: The command that shows whether it is ready; empty if it has none.
        after: The services that it waits for, with the condition of each.
        replicas: How many of it run.
    """

    name: str
    image: str
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    health: tuple[str, ...] = ()
    after: dict[str, str] = field(default_factory=dict)
    replicas: int = 1

    @property
    def is_own(self) -> bool:
        """Whether it runs this project's image."""
        return self.image == OWN_IMAGE


def variables_of(path: Path = COMPOSE) -> set[str]:
    """Return the names of the variables that the file needs from outside."""
    return {match["name"] for match in _VARIABLE.finditer(path.read_text("utf-8"))}


def read_services(variables: Mapping[str, str], path: Path = COMPOSE) -> dict[str, Service]:
    """Read the services, in an order in which each comes after those that it waits for.

    Args:
        variables: The values of the variables that the file needs.
        path: The file.

    Raises:
        KeyError: When a variable is missing.
    """
    document = _filled_in(yaml.safe_load(path.read_text("utf-8")), variables)
    services = {name: _service(name, fields) for name, fields in document["services"].items()}
    ordered: dict[str, Service] = {}
    while len(ordered) < len(services):
        ready = [
            name for name in services if name not in ordered and services[name].after.keys() <= ordered.keys()
        ]
        if not ready:
            raise ValueError(f"{path}: services wait for each other: {sorted(services.keys() - ordered.keys())}")
        ordered |= {name: services[name] for name in ready}
    return ordered


def _filled_in(node: Any, variables: Mapping[str, str]) -> Any:
    """Return a part of the document with the values of variables in its texts."""
    if isinstance(node, dict):
        return {key: _filled_in(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled_in(value, variables) for value in node]
    return _VARIABLE.sub(lambda match: _value(match, variables), node) if isinstance(node, str) else node


def _value(match: re.Match[str], variables: Mapping[str, str]) -> str:
    if (value := variables.get(match["name"])) or match["kind"] is None:
        return value or ""
    if match["kind"] == "?":
        raise KeyError(match["name"])
    return match["rest"]


def _service(name: str, fields: Mapping[str, Any]) -> Service:
    after = fields.get("depends_on", {})
    return Service(
        name,
        fields["image"],
        tuple(fields.get("command", ())),
        {key: str(value) for key, value in fields.get("environment", {}).items()},
        tuple(fields.get("healthcheck", {}).get("test", ("CMD",))[1:]),
        {other: options["condition"] for other, options in after.items()},
        fields.get("deploy", {}).get("replicas", 1),
    )
