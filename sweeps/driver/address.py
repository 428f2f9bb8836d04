"""RAY_ADDRESS: whether a driver can use it, and whether anybody answers there."""

from __future__ import annotations

import socket

from analysis.command_line import InputError


def check_address_form(address: str) -> None:
    """Refuse a RAY_ADDRESS that no driver can use, before anything is loaded."""
    if address.startswith("ray://"):
        raise InputError(
            f"RAY_ADDRESS: {address}, sweeps do not run through Ray Client; give the command on a node of the "
            "cluster with RAY_ADDRESS=host:6379, or hand it over with ray job submit"
        )
    host, _, port = address.rpartition(":")
    if address not in ("", "auto", "local") and not (host and "/" not in host and port.isdigit()):
        raise InputError(f"RAY_ADDRESS: {address!r}, allowed are host:port of the cluster's head, auto and local")


def check_address(address: str) -> None:
    """Find out in seconds whether somebody answers at RAY_ADDRESS; Ray itself would try for minutes."""
    if address in ("", "auto", "local"):
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"RAY_ADDRESS: no Ray answers at {address} ({reason}); start it, or unset RAY_ADDRESS for a local one"
        ) from None
