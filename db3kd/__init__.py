"""Distil a student network from a teacher that answers with a class and nothing else.

    teacher = db3kd.FunctionTeacher(model.predict, (1, 28, 28), classes=10, flatten=True)
    labels = db3kd.label(teacher, db3kd.load_data("mnist5k"), db3kd.LabelSettings(measure="bd"))

Names are imported when they are first used, so that `import db3kd` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from db3kd.version import __version__ as __version__

if TYPE_CHECKING:
    from db3kd.boundary import SignOptSettings
    from db3kd.data import ImageSet, PseudoSamples, load_data, load_pseudo_samples
    from db3kd.errors import ArgumentError, ArgumentTypeError, Db3kdError, DivergedError, InputError
    from db3kd.export import export_model
    from db3kd.labelling import (
        AutoSurrogate,
        Labels,
        LabelSettings,
        Recovered,
        label,
        label_chunks,
        load_labels,
        with_soft_labels,
    )
    from db3kd.models import build_model, save_model
    from db3kd.ops import build_config, soft_labels
    from db3kd.pipelines import (
        Comparison,
        DistillResult,
        DistillSettings,
        compare,
        distill,
    )
    from db3kd.planning import BudgetPlan, plan_budget
    from db3kd.scale import ScaleChoice, choose_scale
    from db3kd.surrogates import SurrogateSettings, TrainedSurrogate, make_surrogate
    from db3kd.synthesis import (
        AcquisitionSettings,
        Moves,
        SynthesisSettings,
        make_starts,
        synthesize,
    )
    from db3kd.tables import Feature, Features
    from db3kd.teachers import (
        FunctionTeacher,
        ModuleTeacher,
        RescaledTeacher,
        SingleClassError,
        TabularTeacher,
        Teacher,
        TeacherChangedError,
        TeacherError,
        UnknownClassError,
        load_teacher,
    )
    from db3kd.training import (
        Checkpoint,
        EarlyStopping,
        HeldOutAgreement,
        KDLoss,
        LabelledImages,
        TrackerCallback,
        TrainingCallback,
        TrainSettings,
        agreement,
        evaluate,
        predict,
        train_batches,
        train_classifier,
        train_student,
    )

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

__all__ = [
    "AcquisitionSettings",
    "ArgumentError",
    "ArgumentTypeError",
    "AutoSurrogate",
    "BudgetPlan",
    "Checkpoint",
    "Comparison",
    "Db3kdError",
    "DistillResult",
    "DistillSettings",
    "DivergedError",
    "EarlyStopping",
    "Feature",
    "Features",
    "FunctionTeacher",
    "HeldOutAgreement",
    "ImageSet",
    "InputError",
    "KDLoss",
    "LabelSettings",
    "LabelledImages",
    "Labels",
    "ModuleTeacher",
    "Moves",
    "PseudoSamples",
    "Recovered",
    "RescaledTeacher",
    "ScaleChoice",
    "SignOptSettings",
    "SingleClassError",
    "SurrogateSettings",
    "SynthesisSettings",
    "TabularTeacher",
    "Teacher",
    "TeacherChangedError",
    "TeacherError",
    "TrackerCallback",
    "TrainSettings",
    "TrainedSurrogate",
    "TrainingCallback",
    "UnknownClassError",
    "agreement",
    "build_config",
    "build_model",
    "choose_scale",
    "compare",
    "distill",
    "evaluate",
    "export_model",
    "label",
    "label_chunks",
    "load_data",
    "load_labels",
    "load_pseudo_samples",
    "load_teacher",
    "make_starts",
    "make_surrogate",
    "plan_budget",
    "predict",
    "save_model",
    "soft_labels",
    "synthesize",
    "train_batches",
    "train_classifier",
    "train_student",
    "with_soft_labels",
]


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
    return sorted({*globals(), *__all__})
