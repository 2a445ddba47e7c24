"""The findings that equal classes of Open-i's human labels."""

from __future__ import annotations

# Open-i has no state for doubt: what is offered as a choice ("atelectasis or scarring") and a borderline heart size are
# indexed (52 of 68 such cells in the studies with even ids), what "may" be is not (4 of 118). Left out are its classes
# that no finding equals: Infiltration (a part of lung opacity), Pleural_Thickening (which holds bronchial and
# ventricular thickening too), Fibrosis, Emphysema and Hernia. Its Nodule leaves out nodular opacities, which CheXpert
# and we count as lung lesions.
GOLD_CLASSES = {
    "cardiomegaly": ("Cardiomegaly",),
    "lung lesion": ("Mass", "Nodule"),
    "edema": ("Edema",),
    "consolidation": ("Consolidation",),
    "pneumonia": ("Pneumonia",),
    "atelectasis": ("Atelectasis",),
    "pneumothorax": ("Pneumothorax",),
    "pleural effusion": ("Effusion",),
}
