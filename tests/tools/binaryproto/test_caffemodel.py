"""Weights files to arrays and back; google.protobuf with Caffe's field numbers is the independent oracle."""

import os
import stat
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caffe_tools.binaryproto import caffemodel
from caffe_tools.errors import CaffemodelError

descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
from google.protobuf import descriptor_pool, message_factory  # noqa: E402

# message: {field: (number, type, repeated)}, with the numbers of caffe.proto
SCHEMA = {
    "Shape": {"dim": (1, "int64", True)},
    "Blob": {
        "num": (1, "int64", False),
        "channels": (2, "int64", False),
        "height": (3, "int64", False),
        "width": (4, "int64", False),
        "data": (5, "float", True),
        "diff": (6, "float", True),
        "shape": (7, "Shape", False),
        "double_data": (8, "double", True),
        "double_diff": (9, "double", True),
    },
    "V0Layer": {"name": (1, "string", False), "type": (2, "string", False), "blobs": (50, "Blob", True)},
    "V1Layer": {
        "layer": (1, "V0Layer", False),
        "bottom": (2, "string", True),
        "name": (4, "string", False),
        "type": (5, "int32", False),
        "blobs": (6, "Blob", True),
    },
    "Layer": {
        "name": (1, "string", False),
        "type": (2, "string", False),
        "loss_weight": (5, "float", True),
        "blobs": (7, "Blob", True),
    },
    "Net": {"name": (1, "string", False), "layers": (2, "V1Layer", True), "layer": (100, "Layer", True)},
}


def message_classes(packed):
    """Classes for SCHEMA; today's caffe.proto packs numbers, its first versions did not."""
    file = descriptor_pb2.FileDescriptorProto(name=f"oracle_{packed}.proto", package=f"o{packed}", syntax="proto2")
    for message_name, fields in SCHEMA.items():
        message = file.message_type.add(name=message_name)
        for name, (number, kind, repeated) in fields.items():
            field = message.field.add(name=name, number=number, label=3 if repeated else 1)
            if kind in SCHEMA:
                field.type_name = f".o{packed}.{kind}"
                field.type = field.TYPE_MESSAGE
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
                if repeated and kind != "string":
                    field.options.packed = packed
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"o{packed}.{name}")) for name in SCHEMA}


PACKED, UNPACKED = message_classes(True), message_classes(False)


@pytest.fixture
def save(tmp_path):
    """Writes bytes or an oracle message to a file and gives its path."""

    def save(content):
        path = tmp_path / "net.caffemodel"
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
        return path

    return save


def shaped(blob, array):
    blob.shape.dim.extend(array.shape)
    blob.data.extend(array.ravel().tolist())


def error_of(path, reader=caffemodel.read):
    with pytest.raises(CaffemodelError) as raised:
        reader(path)
    text = str(raised.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text.removeprefix(f"{path}: ")


WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3) / 7
BIAS = np.array([1.5, -2], np.float32)


# --- reading


@pytest.mark.parametrize("classes", [PACKED, UNPACKED], ids=["packed", "unpacked"])
def test_layers_with_blobs_are_read_in_file_order(save, classes):
    net = classes["Net"](name="n")
    net.layer.add(name="data", type="Input")
    fc = net.layer.add(name="fc2", type="InnerProduct", loss_weight=[1, 2])
    shaped(fc.blobs.add(), WEIGHT)
    shaped(fc.blobs.add(), BIAS)
    shaped(net.layer.add(name="fc1").blobs.add(), BIAS)
    blobs = caffemodel.read(save(net))
    assert list(blobs) == ["fc2", "fc1"]
    np.testing.assert_array_equal(blobs["fc2"][0], WEIGHT)
    np.testing.assert_array_equal(blobs["fc2"][1], BIAS)
    assert all(blob.dtype == np.float32 and blob.flags.owndata | blob.flags.writeable for blob in blobs["fc2"])


@pytest.mark.parametrize("classes", [PACKED, UNPACKED], ids=["packed", "unpacked"])
def test_double_data_becomes_float32_and_precedes_data(save, classes):
    net = classes["Net"]()
    blob = net.layer.add(name="a").blobs.add(data=[9, 9], double_data=[0.1, 1e300])
    blob.shape.dim.append(2)
    np.testing.assert_array_equal(caffemodel.read(save(net))["a"][0], np.float32([0.1, np.inf]))


def test_a_signalling_nan_in_double_data_is_just_a_nan(save):
    nan = struct.pack("<Q", 0x7FF0000000000001)
    blob = caffemodel.read_blob(save(b"\x42\x08" + nan + b"\x3a\x00"))
    assert np.isnan(blob)


