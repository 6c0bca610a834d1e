"""Installs ms_sincresnet; all that is said of the package stands in pyproject.toml."""

from setuptools import setup

setup()
