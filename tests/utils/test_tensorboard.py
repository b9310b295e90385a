"""Event files: records with right checksums, and messages that say what was logged."""

from __future__ import annotations

import io
import struct
import wave
import zlib

import numpy as np
import pytest

import flambeau as torch
from flambeau.utils.tensorboard import SummaryWriter
from flambeau.utils.tensorboard.messages import message
from flambeau.utils.tensorboard.records import _checksum


def records(path):
    data = path.read_bytes()
    while data:
        length, = struct.unpack("<Q", data[:8])
        assert data[8:12] == _checksum(data[:8])
        assert data[12 + length:16 + length] == _checksum(data[12:12 + length])
        yield data[12:12 + length]
        data = data[16 + length:]


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if not data[at - 1] & 128:
            return value, at


def fields(data):
    """{number: values} of a message: numbers, or bytes."""
    found, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            size, at = varint(data, at)
            value, at = data[at:at + size], at + size
        else:
            size = {1: 8, 5: 4}[kind]
            value, = struct.unpack("<d" if kind == 1 else "<f", data[at:at + size])
            at += size
        found.setdefault(key >> 3, []).append(value)
    return found


def logged(folder):
    """(step, fields of the value) of each summary, in all files of a folder."""
    found = []
    for path in sorted(folder.glob("events*")):
        for record in records(path):
            event = fields(record)
            if 5 in event:
                step = event.get(2, [None])[0]
                found += [(step, fields(value)) for value in fields(event[5][0])[1]]
    return found


def tag_of(value):
    return value[1][0].decode()