def test_diffs_are_skipped(save):
    for classes in (PACKED, UNPACKED):
        net = classes["Net"]()
        blob = net.layer.add(name="a").blobs.add(diff=[7] * 9, double_diff=[8] * 9)
        shaped(blob, BIAS)
        np.testing.assert_array_equal(caffemodel.read(save(net))["a"][0], BIAS)


def test_the_old_four_axes_precede_shape(save):
    net = PACKED["Net"]()
    blob = net.layer.add(name="a").blobs.add(num=1, channels=1, height=2, width=3)
    shaped(blob, WEIGHT)
    np.testing.assert_array_equal(caffemodel.read(save(net))["a"][0], WEIGHT.reshape(1, 1, 2, 3))


def test_v1_and_v0_layers_are_read(save):
    net = PACKED["Net"]()
    v1 = net.layers.add(name="v1", type=4, bottom=["data"])
    shaped(v1.blobs.add(), WEIGHT)
    v0 = net.layers.add(bottom=["data"])
    v0.layer.name, v0.layer.type = "v0", "conv"
    v0.layer.blobs.add(num=1, channels=1, height=1, width=2, data=BIAS.tolist())
    blobs = caffemodel.read(save(net))
    assert list(blobs) == ["v1", "v0"]
    np.testing.assert_array_equal(blobs["v1"][0], WEIGHT)
    np.testing.assert_array_equal(blobs["v0"][0], BIAS.reshape(1, 1, 1, 2))


def test_a_blob_may_be_empty_or_a_scalar(save):
    net = PACKED["Net"]()
    net.layer.add(name="a").blobs.add(data=[3]).shape.SetInParent()
    net.layer[0].blobs.add().shape.dim.extend([0, 5])
    scalar, empty = caffemodel.read(save(net))["a"]
    assert scalar.shape == () and scalar == 3
    assert empty.shape == (0, 5)


def test_data_in_several_pieces_is_joined(save):
    net = UNPACKED["Net"]()
    blob = net.layer.add(name="a").blobs.add()
    blob.shape.dim.append(3)
    packed_piece = b"\x2a\x08" + struct.pack("<2f", 1, 2)
    single_piece = b"\x2d" + struct.pack("<f", 3)
    body = blob.SerializeToString() + packed_piece + single_piece
    layer = b"\x0a\x01a\x3a" + bytes([len(body)]) + body
    path = save(b"\xa2\x06" + bytes([len(layer)]) + layer)
    np.testing.assert_array_equal(caffemodel.read(path)["a"][0], [1, 2, 3])


def test_of_two_layers_with_one_name_the_later_wins_as_in_caffe(save):
    net = PACKED["Net"]()
    shaped(net.layer.add(name="a").blobs.add(), WEIGHT)
    shaped(net.layer.add(name="a").blobs.add(), BIAS)
    net.layer.add(name="a")
    (blob,) = caffemodel.read(save(net))["a"]
    np.testing.assert_array_equal(blob, BIAS)


def test_a_net_without_weights_gives_nothing(save):
    net = PACKED["Net"](name="n")
    net.layer.add(name="data", type="Input")
    assert caffemodel.read(save(net)) == {}


def test_a_binaryproto_is_one_blob(save):
    mean = PACKED["Blob"](num=1, channels=3, height=1, width=2, data=range(6))
    blob = caffemodel.read_blob(save(mean))
    np.testing.assert_array_equal(blob, np.arange(6, dtype=np.float32).reshape(1, 3, 1, 2))


def test_a_large_unpacked_blob_takes_no_loop_over_its_values(save):
    count = 2_000_000
    records = np.empty((count, 5), np.uint8)
    records[:, 0] = 5 << 3 | 5
    records[:, 1:] = np.arange(count, dtype="<f4").view(np.uint8).reshape(count, 4)
    shape = PACKED["Shape"](dim=[count]).SerializeToString()
    path = save(records.tobytes() + b"\x3a" + bytes([len(shape)]) + shape)
    start = os.times().user
    blob = caffemodel.read_blob(path)
    assert os.times().user - start < 1
    np.testing.assert_array_equal(blob, np.arange(count, dtype=np.float32))


def test_reading_allocates_no_more_than_the_blobs(tmp_path):
    path = tmp_path / "net.caffemodel"
    big = np.ones(4_000_000, np.float32)
    caffemodel.write(path, [("a", "InnerProduct", [big])])
    tracemalloc.start()
    blobs = caffemodel.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert blobs["a"][0].nbytes <= peak < 1.1 * big.nbytes


