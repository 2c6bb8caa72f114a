"""Operators on matrices, their inputs and attributes; recorded with MXNet 1.9.1.

MXNet has no gradient of khatri_rao.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_RANDOM = np.random.RandomState(11)


def _any(*shape: int) -> np.ndarray[Any, Any]:
    return _RANDOM.uniform(-1, 1, shape)


def _positive(*shape: int) -> np.ndarray[Any, Any]:
    """Symmetric and positive definite."""
    a = _any(*shape)
    return a @ np.swapaxes(a, -1, -2) + 2 * np.eye(shape[-1])


def _lower(*shape: int) -> np.ndarray[Any, Any]:
    """With a diagonal that can be inverted; the rest is not to be read."""
    return _any(*shape) + 2 * np.eye(shape[-1])


CASES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "gemm": ("linalg_gemm", [_any(2, 3, 4), _any(2, 4, 5), _any(2, 3, 5)], {}),
    "gemm_transposed": (
        "linalg_gemm",
        [_any(4, 3), _any(5, 4), _any(3, 5)],
        {"transpose_a": True, "transpose_b": True, "alpha": 2.0, "beta": 0.5},
    ),
    "gemm2": ("linalg_gemm2", [_any(3, 4), _any(4, 5)], {"alpha": -1.5}),
    "gemm2_axis": ("linalg_gemm2", [_any(3, 2, 4), _any(4, 2, 5)], {"axis": 0}),
    "syrk": ("linalg_syrk", [_any(2, 3, 4)], {}),
    "syrk_transposed": (
        "linalg_syrk",
        [_any(3, 4)],
        {"transpose": True, "alpha": 2.0},
    ),
    **{
        f"{name}_{transpose:d}{rightside:d}{lower:d}": (
            f"linalg_{name}",
            [_lower(2, 3, 3), _any(2, 3, 3)],
            {
                "transpose": transpose,
                "rightside": rightside,
                "lower": lower,
                "alpha": 1.5,
            },
        )
        for name in ("trmm", "trsm")
        for transpose in (False, True)
        for rightside in (False, True)
        for lower in (False, True)
    },
    "potrf": ("linalg_potrf", [_positive(2, 4, 4)], {}),
    "potri": ("linalg_potri", [np.tril(_lower(2, 4, 4))], {}),
    "inverse": ("linalg_inverse", [_lower(2, 3, 3)], {}),
    "det": ("linalg_det", [_lower(2, 3, 3)], {}),
    "det_of_one": ("linalg_det", [_lower(3, 3)], {}),
    "slogdet": ("linalg_slogdet", [-_lower(2, 3, 3)], {}),
    "sumlogdiag": ("linalg_sumlogdiag", [_lower(2, 3, 3)], {}),
    "sumlogdiag_of_one": ("linalg_sumlogdiag", [_lower(3, 3)], {}),
    **{
        f"extractdiag_{k}": ("linalg_extractdiag", [_any(2, 4, 4)], {"offset": k})
        for k in (-2, 0, 1)
    },
    **{
        f"makediag_{k}": ("linalg_makediag", [_any(2, 3)], {"offset": k})
        for k in (-2, 0, 1)
    },
    **{
        f"{name}_{k}{lower:d}": (
            f"linalg_{name}",
            [_any(2, 4, 4) if name == "extracttrian" else _any(2, 6)],
            {"offset": k, "lower": lower},
        )
        for name in ("extracttrian", "maketrian")
        for k in (-1, 0, 1)
        for lower in (False, True)
    },
    "moments": ("moments", [_any(2, 3, 4)], {"axes": (0, 2)}),
    "moments_kept": ("moments", [_any(2, 3, 4)], {"axes": (1,), "keepdims": True}),
    "cumsum": ("cumsum", [_any(2, 3)], {}),
    "cumsum_axis": ("cumsum", [_any(2, 3, 4)], {"axis": 1}),
    "split_at": (
        "_split_v2",
        [_any(2, 6)],
        {"indices": (0, 1, 4), "axis": 1},
    ),
    "split_in_parts": (
        "_split_v2",
        [_any(3, 2)],
        {"indices": (), "axis": 0, "sections": 3, "squeeze_axis": True},
    ),
    "gelqf": ("linalg_gelqf", [_any(2, 3, 4)], {}),
    "gelqf_of_square": ("linalg_gelqf", [_any(3, 3)], {}),
    "syevd": ("linalg_syevd", [_positive(2, 4, 4)], {}),
    "khatri_rao": ("khatri_rao", [_any(2, 3), _any(4, 3), _any(3, 3)], {"num_args": 3}),
    "attention": (
        "_contrib_interleaved_matmul_selfatt_qk",
        [_any(3, 2, 24)],
        {"heads": 2},
    ),
    "attended": (
        "_contrib_interleaved_matmul_selfatt_valatt",
        [_any(3, 2, 24), _any(4, 3, 3)],
        {"heads": 2},
    ),
    "attention_to_others": (
        "_contrib_interleaved_matmul_encdec_qk",
        [_any(5, 2, 8), _any(3, 2, 16)],
        {"heads": 2},
    ),
    "attended_others": (
        "_contrib_interleaved_matmul_encdec_valatt",
        [_any(3, 2, 16), _any(4, 5, 3)],
        {"heads": 2},
    ),
}