def test_checksums():
    # the value of CRC-32C for these nine bytes is 0xE3069283
    crc = 0xE3069283
    assert _checksum(b"123456789") == struct.pack(
        "<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def test_numbers(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("loss", torch.tensor(1.5), 3, walltime=7.0)
        writer.add_scalar("count", np.float64(2), 1 << 40)
        writer.add_scalar("kept", torch.tensor([0.1], dtype=torch.float64), double_precision=True)
        writer.add_scalar("low", torch.tensor(0.5, dtype=torch.bfloat16), -1)
        with pytest.raises(ValueError, match="one number"):
            writer.add_scalar("many", torch.ones(2))
    path, = tmp_path.glob("events.out.tfevents.*")
    first, *others = map(fields, records(path))
    assert first[3] == [b"brain.Event:2"]
    assert others[0][1] == [7.0]
    values = logged(tmp_path)
    assert [(step, tag_of(v)) for step, v in values] == [
        (3, "loss"), (1 << 40, "count"), (None, "kept"), ((1 << 64) - 1, "low")]
    assert values[0][1][2] == [1.5]
    assert struct.unpack("<d", fields(values[2][1][8][0])[6][0]) == (0.1,)
    assert values[3][1][2] == [0.5]


def test_several_curves_have_their_own_folders(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalars("a/b", {"x": 1.0, "y": 2.0}, 1)
        writer.add_scalars("a/b", {"x": 3.0}, 2)
    assert [v[2] for _, v in logged(tmp_path / "a_b_x")] == [[1.0], [3.0]]
    assert [v[2] for _, v in logged(tmp_path / "a_b_y")] == [[2.0]]


def test_text_and_tensors(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_text("note", "**bold** ü")
        writer.add_tensor("t", torch.arange(6).reshape(2, 3))
    (_, note), (_, tensor) = logged(tmp_path)
    assert tag_of(note) == "note/text_summary"
    assert fields(note[8][0])[8] == ["**bold** ü".encode()]
    held = fields(tensor[8][0])
    assert held[1] == [9]
    assert np.frombuffer(held[4][0], np.int64).tolist() == list(range(6))


@pytest.mark.parametrize("bins", ["tensorflow", "auto", 20])
@pytest.mark.parametrize("max_bins", [None, 5])
def test_histograms_count_every_value(tmp_path, bins, max_bins):
    values = torch.randn(1000)
    with SummaryWriter(tmp_path) as writer:
        writer.add_histogram("h", values, 0, bins, max_bins=max_bins)
    (_, value), = logged(tmp_path)
    held = fields(value[5][0])
    assert held[1] == [float(values.min())]
    assert held[3] == [1000.0]
    limits, counts = (np.frombuffer(held[i][0], np.float64) for i in (6, 7))
    assert counts.sum() == 1000
    assert len(limits) == len(counts)
    assert (np.diff(limits) > 0).all()
    for limit, below in zip(limits, counts.cumsum(), strict=True):
        assert below == pytest.approx(int((values.double() <= limit).sum()), abs=1)


def test_histograms_of_what_has_none(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_histogram("zeros", torch.zeros(4))
        with pytest.raises(ValueError, match="no element"):
            writer.add_histogram("empty", torch.zeros(0))
        with pytest.raises(ValueError, match="not finite"):
            writer.add_histogram("nan", torch.tensor([1.0, float("nan")]))
        with pytest.raises(ValueError, match="limits"):
            writer.add_histogram_raw("raw", 0, 1, 1, 1, 1, [1.0], [1, 2])


def pixels_of(png):
    """Of a PNG without filters."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, data, size = 8, b"", None
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at:at + 8])
        content = png[at + 8:at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length:at + 12 + length])[0] == zlib.crc32(
            kind + content)
        if kind == b"IHDR":
            size = struct.unpack(">II", content[:8])
        elif kind == b"IDAT":
            data += content
        at += 12 + length
    lines = np.frombuffer(zlib.decompress(data), np.uint8).reshape(size[1], -1)
    return lines[:, 1:].reshape(size[1], size[0], -1)


def test_images(tmp_path):
    grey = torch.rand(4, 6)
    batch = torch.rand(10, 3, 4, 6)
    with SummaryWriter(tmp_path) as writer:
        writer.add_image("grey", grey, dataformats="HW")
        writer.add_image("bytes", (batch[0] * 255).to(torch.uint8))
        writer.add_images("batch", batch)
        writer.add_image_with_boxes("boxes", torch.zeros(3, 8, 8), torch.tensor([[1, 2, 5, 6.0]]))
        with pytest.raises(ValueError, match="dataformats"):
            writer.add_image("grey", grey)
        with pytest.raises(ValueError, match="channels"):
            writer.add_image("five", torch.rand(5, 4, 4))
    shown = [pixels_of(fields(v[4][0])[4][0]) for _, v in logged(tmp_path)]
    assert np.array_equal(shown[0], np.repeat((grey.numpy() * 255).astype(np.uint8)[..., None], 3,
                                              -1))
    assert np.array_equal(shown[1], (batch[0] * 255).to(torch.uint8).permute(1, 2, 0).numpy())
    assert shown[2].shape == (8, 48, 3)
    assert np.array_equal(shown[2][4:, :6],
                          (batch[8] * 255).to(torch.uint8).permute(1, 2, 0).numpy())
    assert shown[3][2, 1:6, 0].tolist() == [255] * 5
    assert shown[3][4, 3].tolist() == [0, 0, 0]


def test_sound(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_audio("a", torch.tensor([[0.0, 0.5, -1.0, 2.0]]), sample_rate=8000)
        with pytest.raises(ValueError, match="one channel"):
            writer.add_audio("a", torch.zeros(2, 4))
    (_, value), = logged(tmp_path)
    with wave.open(io.BytesIO(fields(value[6][0])[4][0])) as file:
        assert file.getframerate() == 8000
        assert np.frombuffer(file.readframes(9), "<i2").tolist() == [0, 16383, -32767, 32767]


def test_precision_and_recall(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_pr_curve("pr", torch.tensor([0, 1, 1, 0]), torch.tensor([0.1, 0.4, 0.9, 0.6]),
                            num_thresholds=3)
    (_, value), = logged(tmp_path)
    rows = np.frombuffer(fields(value[8][0])[4][0], np.float32).reshape(6, 3)
    assert rows[0].tolist() == [2, 1, 0]  # true positives for thresholds 0, 0.5, 1
    assert rows[1].tolist() == [2, 1, 0]
    assert rows[4].tolist() == [0.5, 0.5, 0]
    assert rows[5].tolist() == [1, 0.5, 0]


def test_hyperparameters_and_layouts(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_hparams({"lr": 0.1, "name": "x", "flag": True, "n": torch.tensor(3)},
                           {"accuracy": 0.5}, {"lr": [0.1, 0.2]}, run_name="run")
        writer.add_custom_scalars({"c": {"one": ["Multiline", ["a"]],
                                         "two": ["Margin", ["a", "b", "c"]]}})
        with pytest.raises(ValueError, match="hyperparameter"):
            writer.add_hparams({"lr": [1]}, {})
        with pytest.raises(TypeError, match="dictionary"):
            writer.add_hparams([], {})
        with pytest.raises(ValueError, match="three"):
            writer.add_custom_scalars_marginchart(["a"])
    values = logged(tmp_path / "run")
    assert [tag_of(v) for _, v in values] == [
        "_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info",
        "accuracy"]
    assert values[3][1][2] == [0.5]


def test_meshes_and_embeddings(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_mesh("m", torch.rand(1, 4, 3), faces=torch.tensor([[[0, 1, 2]]]))
        writer.add_embedding(torch.arange(6.0).reshape(3, 2), ["a", "b", "c"],
                             torch.rand(3, 3, 4, 4), 7, "name")
        with pytest.raises(ValueError, match="metadata"):
            writer.add_embedding(torch.ones(3, 2), ["a"])
    assert [tag_of(v) for _, v in logged(tmp_path)] == ["m_VERTEX", "m_FACE"]
    assert (tmp_path / "00007/name/tensors.tsv").read_text().splitlines()[1] == "2.0\t3.0"
    assert pixels_of((tmp_path / "00007/name/sprite.png").read_bytes()).shape == (8, 8, 3)
    assert "00007/name/metadata.tsv" in (tmp_path / "projector_config.pbtxt").read_text()


def test_files_follow_flush_close_and_purge(tmp_path):
    writer = SummaryWriter(tmp_path, max_queue=1000)
    writer.add_scalar("a", 1)
    assert not logged(tmp_path)
    writer.flush()
    assert len(logged(tmp_path)) == 1
    writer.close()
    writer.add_scalar("a", 2)  # a new file
    writer.close()
    assert len(list(tmp_path.glob("events*"))) == 2
    assert writer.get_logdir() == str(tmp_path)
    with SummaryWriter(tmp_path / "again", purge_step=5):
        pass
    path, = (tmp_path / "again").glob("events*")
    *_, last = map(fields, records(path))
    assert last[2] == [5]
    assert fields(last[7][0]) == {1: [1]}


def test_what_is_not_there_says_so(tmp_path):
    with SummaryWriter(tmp_path) as writer, pytest.raises(NotImplementedError, match="add_figure"):
        writer.add_image_with_boxes("b", torch.zeros(3, 4, 4), torch.zeros(1, 4), labels=["x"])


# -- graphs ---------------------------------------------------------------------------------------

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(inplace=True))
        self.tied = self.layers[0]
        self.register_buffer("shift", torch.ones(4))

    def forward(self, x, more):
        y = self.layers(x) + self.shift
        y = torch.cat([y, self.tied(more["x"])])
        return y, y.sum() if y.shape[0] > 2 else None


def nodes(folder):
    """{name: (op, inputs, shapes)} of the graph in a folder, and the nodes with times."""
    path, = folder.glob("events*")
    events = [fields(record) for record in records(path)]
    graph = fields(next(event[4][0] for event in events if 4 in event))
    found = {}
    for each in map(fields, graph[1]):
        attributes = {entry[1][0]: fields(entry[2][0]) for entry in map(fields, each[5])}
        shapes = None
        if b"_output_shapes" in attributes:
            listed = fields(attributes[b"_output_shapes"][1][0]).get(7, [])
            shapes = [tuple(fields(dim).get(1, [0])[0] for dim in fields(shape).get(2, []))
                      for shape in listed]
        name = each[1][0].decode()
        assert name not in found
        found[name] = each[2][0].decode(), [one.decode() for one in each.get(3, [])], shapes
    timed = [fields(event[8][0]) for event in events if 8 in event]
    return found, fields(graph[4][0]), timed


def test_graphs_of_modules(tmp_path, capsys):
    with SummaryWriter(tmp_path) as writer:
        writer.add_graph(Net(), (torch.ones(2, 3), {"x": torch.ones(1, 3)}), verbose=True)
    found, versions, timed = nodes(tmp_path)
    linear = "Net/Sequential[layers]/Linear[0]"
    assert found["input/0"] == ("IO Node", [], [(2, 3)])
    assert found[f"{linear}/linear"] == (
        "aten::linear", ["input/0", f"{linear}/weight", f"{linear}/bias"], [(2, 4)])
    relu, = (name for name in found if name.startswith("Net/Sequential[layers]/ReLU[1]/relu"))
    assert found["Net/add"][1] == [relu, "Net/shift"]
    assert found[f"{linear}/linear_1"][1] == ["input/1", f"{linear}/weight", f"{linear}/bias"]
    assert found["Net/cat"] == ("aten::cat", ["Net/add", f"{linear}/linear_1"], [(3, 4)])
    assert found["output/0"] == ("IO Node", ["Net/cat"], [(3, 4)])
    assert found["output/1"] == ("IO Node", ["Net/sum"], [()])
    assert versions == {1: [22]} and timed[0][1] == [b"step1"]
    rows = fields(fields(fields(timed[0][2][0])[1][0])[1][0])[2]
    assert "Net/cat" in [fields(row)[1][0].decode() for row in rows]
    for _, inputs, _ in found.values():
        assert set(inputs) <= found.keys()
    assert "Net/cat" in capsys.readouterr().out


def test_graphs_leave_nothing_behind(tmp_path):
    class Broken(torch.nn.Module):
        def forward(self, x):
            raise KeyError("broken")
    with SummaryWriter(tmp_path) as writer:
        with pytest.raises(KeyError):
            writer.add_graph(Broken(), torch.ones(1))
        with pytest.raises(TypeError, match="Module"):
            writer.add_graph(3)
    from flambeau.nn.modules import _hooks
    from flambeau.tensor.dispatch import ACTIVE
    assert not ACTIVE and not _hooks.tables.forward and not _hooks.tables.forward_pre


def test_graphs_of_onnx_files(tmp_path):
    def value(name, *sizes):
        dims = [message((1, size)) for size in sizes]
        return message((1, name), (2, message((1, message((1, 1), (2, message((1, dims))))))))
    call = message((1, ["x", "w"]), (2, "y"), (3, "first"), (4, "MatMul"))
    graph = message((1, call), (2, "net"), (5, message((1, [3, 4]), (8, "w"))),
                    (11, value("x", 2, 3)), (12, value("y", 2, 4)))
    path = tmp_path / "net.onnx"
    path.write_bytes(message((1, 9), (7, graph)))
    with SummaryWriter(tmp_path) as writer:
        writer.add_onnx_graph(path)
    found, _, _ = nodes(tmp_path)
    assert found == {"x": ("IO Node", [], [(2, 3)]), "w": ("Parameter", [], [(3, 4)]),
                     "y": ("MatMul", ["x", "w"], None), "output/y": ("IO Node", ["y"], [(2, 4)])}
    for data in (b"", b"\xff" * 9, b"text"):
        path.write_bytes(data)
        with SummaryWriter(tmp_path) as writer, pytest.raises(ValueError):
            writer.add_onnx_graph(path)