# --- writing

arrays = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))


@given(st.dictionaries(st.text(max_size=5), st.tuples(st.text(max_size=5), st.lists(arrays, max_size=3)), min_size=1))
def test_what_is_written_is_read_by_protobuf_and_by_us(tmp_path_factory, layers):
    path = tmp_path_factory.mktemp("written") / "net.caffemodel"
    caffemodel.write(path, [(name, kind, blobs) for name, (kind, blobs) in layers.items()], name="net")
    net = PACKED["Net"].FromString(path.read_bytes())
    assert net.name == "net" and [(layer.name, layer.type) for layer in net.layer] == [
        (name, kind) for name, (kind, _) in layers.items()
    ]
    read = caffemodel.read(path)
    assert list(read) == [name for name, (_, blobs) in layers.items() if blobs]
    for layer in net.layer:
        expected = layers[layer.name][1]
        for blob, ours, array in zip(layer.blobs, read.get(layer.name, []), expected, strict=True):
            assert tuple(blob.shape.dim) == ours.shape == array.shape
            np.testing.assert_array_equal(np.float32(blob.data), array.ravel())
            np.testing.assert_array_equal(ours, array)


def test_other_dtypes_and_memory_orders_are_written_as_float32(tmp_path):
    path = tmp_path / "net.caffemodel"
    array = np.arange(6.0).reshape(2, 3).T
    caffemodel.write(path, [("a", "X", [array, [1, 2]])])
    blob, plain_list = caffemodel.read(path)["a"]
    np.testing.assert_array_equal(blob, array.astype(np.float32))
    np.testing.assert_array_equal(plain_list, np.float32([1, 2]))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "net.caffemodel"
    caffemodel.write(path, [("a", "X", [BIAS])])
    with pytest.raises(CaffemodelError, match="two layers with blobs are named 'a'"):
        caffemodel.write(path, [("a", "X", [WEIGHT]), ("a", "X", [WEIGHT])])
    np.testing.assert_array_equal(caffemodel.read(path)["a"][0], BIAS)
    assert os.listdir(tmp_path) == [path.name]


def test_a_written_file_has_the_usual_permissions(tmp_path):
    path, plain = tmp_path / "net.caffemodel", tmp_path / "plain"
    caffemodel.write(path, [("a", "X", [BIAS])])
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(CaffemodelError, match="cannot write .*none.net.caffemodel: there is no such folder"):
        caffemodel.write(tmp_path / "none" / "net.caffemodel", [])


def test_more_than_caffe_can_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(caffemodel, "MAX_FILE_BYTES", 40)
    with pytest.raises(CaffemodelError, match="exceed 2 GB, which Caffe cannot read"):
        caffemodel.write(tmp_path / "net.caffemodel", [("a", "X", [WEIGHT])])
    assert os.listdir(tmp_path) == []


# --- errors


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty, where a .caffemodel is expected"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file (Caffe's snapshot_format: HDF5)"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG image"),
        (b"PK\x03\x04" + bytes(100), "a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer (fetch the file with: git lfs pull)"),
        (b'name: "LeNet"\nlayer {\n', "text (a prototxt or a web page), where a .caffemodel is expected"),
        (b"\x08\x03\x12\x04onnx", "another kind of protobuf file (ONNX?), where a .caffemodel is expected"),
        (b"\x0a\x03net", "no layer found: not a .caffemodel, or one without layers"),
        (bytes(64), "damaged at byte 0: the net has a field numbered 0"),
        (b"\xa3\x06\x00", "damaged at byte 0: the net has a field of unknown wire type 3"),
        (b"\xff" * 20, "truncated or damaged at byte 0: the net has an integer that does not end"),
        (b"\xa2\x06\xff\xff\xff\xff\x7f", "the net, field 100 needs 34359738367 bytes, 0 are left"),
    ],
)
def test_a_foreign_or_damaged_file_is_one_line(save, content, problem):
    assert problem in error_of(save(content))


def test_a_missing_file_and_a_folder_are_one_line(tmp_path):
    assert error_of(tmp_path / "none").startswith("cannot read the file: No such file")
    assert error_of(tmp_path).startswith("cannot read the file: ")


