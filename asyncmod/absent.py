"""Parts of MXNet that are not here, and what there is instead."""

from __future__ import annotations

_ARRAYS = "arrays are NumPy's own: import numpy"
_KERNELS = "operators are registered in runtime.ops, with a NumPy definition each"
_IMAGES = "images and record files are not read yet: make an iterator of arrays"

ABSENT = {
    "gluon": "build nets from mx.symbol and train them with mx.Module",
    "autograd": "gradients come from mx.Module or mx.bind",
    "np": _ARRAYS,
    "npx": _ARRAYS,
    "numpy": _ARRAYS,
    "numpy_extension": _ARRAYS,
    "contrib": "INT8 and other contributed parts are left out",
    "quantize": "INT8 is left out",
    "library": f"custom C++ operators are left out; {_KERNELS}",
    "rtc": "kernels compiled at run time are left out",
    "FeedForward": "MXNet gave it up for mx.Module, which does all that it did",
    **dict.fromkeys(
        ("PythonOp", "NumpyOp", "NDArrayOp"),
        "MXNet gave it up for mx.operator.CustomOp",
    ),
    "test_utils": "NumPy has numpy.testing, and asyncmod.testing checks iterators",
    "image": _IMAGES,
    "img": _IMAGES,
    "recordio": _IMAGES,
    "ImageRecordIter": _IMAGES,
    "ImageDetRecordIter": _IMAGES,
    "profiler": "the `timing` of the History that `fit` returns tells where time goes",
    "engine": "there is no lazy engine: what is awaited is done",
}


def refuse(asked: str, name: str) -> AttributeError:
    """The error for a part that is not here.

    Args:
        asked: What the program wrote.
        name: The part's name in ABSENT.
    """
    return AttributeError(f"asyncmod has no `{asked}`: {ABSENT[name]}")
