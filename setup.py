"""Compiles the front-end's loops; pyproject.toml configures everything else."""

import platform
import sys

from setuptools import Extension, setup

# Floats in a vector, and the compiler's flags, for each kind of processor.
KINDS = {"portable": (4, [])}
if platform.machine() in ("x86_64", "AMD64"):
    KINDS |= {"avx512": (16, ["-mavx512f"]), "avx2": (8, ["-mavx2", "-mfma"])}
if sys.platform == "win32":
    KINDS = {}  # Microsoft's compiler has no vector types: PyTorch's FFT is used

setup(
    ext_modules=[
        Extension(
            f"ms_sincresnet.nnet.backends._simd_{kind}",
            ["ms_sincresnet/nnet/backends/simd.c"],
            define_macros=[("LANES", str(lanes))],
            extra_compile_args=["-O3", "-Wno-psabi", *flags],
            optional=True,  # without a compiler, the package uses PyTorch's FFT
            py_limited_api=True,  # ctypes loads them: any Python will do
        )
        for kind, (lanes, flags) in KINDS.items()
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
