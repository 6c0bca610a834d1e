"""Builds the compiled loops; all else of the package stands in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "ms_sincresnet.nnet._simd_blocks",
            ["ms_sincresnet/nnet/simd_blocks.c"],
            extra_compile_args=["-O3", "-Wno-psabi"],
            optional=True,  # without a compiler, PyTorch's own operators do
        )
    ]
)
