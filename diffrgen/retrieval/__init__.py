"""Retrieval: reports similar to an image, found by a dual encoder and a FAISS index of the training reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffrgen.lazy import on_first_use

if TYPE_CHECKING:
    from diffrgen.retrieval.build import build_dual_encoder, build_index, fit_retriever
    from diffrgen.retrieval.clip_retriever import ClipRetriever
    from diffrgen.retrieval.dual_encoder import DualEncoder, DualEncoderConfig
    from diffrgen.retrieval.dual_retriever import DualRetriever
    from diffrgen.retrieval.fit import FitReport, fit_dual_encoder
    from diffrgen.retrieval.index import Neighbours, RetrievalIndex, TokenBlock
    from diffrgen.retrieval.index_writer import TokenStore, write_index
    from diffrgen.retrieval.loading import load_retriever
    from diffrgen.retrieval.neighbours import embed_images, neighbours_of_studies
    from diffrgen.retrieval.options import RetrieverOptions
    from diffrgen.retrieval.pairs import PairCollator, StudyPairs
    from diffrgen.retrieval.priors import Priors, priors_of_studies
    from diffrgen.retrieval.process_group import ProcessGroup
    from diffrgen.retrieval.retriever import Retriever, TokenFeatures
    from diffrgen.retrieval.studies import IndexedStudies

__all__ = [
    "ClipRetriever",
    "DualEncoder",
    "DualEncoderConfig",
    "DualRetriever",
    "FitReport",
    "IndexedStudies",
    "Neighbours",
    "PairCollator",
    "Priors",
    "ProcessGroup",
    "RetrievalIndex",
    "Retriever",
    "RetrieverOptions",
    "StudyPairs",
    "TokenBlock",
    "TokenFeatures",
    "TokenStore",
    "build_dual_encoder",
    "build_index",
    "embed_images",
    "fit_dual_encoder",
    "fit_retriever",
    "load_retriever",
    "neighbours_of_studies",
    "priors_of_studies",
    "write_index",
]

__getattr__ = on_first_use(__name__, __file__)
