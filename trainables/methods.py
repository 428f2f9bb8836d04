"""The registry of methods: one line each."""

from trainables.gradient_reg import GradientRegularisation
from trainables.method import Method
from trainables.pilcro import Pilcro

METHODS: dict[str, type[Method]] = {
    "baseline": Method,
    "gradient_reg": GradientRegularisation,
    "pilcro": Pilcro,
}
