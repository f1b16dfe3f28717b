"""Distil a student network from a teacher that answers with a class and nothing else.

    teacher = db3kd.FunctionTeacher(model.predict, (1, 28, 28), classes=10, flatten=True)
    labels = db3kd.label(teacher, db3kd.load_data("mnist5k"), db3kd.LabelSettings(measure="bd"))

Names are imported when they are first used, so that `import db3kd` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from db3kd.version import __version__ as __version__

if TYPE_CHECKING:
    # Each name is imported as itself, so that type checkers count it as exported.
    from db3kd.boundary import SignOptSettings as SignOptSettings
    from db3kd.data import ImageSet as ImageSet
    from db3kd.data import PseudoSamples as PseudoSamples
    from db3kd.data import load_data as load_data
    from db3kd.data import load_pseudo_samples as load_pseudo_samples
    from db3kd.errors import ArgumentError as ArgumentError
    from db3kd.errors import ArgumentTypeError as ArgumentTypeError
    from db3kd.errors import Db3kdError as Db3kdError
    from db3kd.errors import DivergedError as DivergedError
    from db3kd.errors import InputError as InputError
    from db3kd.export import export_model as export_model
    from db3kd.labelling import AutoSurrogate as AutoSurrogate
    from db3kd.labelling import Labels as Labels
    from db3kd.labelling import LabelSettings as LabelSettings
    from db3kd.labelling import Recovered as Recovered
    from db3kd.labelling import label as label
    from db3kd.labelling import label_chunks as label_chunks
    from db3kd.labelling import load_labels as load_labels
    from db3kd.labelling import with_soft_labels as with_soft_labels
    from db3kd.models import build_model as build_model
    from db3kd.models import save_model as save_model
    from db3kd.ops import build_config as build_config
    from db3kd.ops import soft_labels as soft_labels
    from db3kd.pipelines import Comparison as Comparison
    from db3kd.pipelines import DistillResult as DistillResult
    from db3kd.pipelines import DistillSettings as DistillSettings
    from db3kd.pipelines import compare as compare
    from db3kd.pipelines import distill as distill
    from db3kd.planning import BudgetPlan as BudgetPlan
    from db3kd.planning import plan_budget as plan_budget
    from db3kd.scale import ScaleChoice as ScaleChoice
    from db3kd.scale import choose_scale as choose_scale
    from db3kd.surrogates import SurrogateSettings as SurrogateSettings
    from db3kd.surrogates import TrainedSurrogate as TrainedSurrogate
    from db3kd.surrogates import make_surrogate as make_surrogate
    from db3kd.synthesis import AcquisitionSettings as AcquisitionSettings
    from db3kd.synthesis import Moves as Moves
    from db3kd.synthesis import SynthesisSettings as SynthesisSettings
    from db3kd.synthesis import make_starts as make_starts
    from db3kd.synthesis import synthesize as synthesize
    from db3kd.tables import Feature as Feature
    from db3kd.tables import Features as Features
    from db3kd.teachers import FunctionTeacher as FunctionTeacher
    from db3kd.teachers import ModuleTeacher as ModuleTeacher
    from db3kd.teachers import RescaledTeacher as RescaledTeacher
    from db3kd.teachers import SingleClassError as SingleClassError
    from db3kd.teachers import TabularTeacher as TabularTeacher
    from db3kd.teachers import Teacher as Teacher
    from db3kd.teachers import TeacherChangedError as TeacherChangedError
    from db3kd.teachers import TeacherError as TeacherError
    from db3kd.teachers import UnknownClassError as UnknownClassError
    from db3kd.teachers import load_teacher as load_teacher
    from db3kd.training import Checkpoint as Checkpoint
    from db3kd.training import EarlyStopping as EarlyStopping
    from db3kd.training import HeldOutAgreement as HeldOutAgreement
    from db3kd.training import KDLoss as KDLoss
    from db3kd.training import LabelledImages as LabelledImages
    from db3kd.training import TrackerCallback as TrackerCallback
    from db3kd.training import TrainingCallback as TrainingCallback
    from db3kd.training import TrainSettings as TrainSettings
    from db3kd.training import agreement as agreement
    from db3kd.training import evaluate as evaluate
    from db3kd.training import predict as predict
    from db3kd.training import train_batches as train_batches
    from db3kd.training import train_classifier as train_classifier
    from db3kd.training import train_student as train_student

_HOME = {
    "boundary": "SignOptSettings",
    "data": "ImageSet PseudoSamples load_data load_pseudo_samples",
    "errors": "ArgumentError ArgumentTypeError Db3kdError DivergedError InputError",
    "export": "export_model",
    "labelling": (
        "AutoSurrogate LabelSettings Labels Recovered label label_chunks load_labels "
        "with_soft_labels"
    ),
    "models": "build_model save_model",
    "ops": "build_config soft_labels",
    "pipelines": "Comparison DistillResult DistillSettings compare distill",
    "planning": "BudgetPlan plan_budget",
    "scale": "ScaleChoice choose_scale",
    "synthesis": ("AcquisitionSettings Moves SynthesisSettings make_starts synthesize"),
    "surrogates": "SurrogateSettings TrainedSurrogate make_surrogate",
    "tables": "Feature Features",
    "teachers": (
        "FunctionTeacher ModuleTeacher RescaledTeacher SingleClassError TabularTeacher Teacher "
        "TeacherChangedError TeacherError UnknownClassError load_teacher"
    ),
    "training": (
        "Checkpoint EarlyStopping HeldOutAgreement KDLoss LabelledImages TrackerCallback "
        "TrainSettings TrainingCallback agreement evaluate predict train_batches train_classifier "
        "train_student"
    ),
}
"""The public names of each stage."""

_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}

if not TYPE_CHECKING:  # type checkers understand a list of literals only, and read the imports
    __all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_MODULE_OF[name]}")
    except ImportError as error:
        if error.name != f"{__name__}._C":
            raise
        # The message says what to do; the chain of imports that led to the extension would hide it.
        raise error.with_traceback(None) from None
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
