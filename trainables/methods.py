"""The registry of methods: one line each."""

from trainables.method import Method
from trainables.pilcro import Pilcro

METHODS: dict[str, type[Method]] = {
    "baseline": Method,
    "pilcro": Pilcro,
}
