"""How long the texts in files may be, when they are written and when they are read."""

import tracemalloc

import pytest

import fastbp
from fastbp import _sealed

pytest.importorskip("safetensors", reason="needs the extra train")


def test_notes_that_are_too_long_are_refused_when_saving(tmp_path):
    path = tmp_path / "model.safetensors"
    net = fastbp.TwoLayerNet(3, 2, 2, seed=0)
    fastbp.save_network(path, net, {"about": "x" * 2**19})
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"characters, more than the 1048576 .* long notes"):
        fastbp.save_network(path, net, {"about": "x" * 2**20})
    assert path.read_bytes() == before
    assert fastbp.load_network(path)[1] == {"about": "x" * 2**19}


@pytest.mark.parametrize("size", [2**20, 2**23], ids=["a long text", "a long header"])
def test_a_header_too_long_is_refused_in_little_memory(size, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    text = "[" + "{}," * (size // 3) + "{}]"
    with monkeypatch.context() as patch:
        patch.setattr("fastbp._sealed.MAX_TEXT", 2**30)
        patch.setattr("fastbp._sealed.MAX_HEADER", 2**30)
        about = {"format": "fastbp network, version 1", "network": text}
        path.write_bytes(_sealed.seal({}, about))
    tracemalloc.start()
    try:
        with pytest.raises(fastbp.ModelError, match="its header has") as caught:
            fastbp.load_network(path)
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)


def test_a_network_of_a_thousand_layers_fits(tmp_path):
    path = tmp_path / "model.safetensors"
    net = fastbp.MultiLayerNet(2, [2] * 999, 2, seed=0)
    fastbp.save_network(path, net)
    assert fastbp.load_network(path)[0].sizes == net.sizes
