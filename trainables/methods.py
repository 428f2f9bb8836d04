"""The registry of methods: one line each."""

from trainables.deformation import Deformation
from trainables.gradient_reg import GradientRegularisation
from trainables.loco_reg import LocoReg
from trainables.method import Method
from trainables.pilcro import Pilcro
from trainables.top_gap import TopGap

METHODS: dict[str, type[Method]] = {
    "baseline": Method,
    "deformation": Deformation,
    "gradient_reg": GradientRegularisation,
    "loco_reg": LocoReg,
    "pilcro": Pilcro,
    "top_gap": TopGap,
}