def blob_error(save, **fields):
    net = PACKED["Net"]()
    net.layer.add(name="ok")
    dims = fields.pop("dims", None)
    blob = net.layer.add(name="conv1").blobs.add(**fields)
    if dims is not None:
        blob.shape.dim.extend(dims)
    return error_of(save(net))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"dims": [2, 3], "data": [1] * 5}, "shape 2x3 needs 6 values, the file holds 5"),
        ({"dims": [2**30] * 4}, f"shape {'x'.join(['1073741824'] * 4)} needs {2**120} values, the file holds 0"),
        ({"dims": [0, 2**31]}, "0x2147483648 is not a shape: at most 32 axes of 0 to 2147483647"),
        ({"dims": [0] + [2**30] * 4}, "is too large a shape"),
        ({"num": 1, "channels": 2, "data": [1]}, "shape 1x2x0x0 needs 0 values, the file holds 1"),
        ({"data": [1, 2]}, "shape () (a scalar) needs 1 values, the file holds 2"),
        ({"dims": [2, -3], "data": [1]}, "2x-3 is not a shape: at most 32 axes of 0 to 2147483647"),
        ({"dims": [1] * 33, "data": [1]}, "is not a shape: at most 32 axes of 0 to 2147483647"),
    ],
)
def test_a_shape_that_does_not_fit_names_layer_and_blob(save, fields, problem):
    error = blob_error(save, **fields)
    assert error.startswith("layer 'conv1', blob 0: ") and problem in error


def test_numbers_cut_in_the_middle_name_layer_and_blob(save):
    body = b"\x2a\x03abc"
    layer = b"\x0a\x01a\x3a" + bytes([len(body)]) + body
    error = error_of(save(b"\xa2\x06" + bytes([len(layer)]) + layer))
    assert error == "damaged at byte 10: layer 'a', blob 0 has 3 bytes of 4-byte numbers"


def test_a_layer_name_cannot_break_the_line(save):
    net = PACKED["Net"]()
    net.layer.add(name="a\nb").blobs.add()
    assert error_of(save(net)).startswith(r"layer 'a\nb', blob 0: ")


def small_model():
    net = PACKED["Net"](name="net")
    layer = net.layer.add(name="conv", type="Convolution")
    shaped(layer.blobs.add(), WEIGHT)
    layer.blobs.add(num=1, channels=1, height=1, width=2, double_data=[1, 2])
    v1 = net.layers.add(name="v1")
    shaped(v1.blobs.add(), BIAS)
    unpacked = UNPACKED["Net"]()
    shaped(unpacked.layer.add(name="old").blobs.add(), WEIGHT)
    return net.SerializeToString() + unpacked.SerializeToString()


MODEL = small_model()


@pytest.mark.parametrize("length", range(1, len(MODEL)))
def test_a_truncated_file_is_an_error_or_ends_between_two_layers(save, length):
    path = save(MODEL[:length])
    try:
        blobs = caffemodel.read(path)
    except CaffemodelError as error:
        assert "\n" not in str(error)
    else:
        PACKED["Net"].FromString(MODEL[:length])  # protobuf agrees that it is whole
        assert blobs


def assert_read_or_refused(path, content):
    path.write_bytes(content)
    for reader in (caffemodel.read, caffemodel.read_blob):
        try:
            reader(path)
        except CaffemodelError as error:
            assert "\n" not in str(error)


@given(st.lists(st.tuples(st.integers(0, len(MODEL) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_gives_an_error_or_arrays(tmp_path_factory, changes):
    damaged = bytearray(MODEL)
    for index, byte in changes:
        damaged[index] = byte
    assert_read_or_refused(tmp_path_factory.getbasetemp() / "damaged.caffemodel", damaged)


@given(st.binary(max_size=60))
def test_random_bytes_give_an_error_or_arrays(tmp_path_factory, content):
    assert_read_or_refused(tmp_path_factory.getbasetemp() / "random.caffemodel", content)


# --- the reference data


def test_every_caffemodel_of_the_reference_data_is_read_as_protobuf_reads_it(shared):
    paths = sorted(shared.glob("*/*.caffemodel"))
    assert paths
    for path in paths:
        net = PACKED["Net"].FromString(path.read_bytes())
        expected = {layer.name: layer.blobs for layer in [*net.layer, *net.layers] if layer.blobs}
        found = caffemodel.read(path)
        assert list(found) == list(expected), path
        for name, blobs in found.items():
            for blob, oracle in zip(blobs, expected[name], strict=True):
                np.testing.assert_array_equal(blob.ravel(), np.float32(oracle.data))


def test_the_infogain_matrix_of_the_reference_data_is_read(shared):
    blob = caffemodel.read_blob(shared / "golden" / "infogain_source_file.binaryproto")
    assert blob.shape == (1, 1, 4, 4)
    assert np.all(np.isfinite(blob))
