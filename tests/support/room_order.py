"""Which rooms of the package a room may import."""

from __future__ import annotations

ALLOWED = {
    "errors": set(),
    "lazy": set(),
    "labels": {"errors"},
    "records": {"errors"},
    "images": {"errors", "records"},
    "text": {"errors"},
    "phantom": {"errors", "labels", "command"},
    "metrics": {"errors", "labels"},
    "preparation": {"errors", "labels", "records"},
    "fitting": set(),
    "staging": set(),
    "workers": set(),
    "fingerprint": set(),
    "finite": set(),
    "lock": set(),
    "weights": {"errors", "finite"},
    "ranges": {"errors"},
    "release": set(),
    "retrieval": {"errors", "fitting", "staging", "records", "images", "text"},
    "model": {"errors", "labels", "records", "images", "diffrgen_kernels"},
    "pipeline": {"errors", "fitting", "staging", "labels", "records", "images", "text", "phantom", "retrieval", "model"},
    "reporting": {
        *("errors", "labels", "records", "images", "text", "retrieval", "model", "pipeline"),
    },
    "evaluation": {
        *("errors", "labels", "records", "images", "text", "phantom", "metrics", "retrieval", "model"),
        *("pipeline", "reporting", "staging"),
    },
    "explanation": {
        *("labels", "records", "images", "text", "model", "pipeline", "reporting", "diffrgen_kernels"),
    },
    "page": {"errors", "text", "reporting", "explanation"},
    "pretraining": {"errors", "fitting", "staging", "labels", "records", "images", "metrics"},
    "training": {
        *("errors", "labels", "records", "images", "text", "phantom", "retrieval", "model", "pipeline"),
        *("pretraining", "reporting", "evaluation", "fitting", "staging"),
    },
    "reinforcement": {
        *("errors", "staging", "labels", "records", "text", "metrics", "model", "pipeline", "reporting", "evaluation"),
        "training",
    },
    "sharing": {
        *("errors", "staging", "records", "retrieval", "pipeline", "reporting", "evaluation", "training", "reinforcement"),
    },
    "clinical": {"errors", "images", "text", "pipeline", "reporting", "evaluation", "command"},
    "serving": {
        *("errors", "records", "images", "text", "phantom", "pipeline", "reporting", "explanation", "page", "clinical"),
    },
    "mechanisms": {
        *("errors", "labels", "metrics", "records", "phantom", "model", "pipeline", "explanation", "command"),
    },
    "experiments": {
        *("errors", "staging", "labels", "records", "text", "phantom", "metrics", "retrieval", "pipeline", "reporting"),
        *("evaluation", "training", "command"),
    },
}
