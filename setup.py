"""Compiles the front-end's loops; all else of the package stands in pyproject.toml."""

from setuptools import Extension, setup

# For each kind of processor: floats of its vectors, and what the compiler calls it.
KINDS = {"avx512": (16, ["-mavx512f"]), "avx2": (8, ["-mavx2", "-mfma"])}

setup(
    ext_modules=[
        Extension(
            f"ms_sincresnet.nnet.backends._simd_{kind}",
            ["ms_sincresnet/nnet/backends/simd.c"],
            define_macros=[("LANES", str(lanes))],
            extra_compile_args=["-O3", "-Wno-psabi", *flags],
            optional=True,  # without a compiler, PyTorch's own operators do
        )
        for kind, (lanes, flags) in KINDS.items()
    ]
)
