"""Prototxt messages drawn at random."""

from __future__ import annotations

from hypothesis import strategies as st

from caffe_tools.prototxt.message import Message


def message_of(fields: list) -> Message:
    message = Message()
    for name, value in fields:
        message.add(name, value)
    return message


def messages(names: st.SearchStrategy, values: st.SearchStrategy, max_leaves: int) -> st.SearchStrategy:
    """Messages of fields with these names, whose values are these or messages again."""

    def of(values):
        return st.lists(st.tuples(names, values), max_size=5).map(message_of)

    return st.recursive(of(values), lambda nested: of(values | nested), max_leaves=max_leaves)
