"""Adversarial attacks, and how robust a classifier is against them."""

from iscp_lightning.attacks.epsilon import Epsilon
from iscp_lightning.attacks.pgd import PGD, Attack, fgsm
from iscp_lightning.attacks.robustness import ATTACKS, Robustness, evaluate_robustness
from iscp_lightning.attacks.spatial import StAdv

__all__ = [
    "ATTACKS",
    "PGD",
    "Attack",
    "Epsilon",
    "Robustness",
    "StAdv",
    "evaluate_robustness",
    "fgsm",
]
