"""A folder for checkpoints, and no waiting for the disk."""

import os

import pytest


@pytest.fixture
def folder(tmp_path):
    """Where checkpoints go; not made yet."""
    return tmp_path / "checkpoints"


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Some thousand files are written here; test_files.py and the fault tests do wait."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
