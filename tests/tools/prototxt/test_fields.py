"""Messages of a prototxt read by declared fields."""

from __future__ import annotations

import pytest

from caffe_tools.errors import NetError
from caffe_tools.prototxt.fields import Bool, Enum, Float, Int, OptionalEnum, Repeated, String, Submessage, UInt, read
from caffe_tools.prototxt.text import parse

INNER = {"dim": Repeated(Int())}
FIELDS = {
    "pool": Enum("MAX", "AVE"),
    "operation": Enum(numbers={"SUM": 1, "MEAN": 4}),
    "phase": OptionalEnum("TRAIN", "TEST"),
    "kernel_size": UInt(),
    "axis": Int(1),
    "ratio": Float(0.5),
    "bias_term": Bool(True),
    "name": String("none"),
    "pad": Repeated(UInt()),
    "shape": Submessage(INNER),
    "shapes": Repeated(Submessage(INNER)),
}
NUMBER_RANGES = {"axis": (-(2**31), 2**31 - 1), "kernel_size": (0, 2**31 - 1)}


def values(text):
    return read(parse(text, "net.prototxt"), FIELDS, "layer 'a' (T): t_param")


def error_of(text):
    with pytest.raises(NetError) as raised:
        values(text)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_silent_message_has_the_defaults():
    found = values("")
    assert (found.pool, found.axis, found.ratio, found.bias_term, found.name) == ("MAX", 1, 0.5, True, "none")
    assert (found.kernel_size, found.phase, found.pad, found.shapes) == (None, None, [], [])
    assert found.given == frozenset()


def test_an_absent_message_has_the_defaults():
    assert read(None, FIELDS, "t_param").axis == 1


def test_an_absent_submessage_has_its_defaults():
    assert values("").shape.dim == []


def test_given_names_the_fields_that_are_set_even_to_their_default():
    assert values("axis: 1 pad: 0").given == {"axis", "pad"}


def test_a_repeated_field_is_a_list_in_order():
    assert values("pad: 3 pad: 1 pad: [2, 0]").pad == [3, 1, 2, 0]


def test_submessages_are_read_in_turn():
    assert [shape.dim for shape in values("shapes { dim: 2 } shapes { dim: [3, 4] }").shapes] == [[2], [3, 4]]


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("1", True), ("0", False), ("t", True)])
def test_a_bool_is_a_word_or_a_bit(text, value):
    assert values(f"bias_term: {text}").bias_term is value


@pytest.mark.parametrize(("text", "value"), [("2", 2.0), ("-1.5", -1.5), ("1e3", 1000.0), ("inf", float("inf"))])
def test_a_float_may_be_written_as_an_integer(text, value):
    found = values(f"ratio: {text}").ratio
    assert found == value and type(found) is float


def test_an_enum_constant_may_be_given_by_its_number():
    assert (values("pool: 1").pool, values("operation: 4").operation, values("phase: 0").phase) == (
        "AVE",
        "MEAN",
        "TRAIN",
    )


@pytest.mark.parametrize("name", NUMBER_RANGES)
def test_the_ends_of_an_integers_range_are_values(name):
    for end in NUMBER_RANGES[name]:
        assert getattr(values(f"{name}: {end}"), name) == end


@pytest.mark.parametrize(("name", "beyond"), [("axis", 2**31), ("axis", -(2**31) - 1), ("kernel_size", 2**32)])
def test_an_integer_beyond_its_range_is_an_error(name, beyond):
    assert f"{name} is {beyond}, but takes a value of type" in error_of(f"{name}: {beyond}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axis: 0.5", "axis is 0.5, but takes a value of type int"),
        ("axis: true", "axis is 'true', but takes a value of type int"),
        ("kernel_size: -1", "kernel_size is -1, but takes a value of type unsigned int"),
        ('ratio: "2"', "ratio is '2', but takes a value of type float"),
        ("bias_term: 2", "bias_term is 2, but takes a value of type bool"),
        ("bias_term: yes", "bias_term is 'yes', but takes a value of type bool"),
        ("name: word", "name is 'word', but takes a value of type string"),
        ("name: 3", "name is 3, but takes a value of type string"),
        ("pool: AVG", "pool is 'AVG', but takes one of MAX | AVE"),
        ('pool: "AVE"', "pool is 'AVE', but takes one of MAX | AVE"),
        ("pool: 7", "pool is 7, but takes one of MAX | AVE"),
        ("pool { x: 1 }", "pool is a message, but takes one of MAX | AVE"),
        ("shape: 3", "shape is 3, but takes a value of type message"),
        ("pad: 1 pad: -2", "pad is -2, but takes a value of type unsigned int"),
    ],
)
def test_a_value_of_another_type_is_an_error_that_names_the_type(text, message):
    assert error_of(text).endswith(f"layer 'a' (T): t_param: {message}")


def test_an_error_tells_the_place_of_the_value_itself():
    assert error_of("pad: 1\npad: 2\n  pad: -3").startswith("net.prototxt:3:3: ")


def test_an_error_inside_a_submessage_tells_the_way_there():
    assert error_of("shape {\n dim: true }").startswith("net.prototxt:2:2: layer 'a' (T): t_param shape: dim is 'true'")


def test_a_single_field_given_twice_is_an_error():
    message = error_of("axis: 1\naxis: 2")
    assert message == "net.prototxt:2:1: layer 'a' (T): t_param: axis is given 2 times, give it once"


def test_an_unknown_field_is_an_error_with_its_place_and_the_name_that_was_meant():
    assert error_of("axis: 1\n kernel_sise: 3") == (
        "net.prototxt:2:2: layer 'a' (T): t_param has no field 'kernel_sise': did you mean 'kernel_size'?"
    )


def test_an_unknown_field_like_none_of_them_is_an_error_that_lists_them():
    assert "it has pool, operation, phase, kernel_size, axis" in error_of("zzz: 3")


def test_unknown_fields_can_be_let_pass():
    assert read(parse("zzz: 3 axis: 2"), FIELDS, "the net", ignore_unknown=True).axis == 2


@pytest.mark.parametrize(
    ("name", "text"), [("axis", "int"), ("pool", "MAX | AVE"), ("pad", "list of unsigned int"), ("shape", "message")]
)
def test_a_field_describes_itself(name, text):
    assert FIELDS[name].describe() == text
