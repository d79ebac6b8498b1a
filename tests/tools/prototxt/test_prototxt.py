"""Prototxt text to messages and back."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffe_tools.errors import CaffeToolsError, PrototxtError
from caffe_tools.prototxt.message import Identifier, Message
from caffe_tools.prototxt.text import MAX_DEPTH, load, parse, to_text
from drawn_messages import messages


def only(text):
    """The value of the one field ``x``."""
    (value,) = parse(text).fields("x")
    return value


# --- values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0", 0),
        ("-7", -7),
        ("- 1", -1),
        ("0x1F", 31),
        ("-0X10", -16),
        ("017", 15),
        ("18446744073709551615", 2**64 - 1),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e0", 1.0),
        ("-1e-2f", -0.01),
        ("1F", 1.0),
        ("2.5E+3", 2500.0),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("-Infinity", -math.inf),
        ("18446744073709551616", 2.0**64),
        ("123456789012345678901234567890", 123456789012345678901234567890.0),
        ("TRUE", Identifier("TRUE")),
        ("MAX", Identifier("MAX")),
        ('"MAX"', "MAX"),
        ("'it\"s'", 'it"s'),
        ('"a" \'b\'\n  # between\n "c"', "abc"),
        ('""', ""),
    ],
)
def test_a_scalar_has_the_value_and_the_kind_that_its_text_spells(text, value):
    found = only(f"x: {text}")
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_float():
    assert math.isnan(only("x: nan")) and math.isnan(only("x: -NaN"))


@pytest.mark.parametrize(
    ("escaped", "value"),
    [
        (r"\n\t\r\a\b\f\v", "\n\t\r\a\b\f\v"),
        (r"\\ \' \" \?", "\\ ' \" ?"),
        (r"\x41\X4a\x4", "AJ\x04"),
        (r"\101\0411\7", "A!1\7"),
        (r"\u00e9\U0001F600", "é😀"),
        (r"\ud83d\ude00", "😀"),
        (r"\303\251\xc3\xa9", "éé"),
        ('\\303" "\\251', "é"),
        ("naïve 猫", "naïve 猫"),
    ],
)
def test_string_escapes_are_those_of_protobuf(escaped, value):
    assert only(f'x: "{escaped}"') == value


def test_bytes_that_are_not_utf8_survive_the_round_trip():
    message = parse(r'x: "\xff\0017"')
    assert message.first("x").encode("utf-8", "surrogateescape") == b"\xff\x017"
    assert parse(to_text(message)) == message


# --- structure


def test_messages_may_have_a_colon_or_angle_brackets():
    assert parse("a { b: 1 }") == parse("a: { b: 1 }") == parse("a < b: 1 >") == parse("a: <b:1>")


def test_a_list_is_a_repeated_field():
    assert parse("x: [1, 2] m: [{a: 1}, <a: 2>] m [{}] n: []") == parse("x: 1 x: 2 m {a: 1} m {a: 2} m {}")


def test_one_semicolon_or_comma_may_follow_a_field():
    assert parse("a: 1; b { c: 2, d: 3; }, e: 4") == parse("a: 1 b { c: 2 d: 3 } e: 4")


def test_comments_carriage_returns_and_a_byte_order_mark_are_white_space():
    assert parse("\ufeff# a net\r\na: 1 # one\r\n\tb: 2\r\n# end") == parse("a: 1 b: 2")


def test_extension_names_are_kept():
    message = parse("[caffe.fork.extra]: 1 [type.googleapis.com/a.B] { c: 2 }")
    assert message.names() == ["[caffe.fork.extra]", "[type.googleapis.com/a.B]"]


def test_an_empty_text_is_an_empty_message():
    assert len(parse("")) == len(parse(" # nothing")) == 0


# --- the message


def test_fields_keep_their_order_and_repeats():
    message = parse('a: 1 b: "two" a: 3')
    assert list(message) == [("a", 1), ("b", "two"), ("a", 3)]
    assert message.fields("a") == [1, 3]
    assert message.names() == ["a", "b"]
    assert message.first("a") == 1
    assert message.first("c", 9) == 9 and message.fields("c") == []
    assert "b" in message and "c" not in message


def test_every_field_knows_where_it_stands():
    message = parse('name: "n"\nlayer {\n  pad: 1  pad: 2\n}\n', "net.prototxt")
    layer = message.first("layer")
    assert str(message.position_of("layer")) == "net.prototxt:2:1"
    assert str(layer.position) == "net.prototxt:2:1"
    assert str(layer.position_of("pad", 1)) == "net.prototxt:3:11"
    assert str(layer.position_of("stride")) == "net.prototxt:2:1"


def test_set_replaces_in_place_and_remove_removes_all():
    message = parse("a: 1 b: 2 a: 3 c: 4")
    message.set("a", [5, 6])
    assert message == parse("a: 5 a: 6 b: 2 c: 4")
    message.set("d", [True])
    message.remove("a")
    message.remove("nothing")
    assert message == parse("b: 2 c: 4 d: true")


def test_a_message_that_is_set_again_keeps_its_own_position():
    message = parse("m { a: 1 } m { a: 2 }", "f")
    second = message.fields("m")[1]
    message.set("m", [Message(), second])
    assert message.position_of("m", 1) == second.position


def test_a_copy_shares_nothing():
    message = parse("m { a: 1 }")
    twin = message.copy()
    twin.first("m").set("a", [2])
    assert message == parse("m { a: 1 }") and twin == parse("m { a: 2 }")


@pytest.mark.parametrize(("a", "b"), [("1", "1.0"), ("true", '"true"'), ("1", "2"), ("0.0", "-0.0"), ("{}", '""')])
def test_values_of_different_kinds_are_not_equal(a, b):
    assert parse(f"x: {a}") != parse(f"x: {b}")


def test_messages_and_strings_refuse_other_values_with_their_position():
    message = parse('layer: 3 bottom: data top: "t"', "f")
    assert message.strings("top") == ["t"]
    with pytest.raises(PrototxtError, match=r"^f:1:1: expected 'layer \{ ... \}', found 3$"):
        message.messages("layer")
    with pytest.raises(PrototxtError, match=r"^f:1:10: expected a quoted string for 'bottom', found data$"):
        message.strings("bottom")


@pytest.mark.parametrize(
    ("name", "value"), [("a b", 1), ("", 1), ("1a", 1), ("a", None), ("a", [1]), ("a", Identifier("x y"))]
)
def test_a_field_that_no_prototxt_can_hold_is_refused(name, value):
    with pytest.raises(PrototxtError):
        Message().add(name, value)


# --- text


def test_text_is_indented_and_keeps_enums_unquoted():
    text = 'layer {\n  type: "Pooling"\n  pooling_param {\n    pool: MAX\n    pad: 1\n    eps: 1e-05\n  }\n}\nb: true\n'
    assert to_text(parse(text)) == text


names = st.from_regex(r"\A(?:[A-Za-z_][A-Za-z0-9_]{0,8}|\[[a-z]{1,3}\.[a-z]{1,3}\])\Z")
scalars = st.one_of(
    st.text(max_size=12),
    st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,8}\Z")
    .filter(lambda word: word.lower() not in ("inf", "infinity", "nan"))
    .map(Identifier),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.booleans(),
)


@given(messages(names, scalars, max_leaves=8))
def test_any_message_survives_its_text(message):
    assert parse(to_text(message)) == message


@given(st.text(alphabet="ab:{}<>[]\"'\\#\n 01.-ex,;/é\x00", max_size=40))
def test_any_text_is_parsed_or_refused_with_one_line(text):
    try:
        message = parse(text, "f")
    except PrototxtError as error:
        assert str(error).startswith("f:") and "\n" not in str(error)
    else:
        assert parse(to_text(message)) == message


# --- errors


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a 1", "f:1:3: expected ':' or '{' after 'a', found '1'"),
        ("a", "f:1:2: expected ':' or '{' after 'a', found the end of the file"),
        ("a:\n}", "f:2:1: expected a value for 'a', found '}'"),
        ("a: [1 2]", "f:1:7: expected ',' or ']' in the list opened at f:1:4, found '2'"),
        ("a: [1,]", "f:1:7: expected a value for 'a', found ']'"),
        ("a: [[1]]", "f:1:5: expected a value for 'a', found '['"),
        ("a: -MAX", "f:1:5: expected a number after '-', found 'MAX'"),
        ("a: +1", "f:1:4: expected a field name or a value, found the stray character '+'"),
        ("}", "f:1:1: expected a field name, found '}'"),
        ("a: 1;;", "f:1:6: expected a field name, found ';'"),
        ("[a b]: 1", "f:1:1: expected a field name, found '['"),
        ("3: 1", "f:1:1: expected a field name, found '3'"),
        ("a {\n b: 1\n", "f:3:1: expected '}' to close 'a {' opened at f:1:1, found the end of the file"),
        ("a { b: 1 >", "f:1:10: expected '}' to close 'a {' opened at f:1:1, found '>'"),
        ("a: 09", "f:1:4: expected an octal number after the leading 0 (for decimal 9 leave it out), found '09'"),
        ("a: 1.2.3", "f:1:4: '1.2.3' is not a number"),
        ("a: 12px", "f:1:4: '12px' is not a number"),
        ("a: 0xg", "f:1:4: '0xg' is not a number"),
        ("a: 1e", "f:1:4: '1e' is not a number"),
        ('a: "x\nb: 1', 'f:1:4: the string is not closed: expected " before the end of the line'),
        ("a: 'x\\", "f:1:4: the string is not closed: expected ' before the end of the line"),
        (r'a: "\q"', r"f:1:5: \q is not an escape: a backslash is written \\"),
        (r'a: "\400"', r"f:1:5: \400 is not a byte or a Unicode character"),
        (r'a: "b\ud800"', r"f:1:6: \ud800 is not a byte or a Unicode character"),
        (r'a: "\U00110000"', r"f:1:5: \U00110000 is not a byte or a Unicode character"),
        ("a: \u201cx\u201d", "f:1:4: expected a field name or a value, found the stray character '\u201c'"),
        ("a: 1\n\x00", "f:2:1: expected a field name or a value, found the stray character '\\x00'"),
        ("// c", "f:1:1: expected a field name, found '/'"),
        ("x" * 60 + " 1", f"f:1:62: expected ':' or '{{' after '{'x' * 37}...', found '1'"),
    ],
)
def test_malformed_text_is_one_line_with_the_place_and_what_would_be_right(text, error):
    with pytest.raises(PrototxtError) as raised:
        parse(text, "f")
    assert str(raised.value) == error


def test_nesting_has_a_limit_for_reading_and_writing():
    deep = "a {" * MAX_DEPTH + "}" * MAX_DEPTH
    assert parse(to_text(parse(deep))) == parse(deep)
    with pytest.raises(PrototxtError, match=f"nested deeper than {MAX_DEPTH} levels"):
        parse("a {" + deep + "}")
    with pytest.raises(PrototxtError, match=f"nested deeper than {MAX_DEPTH} levels"):
        parse("a {" * 100_000)
    outer = Message()
    outer.add("a", parse(deep))
    with pytest.raises(PrototxtError, match=f"nested deeper than {MAX_DEPTH} levels"):
        to_text(outer)


def test_a_string_that_is_no_text_is_refused_when_written():
    message = Message()
    message.add("a", "\ud800")
    with pytest.raises(PrototxtError, match="is not Unicode text"):
        to_text(message)


def test_time_is_linear_in_the_length():
    def seconds(count):
        text = "a { b: 0.5 c: 'x' } # comment\n" * count + "x: '" + "\\n" * count + "'"
        times = []
        for _ in range(3):
            start = time.process_time()
            parse(text)
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(8000) < 100 * seconds(500)  # 16 times if linear, 256 times if quadratic


# --- files


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (b"# only a comment\n", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\n\x05LeNet\xa2\x06A\n\x05mnist", "a binary file (a .caffemodel holds weights"),
        ("name: 'x'".encode("utf-16"), "UTF-16 text"),
        ("name: 'é'".encode("latin-1"), ":1:7: the string is not UTF-8"),
        ("naïve: 1".encode("latin-1"), ":1:3: byte 0xef is not UTF-8"),
    ],
)
def test_a_file_that_is_no_prototxt_is_one_line(tmp_path, content, problem):
    path = tmp_path / "net.prototxt"
    path.write_bytes(content)
    with pytest.raises(PrototxtError) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}:") and problem in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_and_a_folder_are_one_line(tmp_path):
    with pytest.raises(CaffeToolsError, match=r"none.prototxt: cannot read the prototxt: No such file"):
        load(tmp_path / "none.prototxt")
    with pytest.raises(PrototxtError, match="cannot read the prototxt"):
        load(tmp_path)


def test_a_comment_may_be_in_any_encoding_and_a_byte_order_mark_may_lead(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(b"\xef\xbb\xbf# " + "中文".encode("gbk") + b"\r\na: 1\r\n")
    assert load(path) == parse("a: 1")


def test_every_prototxt_of_the_reference_data_survives_its_text(shared):
    paths = sorted(shared.glob("golden/*.prototxt")) + sorted(shared.glob("models/*.prototxt"))
    assert paths
    for path in paths:
        message = load(path)
        assert parse(to_text(message)) == message, path
