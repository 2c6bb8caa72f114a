"""Files that MXNet 1.9.1 wrote, read and written again."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

import asyncmod.symbol as sym
from runtime.errors import OperatorError
from runtime.graph import registry

GOLDEN = Path(__file__).parents[2] / "golden"
FILES = {
    str(path.relative_to(GOLDEN)): path
    for path in sorted(GOLDEN.rglob("*.json"))
    if "node_row_ptr" in json.loads(path.read_text())
}
# Registered operators must not get lost again.
COVERED = [
    "nets/autoencoder-symbol.json",
    "nets/cifar_resnet20-symbol.json",
    "nets/inception_like-symbol.json",
    "nets/lenet-symbol.json",
    "nets/mlp-symbol.json",
    "nets/mlp_bn-symbol.json",
    "nets/mobilenet_like-symbol.json",
    "nets/resnet18_v1-symbol.json",
    "nets/vgg_like-symbol.json",
]


def unknown_operators(text: str) -> set[str]:
    used = {node["op"] for node in json.loads(text)["nodes"]}
    return used - {"null", *registry.names()}


@pytest.mark.parametrize("path", FILES.values(), ids=FILES.keys())
def test_file_round_trips_to_the_byte(path: Path) -> None:
    text = path.read_text()
    unknown = unknown_operators(text)
    if unknown:
        with pytest.raises(OperatorError) as caught:
            sym.load(path)
        assert all(f"`{name}`" in str(caught.value) for name in unknown)
    else:
        assert sym.load(path).tojson() == text


@pytest.mark.parametrize("name", COVERED)
def test_net_is_covered(name: str) -> None:
    assert not unknown_operators(FILES[name].read_text())


def test_net_built_here_is_written_as_mxnet_wrote_it() -> None:
    with sym.NameManager():
        net = sym.Variable("data")
        for index, filters in ((1, 6), (2, 12)):
            net = sym.Convolution(
                net, kernel=(5, 5), num_filter=filters, name=f"conv{index}"
            )
            net = sym.Activation(net, act_type="tanh")
            net = sym.Pooling(net, kernel=(2, 2), stride=(2, 2), pool_type="max")
        net = sym.Flatten(net)
        net = sym.FullyConnected(net, num_hidden=32, name="fc1")
        net = sym.Activation(net, act_type="tanh")
        net = sym.FullyConnected(net, num_hidden=10, name="fc2")
        net = sym.SoftmaxOutput(net, name="softmax")
    assert net.tojson() == FILES["nets/lenet-symbol.json"].read_text()


def test_save_and_load(tmp_path: Path) -> None:
    text = FILES["nets/mlp-symbol.json"].read_text()
    net = sym.load_json(text)
    net.save(tmp_path / "net-symbol.json")
    assert (tmp_path / "net-symbol.json").read_bytes() == text.encode()
    assert sym.load(str(tmp_path / "net-symbol.json")).tojson() == text


def test_lists_of_more_than_ten_numbers_are_broken_into_lines() -> None:
    ten = sym.Group([sym.Variable(f"x{index}") for index in range(10)])
    eleven = sym.Group([*ten, sym.Variable("x10")])
    assert '"arg_nodes": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], ' in ten.tojson()
    assert '"arg_nodes": [\n    0, \n    1, ' in eleven.tojson()


def test_casts_of_mixed_precision_are_left_out() -> None:
    x = sym.Variable("x")
    cast = sym.amp_cast(sym.log(x, name="l"), dtype="float16")
    first, second = sym.amp_multicast(cast, x, num_outputs=2)
    net = sym.elemwise_mul(first, second, name="e")
    plain = sym.elemwise_mul(sym.log(x, name="l"), x, name="e")
    assert net.tojson() == plain.tojson()
    text = net.tojson(remove_amp_cast=False)
    assert all(f'"op": "{op}"' in text for op in ("amp_cast", "amp_multicast"))
    for same in (sym.load_json(text), pickle.loads(pickle.dumps(net))):
        assert same.tojson(remove_amp_cast=False) == text


def test_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    text = FILES["nets/mlp-symbol.json"].read_text()
    path = tmp_path / "marked.json"
    path.write_text(text, "utf-8-sig")
    assert sym.load(path).tojson() == text


def test_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sym.load(tmp_path / "none.json")


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(b"{")
    with pytest.raises(ValueError, match=r"broken\.json: .*no JSON"):
        sym.load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"broken\.json: not a symbol"):
        sym.load(path)
