"""The tables and figures of the papers: what each is of, and what of a record it needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """A table or figure of a paper, and what of a record it needs."""

    id: str
    title: str
    needs: str


ITEMS = {
    item.id: item
    for item in (
        Item("pilcro-1", "CIFAR-100, ResNet-50, RC− and RC+: Top-1, Top-5, TV, loss", "sweep over variant × α × crop"),
        Item("pilcro-2", "ImageNet, ResNet-50: the same without RC", "sweep over variant × α"),
        Item("pilcro-3", "CIFAR-100, RC−: curves over epochs of Top-1 and TV; landscapes", "epochs, maps"),
        Item("pilcro-4", "CIFAR-100, RC+: curves over epochs of Top-1 and TV; landscapes", "epochs, maps"),
        Item("pilcro-5", "ImageNet: convergence, first epochs zoomed", "epochs"),
        Item("pilcro-6", "top-K ablation by Integrated Gradients, AUC", "measurements salience_ablation"),
        Item("pilcro-e", "corruption robustness by category and severity", "measurements corruption_accuracy"),
        Item("pilcro-p1", "Proposition 1: importance at initialisation and path counts", "--measure paths; maps"),
        Item("loco-1", "distributions of filter weights (illustration)", "nothing: settings of the paper"),
        Item("loco-3", "architectures of VGG13 and MobileNet", "nothing: settings of the paper"),
        Item("loco-4", "locality m(c, n), m(n, co): all, lower, upper half of the layers", "measurements locality"),
        Item("loco-5", "test errors, plain and LOCO-REG", "two-stage sweep of LOCO-REG, 20 seeds"),
        Item("loco-6", "(γ_l, η_l) per layer for c", "first-stage sweep of LOCO-REG"),
        Item("loco-5x5", "distance classes of 5×5 filters", "sweep of LOCO-REG with 5×5 filters"),
        Item("loco-t1", "Theorem 1: bound on ε", "nothing: computed, see `python -m analysis.theorems`"),
        Item(
            "loco-t2", "Theorem 2: expectation against variance", "nothing: computed, see `python -m analysis.theorems`"
        ),
        Item("topgap-1", "parameter counts of the modified models", "measurements parameters"),
        Item("topgap-2", "ERF distance", "measurements erf_distance"),
        Item("topgap-3", "FGSM, PGD and clean accuracy", "sweep of Top-GAP over k, 5 folds"),
        Item("topgap-4", "CIFAR-10: PGD-20, PGD-50, clean", "sweep of Top-GAP over k, 5 seeds"),
        Item("topgap-5", "CUB, ResNet-18, beside non-adversarial defences", "sweep of Top-GAP"),
        Item("topgap-6", "accuracy under shift", "measurements shift_accuracy"),
        Item("topgap-7", "2³ ablation of FPN, ℓ1, Top-GAP", "sweep of Top-GAP over its switches"),
        Item("topgap-a1", "ERF at the centre", "measurements erf"),
        Item("topgap-a2", "ERF in the corner", "measurements erf"),
        Item("topgap-a3", "sparsity ‖X‖₁ of the CAM", "measurements cam_sparsity"),
        Item("topgap-a4", "IoU with masks", "measurements iou"),
        Item("topgap-a5", "CIFAR-10 over seeds, chosen for robustness", "sweep of Top-GAP over k, 5 seeds"),
        Item("topgap-a6", "combination with adversarial training", "nothing: other authors' methods"),
        Item("topgap-a7", "ℓ1 on the last or all activations: ERF, accuracy", "sweep over λ and its place"),
        Item("topgap-a8", "sparsity by ℓ1 alone and ours", "sweep over λ and k"),
        Item("topgap-a9", "ℓ1 on the last or all activations: robustness", "sweep over λ and its place"),
        Item("topgap-f1", "class activation maps as k grows", "maps cam"),
        Item("topgap-f3", "sparsity as k grows", "measurements cam_sparsity"),
        Item("topgap-f4", "class activation maps, Top-GAP and standard", "maps cam"),
        Item("topgap-f5", "class activation maps of the ablation", "maps cam"),
        Item("topgap-fa3", "robust accuracy as PGD steps grow", "measurements robust_accuracy by level"),
        Item("deform-3", "sensitivity by layer, before and after training", "measurements deformation_sensitivity"),
        Item("deform-4", "sensitivity by layer at initialisation as σ grows", "measurements deformation_sensitivity"),
        Item("deform-5", "smoothness of trained filters as C grows", "measurements filter_total_variation"),
        Item("deform-6", "smoothness by layer, real and random labels", "measurements filter_total_variation"),
        Item("deform-7", "sensitivity by layer with random labels", "measurements deformation_sensitivity"),
        Item("deform-t", "both along the epochs (future work there)", "both measurements by epoch"),
        Item("gradreg-1", "accuracy against α, with the tipping point", "sweep of gradient_reg over α"),
        Item("gradreg-2", "Faithfulness Estimate against α", "--measure faithfulness"),
        Item("gradreg-3", "local Lipschitz, Max-Sensitivity against α", "--measure local_lipschitz max_sensitivity"),
        Item("gradreg-4", "entropy against α", "--measure entropy"),
        Item("gradreg-b", "saliency panels along α", "--measure saliency_maps"),
    )
}


METHODS = {
    "pilcro": "pilcro",
    "loco": "loco_reg",
    "topgap": "top_gap",
    "deform": "deformation",
    "gradreg": "gradient_reg",
}
"""The method of each paper, as in the trials table."""
