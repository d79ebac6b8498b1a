"""All that is refused in a net before a layer of it is built, in one list: what several layers share is said once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from caffe_tools import standard
from caffe_tools.errors import NetError, few, nearest
from caffe_tools.net.user_modules import ALWAYS_ALLOWED, import_layer_class, is_allowed, not_allowed
from caffe_tools.prototxt.layer_spec import LayerSpec
from caffe_tools.prototxt.messages import PYTHON_PARAM
from caffe_tools.standard.form import check_counts
from caffe_tools.standard.registry import TAUGHT, TYPES

HOW_TO_TEACH = "or teach it with caffe_tools.layer_type"
NAMELESS = "python_param must name a module and a layer"
ROOM = 40
"""Characters for names in a line that says much besides."""
MOST_TYPES = 5
"""So many unknown types get a line each; more are counted."""


def layer_faults(
    layers: Sequence[LayerSpec], allow_modules: Sequence[str], failed: Iterable[str]
) -> Iterator[NetError]:
    """What is wrong with the layers, each by itself: their types, their modules, the fields that are given.

    ``failed`` are modules that could not be imported, of which nothing more is said.
    """
    unknown: dict[str, list[LayerSpec]] = {}
    strangers: dict[str, list[LayerSpec]] = {}
    faulty: dict[tuple[str, str], list[tuple[LayerSpec, str]]] = {}
    for spec in layers:
        try:
            kind = standard.known_type(spec)
            if kind is not None:
                check_counts(spec, kind)
                for message, declared in kind.messages.items():
                    if not kind.is_source:  # those read their messages as they like: forks have more fields there
                        spec.read(message, declared)
            elif spec.type != "Python":
                unknown.setdefault(spec.type, []).append(spec)
            elif is_allowed(spec, (ALWAYS_ALLOWED, *allow_modules)):
                _import_class(spec, allow_modules, failed)
            else:
                strangers.setdefault(_python(spec)[0], []).append(spec)
        except NetError as error:
            for fault in error.faults:  # equal ones differ in the place and the layer's name alone
                faulty.setdefault((spec.type, fault.partition(f"{spec}: ")[2] or fault), []).append((spec, fault))
    yield from _of_types(unknown)
    yield from (_of_module(module, specs) for module, specs in strangers.items())
    for found in faulty.values():
        more = f" (and {len(found) - 1} more layers)" if len(found) > 1 else ""
        yield NetError(found[0][1] + more)


def _of_types(unknown: Mapping[str, Sequence[LayerSpec]]) -> Iterator[NetError]:
    if len(unknown) > MOST_TYPES:
        count = sum(map(len, unknown.values()))
        yield NetError(
            f"{count} layers have types that are not covered: {few(unknown, ROOM)}; `caffe-layers layers NET.prototxt`"
            " lists them all; teach them with caffe_tools.layer_type"
        )
        return
    for name, specs in unknown.items():
        known = [*TYPES, *(key for key in TAUGHT if isinstance(key, str))]
        hint = nearest(name, known) or f"see `caffe-layers layers` for the types that are, {HOW_TO_TEACH}"
        more = f" ({len(specs)} layers have it)" if len(specs) > 1 else ""
        yield specs[0].error(f"layer type {name!r} is not covered{more}: {hint}")


def _of_module(module: str, specs: Sequence[LayerSpec]) -> NetError:
    if not module:
        return specs[0].error(NAMELESS)
    if len(specs) == 1:
        return specs[0].error(f"{'.'.join(_python(specs[0]))}: {not_allowed(module)}")
    classes = list(dict.fromkeys(".".join(_python(spec)) for spec in specs))
    return NetError(f"the Python layer{'s' * (len(classes) > 1)} {few(classes, ROOM)}: {not_allowed(module, '')}")


def _import_class(spec: LayerSpec, allow_modules: Sequence[str], failed: Iterable[str]) -> None:
    module, name = _python(spec)
    if not module or not name:
        raise spec.error(NAMELESS)
    if module in failed:
        return
    try:
        import_layer_class(module, name, allow_modules)
    except NetError as error:
        raise spec.error(str(error)) from error


def _python(spec: LayerSpec) -> tuple[str, str]:
    """The module and class that a Python layer names."""
    p = spec.read("python_param", PYTHON_PARAM)
    return p.module or "", p.layer or ""
