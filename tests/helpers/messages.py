"""Messages drawn for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from caffe_tools.prototxt.message import Message


def drawn_messages(names: st.SearchStrategy, scalars: st.SearchStrategy, leaves: int) -> st.SearchStrategy:
    """Messages within messages, whose fields are called ``names`` and hold ``scalars``."""

    def lists(values, most):
        return st.lists(st.tuples(names, values), max_size=most).map(_message_of)

    return st.recursive(lists(scalars, 5), lambda nested: lists(scalars | nested, 4), max_leaves=leaves)


def _message_of(fields: list[tuple]) -> Message:
    message = Message()
    for name, value in fields:
        message.add(name, value)
    return message
