"""Compiles the front-end's loops; pyproject.toml configures everything else."""

from setuptools import Extension, setup

# Floats in a vector, and the compiler's flags, for each kind of processor.
KINDS = {"avx512": (16, ["-mavx512f"]), "avx2": (8, ["-mavx2", "-mfma"])}

setup(
    ext_modules=[
        Extension(
            f"ms_sincresnet.nnet.backends._simd_{kind}",
            ["ms_sincresnet/nnet/backends/simd.c"],
            define_macros=[("LANES", str(lanes))],
            extra_compile_args=["-O3", "-Wno-psabi", *flags],
            optional=True,  # without a compiler, the package uses PyTorch's FFT
        )
        for kind, (lanes, flags) in KINDS.items()
    ]
)
