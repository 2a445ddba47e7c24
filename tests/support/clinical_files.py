"""DICOM radiographs of one study, with the tags that a clinical file has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

STUDY = generate_uid()


def radiograph(path: Path, **tags: object) -> Path:
    """Write a DICOM radiograph; a tag given as None is left out."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 100"
    values = {
        **{"SOPClassUID": ComputedRadiographyImageStorage, "SOPInstanceUID": generate_uid(), "Modality": "CR"},
        **{"StudyInstanceUID": STUDY, "SeriesInstanceUID": generate_uid(), "StudyDate": "20250102", "StudyTime": "030405"},
        **{"PatientName": "Müller^Zoë", "PatientID": "P-1", "IssuerOfPatientID": "HOSP", "PatientBirthDate": "19500607"},
        **{"PatientSex": "F", "AccessionNumber": "A-9", "ViewPosition": "PA", "PatientComments": "secret"},
        **{"Rows": 4, "Columns": 4, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0},
        **{"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "PixelData": np.zeros(16, np.uint8).tobytes()},
    } | tags
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID") or generate_uid()
    dataset.save_as(path, enforce_file_format=True)
    return path
