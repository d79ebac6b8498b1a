"""Data layer: batches of the arrays of an .npz file, so that examples need no LMDB."""

from __future__ import annotations

import os
import zipfile

import numpy as np

from caffe_layers.layer import LayerError, ParameterError, PluginLayer, naming
from caffe_layers.params import BOOLEAN, INTEGER_FROM_0, INTEGER_FROM_1, TEXT, TEXTS, Parameter, or_null


class NpzDataLayer(PluginLayer):
    """Batches of the arrays of an ``.npz``, which share their first dim, the samples: one top per array.

    The tops are the file's arrays in their order, or those of ``keys`` in that order. Batches follow each other and
    wrap around at the end; with ``shuffle`` each epoch has an order of its own. Arrays become float32. Pickled arrays
    are refused. On export the tops become inputs of the graph.

    ``get_state()`` says where in the data it is and ``set_state(state)`` goes on there, which a training run uses to be
    resumed.
    """

    parameters = (
        Parameter("source", TEXT, None, "the .npz file, relative to the working directory; required"),
        Parameter("batch_size", INTEGER_FROM_1, None, "samples per batch; required"),
        Parameter("shuffle", BOOLEAN, False, "whether each epoch has its own order"),
        Parameter("seed", INTEGER_FROM_0, 0, "gives the orders"),
        Parameter("keys", or_null(TEXTS), None, "the arrays that the tops have, in order; null: all of the file"),
    )

    def setup(self, bottom, top):
        self.tops = tuple(f"array {index}" for index in range(len(top)))
        super().setup(bottom, top)
        with naming(type(self).__name__):
            for name in ("source", "batch_size"):
                if self.params[name] is None:
                    raise ParameterError(f"parameter '{name}' is required")
            arrays = _read(self.params["source"], self.params["keys"])
            _check(arrays, self.params, len(top))
        self._arrays = [np.ascontiguousarray(array, np.float32) for array in arrays.values()]
        self._random = np.random.RandomState(self.params["seed"] % 2**32)
        self._order = self._new_order()
        self._at = 0

    def reshape(self, bottom, top):
        # Caffe's vector of tops has indices, but cannot be iterated.
        for index, array in enumerate(self._arrays):
            top[index].reshape(self.params["batch_size"], *array.shape[1:])

    def forward(self, bottom, top):
        samples = self._next_samples()
        for index, array in enumerate(self._arrays):
            np.take(array, samples, axis=0, out=top[index].data)

    def backward(self, top, propagate_down, bottom):
        """Nothing to do: a data layer has no bottoms."""

    def get_state(self):
        """Where in the data the layer is, as arrays: what a run must keep to be resumed with the same batches."""
        _, key, position, has_gauss, gauss = self._random.get_state()
        return {
            "at": np.array(self._at),
            "order": self._order,
            "random_key": key,
            "random_rest": np.array([position, has_gauss, gauss], np.float64),
        }

    def set_state(self, state):
        """Continue where ``get_state`` was called. Raises LayerError where it was called on other data."""
        if len(state["order"]) != len(self._order):
            raise LayerError(
                f"the state is that of {len(state['order'])} samples, but '{self.params['source']}' has"
                f" {len(self._order)}: it is other data"
            )
        position, has_gauss, gauss = state["random_rest"]
        self._random.set_state(("MT19937", state["random_key"], int(position), int(has_gauss), gauss))
        self._at, self._order = int(state["at"]), np.array(state["order"])

    def _next_samples(self):
        wanted, samples = self.params["batch_size"], []
        while wanted:
            part = self._order[self._at : self._at + wanted]
            samples.append(part)
            wanted -= len(part)
            self._at += len(part)
            if self._at == len(self._order):
                self._at, self._order = 0, self._new_order()
        return np.concatenate(samples)

    def _new_order(self):
        number = len(self._arrays[0])
        return self._random.permutation(number) if self.params["shuffle"] else np.arange(number)


def _read(source, keys):
    """The arrays by name, in order. Raises LayerError."""
    if not os.path.isfile(source):
        raise LayerError(f"source '{source}' is no file (looked for in {os.getcwd()})")
    try:
        with open(source, "rb") as file:
            if file.read(2) not in (b"PK", b"\x93N"):
                raise LayerError(f"source '{source}' is no .npz (a text file?)")
        loaded = np.load(source, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise LayerError(f"source '{source}' holds a single array (.npy), not an .npz archive")
        with loaded as archive:
            missing = [key for key in keys or () if key not in archive.files]
            if missing:
                raise ParameterError(f"keys: source '{source}' has no array '{missing[0]}', only {archive.files}")
            return {key: archive[key] for key in keys or archive.files}
    except LayerError:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        reason = str(error).partition(" when allow_pickle")[0]
        raise LayerError(f"source '{source}' is no .npz of plain arrays: {reason}") from None


def _check(arrays, params, top_count):
    source = params["source"]
    if len(arrays) != top_count:
        raise ParameterError(
            f"there are {top_count} tops for the {len(arrays)} arrays {list(arrays)} of '{source}';"
            " each needs one (keys chooses among the arrays)"
        )
    for key, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise LayerError(f"array '{key}' of '{source}' has the dtype {array.dtype}, which is no number")
        if array.ndim == 0:
            raise LayerError(f"array '{key}' of '{source}' is a single number: its first dim must be the samples")
    numbers = {key: len(array) for key, array in arrays.items()}
    if len(set(numbers.values())) > 1:
        raise LayerError(f"the arrays of '{source}' must have the same first dim, the samples, but have {numbers}")
    if 0 in numbers.values():
        raise LayerError(f"the arrays of '{source}' hold no sample")
