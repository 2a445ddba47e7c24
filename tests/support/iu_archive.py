"""A miniature IU X-Ray in each of its forms: Open-i's XML and images, Kaggle's tables, R2Gen's annotation."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

# number, findings, impression, images (Open-i's names)
Study = tuple[int, str, str, tuple[str, ...]]
XML = """\
<?xml version="1.0" encoding="utf-8"?>
<eCitation>
   <uId id="CXR{number}"/>
   <MedlineCitation><Article><Abstract>
      <AbstractText Label="INDICATION">Cough</AbstractText>
      <AbstractText Label="FINDINGS">{findings}</AbstractText>
      <AbstractText Label="IMPRESSION">{impression}</AbstractText>
   </Abstract></Article></MedlineCitation>
   {images}
</eCitation>
"""
STUDIES: tuple[Study, ...] = (
    (1, "Heart size\n   is normal &amp; lungs are clear.", "Normal.", ("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001")),
    (2, "", "No disease.", ("CXR2_IM-0652-1001", "CXR2_IM-0652-2001")),
    (3, "Effusion.", "", ("CXR3_IM-1384-1001",)),
    (4, "Clear.", "Normal.", ("CXR4_IM-2050-3001", "CXR4_IM-2050-1001", "CXR4_IM-2050-2001")),
    (5, "Opacity.", "Pneumonia.", ()),
)
PROJECTIONS = """\
uid,filename,projection
1,1_IM-0001-3001.dcm.png,Lateral
1,1_IM-0001-4001.dcm.png,Frontal
2,2_IM-0652-1001.dcm.png,Frontal
2,2_IM-0652-2001.dcm.png,Lateral
3,3_IM-1384-1001.dcm.png,Frontal
4,4_IM-2050-1001.dcm.png,Lateral
4,4_IM-2050-2001.dcm.png,Frontal
"""
REPORTS = """\
uid,MeSH,Problems,image,indication,comparison,findings,impression
1,normal,normal,Xray Chest,Cough,None.,"Heart size
   is normal & lungs are clear.",Normal.
2,normal,normal,Xray Chest,Cough,None.,,No disease.
3,normal,normal,Xray Chest,Cough,None.,Effusion.,
4,normal,normal,Xray Chest,Cough,None.,Clear.,Normal.
"""


def xml_of(number: int, findings: str, impression: str, images: tuple[str, ...]) -> str:
    shown = "".join(f'<parentImage id="{image}"><caption>PA</caption></parentImage>' for image in images)
    return XML.format(number=number, findings=findings, impression=impression, images=shown)


def grey_square(name: str) -> Image.Image:
    return Image.new("L", (8, 8), 128)


def write_openi(
    root: Path,
    *,
    studies: tuple[Study, ...] = STUDIES,
    picture: Callable[[str], Image.Image] = grey_square,
    packed: bool = True,
) -> Path:
    """Write the reports of `studies`, packed or not, and their images."""
    root.mkdir(parents=True)
    texts = {f"ecgen-radiology/{study[0]}.xml": xml_of(*study).encode() for study in studies}
    if packed:
        with tarfile.open(root / "NLMCXR_reports.tgz", "w:gz") as archive:
            for name, data in texts.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    else:
        (root / "ecgen-radiology").mkdir()
        for name, data in texts.items():
            (root / name).write_bytes(data)
    (root / "NLMCXR_png").mkdir()
    for *_, images in studies:
        for name in images:
            picture(name).save(root / "NLMCXR_png" / f"{name}.png")
    return root


def write_kaggle(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "indiana_reports.csv").write_text(REPORTS, encoding="utf-8")
    (root / "indiana_projections.csv").write_text(PROJECTIONS, encoding="utf-8")
    return root


def write_r2gen(root: Path) -> Path:
    """Write an annotation of R2Gen's form with studies 4 (train) and 1 (test), and study 9, which has no report."""
    root.mkdir(parents=True, exist_ok=True)

    def record(name: str, split: str) -> dict:
        return {
            "id": name,
            "report": f"Report of {name}.",
            "image_path": [f"{name}/0.png", f"{name}/1.png"],
            "split": split,
        }

    content = {
        "train": [record("CXR4_IM-2050", "train")],
        "val": [record("CXR9_IM-2407", "val")],
        "test": [record("CXR1_1_IM-0001", "test")],
    }
    (root / "annotation.json").write_text(json.dumps(content), encoding="utf-8")
    return root
