"""Typed parameters: `params.yaml` in, checked models out."""

from stages.common.params.augment import AugmentParams
from stages.common.params.clean import CleanParams
from stages.common.params.evaluate import EvaluateParams
from stages.common.params.export import ExportParams
from stages.common.params.finetune import FinetuneParams
from stages.common.params.loading import check_params, load_params
from stages.common.params.model import Params, TokenizeParams, TrackingParams
from stages.common.params.register import RegisterParams
from stages.common.params.sources import BaseModelSource, Columns, FolderSource, IngestParams, Source, TextSource
from stages.common.params.tune import TuneParams

__all__ = [
    "AugmentParams",
    "BaseModelSource",
    "CleanParams",
    "Columns",
    "EvaluateParams",
    "ExportParams",
    "FinetuneParams",
    "FolderSource",
    "IngestParams",
    "Params",
    "RegisterParams",
    "Source",
    "TextSource",
    "TokenizeParams",
    "TrackingParams",
    "TuneParams",
    "check_params",
    "load_params",
]
