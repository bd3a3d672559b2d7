"""Typed parameters: `params.yaml` in, checked models out."""

from stages.common.params.augment import AugmentParams as AugmentParams
from stages.common.params.clean import CleanParams as CleanParams
from stages.common.params.evaluate import EvaluateParams as EvaluateParams
from stages.common.params.finetune import FinetuneParams as FinetuneParams
from stages.common.params.ingest import BaseModelSource as BaseModelSource
from stages.common.params.ingest import FolderSource as FolderSource
from stages.common.params.ingest import IngestParams as IngestParams
from stages.common.params.params_file import PARAMS_FILE as PARAMS_FILE
from stages.common.params.params_file import check_params as check_params
from stages.common.params.params_file import load_params as load_params
from stages.common.params.params_file import read_yaml as read_yaml
from stages.common.params.register import RegisterParams as RegisterParams
from stages.common.params.root import ExportParams as ExportParams
from stages.common.params.root import Params as Params
from stages.common.params.root import ReviewParams as ReviewParams
from stages.common.params.root import TokenizeParams as TokenizeParams
from stages.common.params.sources import Source as Source
from stages.common.params.sources import TextSource as TextSource
