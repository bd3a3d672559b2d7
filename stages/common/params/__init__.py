"""Typed parameters: `params.yaml` in, checked models out."""

from stages.common.params.loading import check_params, load_params
from stages.common.params.model import (
    AugmentParams,
    CleanParams,
    EvaluateParams,
    FinetuneParams,
    Params,
    RegisterParams,
    TokenizeParams,
    TrackingParams,
)
from stages.common.params.sources import BaseModelSource, Columns, IngestParams, Source

__all__ = [
    "AugmentParams",
    "BaseModelSource",
    "CleanParams",
    "Columns",
    "EvaluateParams",
    "FinetuneParams",
    "IngestParams",
    "Params",
    "RegisterParams",
    "Source",
    "TokenizeParams",
    "TrackingParams",
    "check_params",
    "load_params",
]
