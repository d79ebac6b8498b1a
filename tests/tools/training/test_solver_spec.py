"""Solvers as text: fields, defaults, old forms, nets and their states, and what is refused."""

from __future__ import annotations

import pytest

from caffe_tools import prototxt
from caffe_tools.errors import NetError, SolverError
from caffe_tools.training.solver_spec import SolverSpec, read_solver
from caffe_tools.training.update import check_update
from solver_nets import FIXED, NET, solver_of


def error_of(text, net=NET):
    with pytest.raises(SolverError) as raised:
        check_update(solver_of(text, net))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def spec_of(text, path="solver.prototxt"):
    return SolverSpec(prototxt.parse(text, str(path)), path)


def test_fields_that_are_not_given_have_caffes_defaults():
    solver = solver_of()
    assert (solver.type, solver.momentum, solver.weight_decay, solver.regularization_type) == ("SGD", 0, 0, "L2")
    assert (solver.iter_size, solver.average_loss, solver.clip_gradients, solver.random_seed) == (1, 1, -1, -1)
    assert (solver.display, solver.snapshot, solver.snapshot_after_train) == (0, 0, True)
    assert solver.test_initialization
    assert solver.tests == []


def test_numbers_are_those_that_protobuf_stores_in_single_precision():
    assert solver_of("momentum: 0.9").momentum == 0.8999999761581421
    assert solver_of().rms_decay == 0.9900000095367432
    assert solver_of().delta == 9.99999993922529e-09


@pytest.mark.parametrize(
    ("old", "name"),
    [
        ("SGD", "SGD"),
        ("NESTEROV", "Nesterov"),
        ("ADAGRAD", "AdaGrad"),
        ("RMSPROP", "RMSProp"),
        ("ADADELTA", "AdaDelta"),
        ("5", "Adam"),
    ],
)
def test_the_old_solver_type_names_the_same_solvers(old, name):
    assert solver_of(f"solver_type: {old}").type == name


def test_type_and_the_old_solver_type_together_are_refused():
    assert "give type alone" in error_of('type: "SGD" solver_type: SGD')


def test_fields_of_the_ssd_fork_are_known():
    assert solver_of('ap_version: "11point" eval_type: "classification"').type == "SGD"


def test_how_tests_are_evaluated_does_not_matter_where_there_are_none():
    assert solver_of('ap_version: "11point" eval_type: "detection"').tests == []


def test_a_misspelt_field_is_an_error_that_says_what_was_meant():
    with pytest.raises(NetError, match="solver.prototxt:1:1: .* has no field 'base_lrr': did you mean 'base_lr'"):
        solver_of('base_lrr: 1 base_lr: 1 lr_policy: "fixed"')


# Nets


def test_a_net_file_is_looked_for_from_the_working_directory_and_then_beside_the_solver(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "net.prototxt").write_text(NET)
    (there / "solver.prototxt").write_text(f'net: "net.prototxt" {FIXED}')
    monkeypatch.chdir(here)
    assert read_solver(there / "solver.prototxt").train.net.resolve() == here / "net.prototxt"
    (here / "net.prototxt").unlink()
    assert read_solver(there / "solver.prototxt").train.net.resolve() == there / "net.prototxt"


def test_a_net_file_that_is_not_there_is_an_error_that_names_both_folders(tmp_path):
    with pytest.raises(SolverError, match="net 'gone.prototxt' is no file .looked for in .* and "):
        spec_of(f'net: "gone.prototxt" {FIXED}', tmp_path / "solver.prototxt")


@pytest.mark.parametrize("count", [0, 2])
def test_there_must_be_one_net_to_train(count):
    with pytest.raises(SolverError, match="give one of net, net_param, train_net, train_net_param"):
        spec_of(FIXED + f"net_param {{ {NET} }} train_net_param {{ {NET} }}" * (count // 2))


def test_test_nets_come_in_caffes_order_with_a_test_iter_each(tmp_path):
    (tmp_path / "net.prototxt").write_text('name: "file"' + NET)
    text = (
        f'net: "net.prototxt" test_net_param {{ name: "inline" {NET} }} test_net: "net.prototxt"'
        " test_iter: 1 test_iter: 2 test_iter: 3 test_iter: 4 test_interval: 5 "
    )
    sources = spec_of(text + FIXED, tmp_path / "solver.prototxt").tests
    assert [getattr(source.net, "name", "inline") for source in sources] == ["inline"] + 3 * ["net.prototxt"]
    assert {source.phase for source in sources} == {"TEST"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"net_param {{ {NET} }} test_net_param {{ {NET} }} test_interval: 1 ", "test_iter is given 0 times for 1 "),
        (f"train_net_param {{ {NET} }} test_iter: 1 test_interval: 1 ", "test_iter is given 1 times for 0 test nets"),
        (f"net_param {{ {NET} }} test_iter: 1 ", "test_interval is 0"),
        (f"net_param {{ {NET} }} test_iter: 0 test_interval: 1 ", "test_iter is 0"),
        (f"net_param {{ {NET} }} test_iter: 1 test_interval: 1 test_state {{ }} test_state {{ }} ", "given 2 times"),
    ],
)
def test_tests_that_do_not_fit_their_nets_are_refused(text, said):
    with pytest.raises(SolverError, match=said):
        spec_of(text + FIXED)


def test_the_solvers_state_counts_over_the_nets_own_and_that_over_the_phase():
    net = f"state {{ level: 3 stage: 'own' }} {NET}"
    plain = solver_of("test_iter: 1 test_interval: 1", net)
    assert (plain.train.phase, plain.train.level, plain.tests[0].phase) == ("TRAIN", 3, "TEST")
    text = "train_state { level: 0 stage: 'a' stage: 'b' } test_iter: 1 test_interval: 1 test_state { phase: TRAIN }"
    given = solver_of(text, net)
    assert (given.train.level, given.train.stages) == (0, ("a", "b"))
    assert (given.tests[0].phase, given.tests[0].level) == ("TRAIN", 3)


# Where snapshots go


def test_without_a_prefix_snapshots_go_beside_the_solver_under_its_name(tmp_path):
    text = f"net_param {{ {NET} }} {FIXED}"
    assert spec_of(text, tmp_path / "lenet_solver.prototxt").snapshot_prefix == str(tmp_path / "lenet_solver")


def test_a_prefix_that_is_a_folder_gets_the_solvers_name(tmp_path):
    text = f'net_param {{ {NET} }} {FIXED} snapshot_prefix: "{tmp_path}"'
    assert spec_of(text, "deep/lenet_solver.prototxt").snapshot_prefix == str(tmp_path / "lenet_solver")


# What is refused


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('type: "Adagrad"', "unknown solver type 'Adagrad': there are SGD, Nesterov, AdaGrad"),
        ('lr_policy: "plateau" base_lr: 1', "unknown lr_policy 'plateau': there are fixed, step, exp"),
        ("base_lr: 1 #lr_policy\n", "it has no lr_policy"),
        ('lr_policy: "fixed"', "it has no base_lr"),
        ('base_lr: 1 lr_policy: "step" gamma: 0.1', "needs a stepsize of 1 or more"),
        ('base_lr: 1 lr_policy: "exp" gamma: -1', "gamma is -1"),
        ('base_lr: 1 lr_policy: "poly" power: 1', "max_iter is 0: lr_policy 'poly' needs a max_iter of 1 or more"),
        ("average_loss: 0", "average_loss is 0: give 1 or more"),
        ("iter_size: 0", "iter_size is 0"),
        ("max_iter: -1", "max_iter is -1"),
        ('regularization_type: "L3"', "neither L1 nor L2"),
        ('type: "AdaGrad" momentum: 0.9', "AdaGrad has no momentum"),
        ('type: "RMSProp" momentum: 0.9', "RMSProp has no momentum"),
        ('type: "RMSProp" rms_decay: 1', "rms_decay is 1"),
        ('type: "Adam" momentum: 1', "momentum is 1"),
        ("snapshot_format: HDF5", "give snapshot_format: BINARYPROTO"),
        ('eval_type: "detection" test_iter: 1 test_interval: 1', "eval_type 'detection' is not covered"),
    ],
)
def test_what_caffe_or_we_cannot_run_is_refused_with_its_place(text, said):
    found = error_of(text)
    assert found.startswith("solver.prototxt") and said in found


def test_a_net_is_no_solver(tmp_path):
    (tmp_path / "net.prototxt").write_text('layer { name: "x" type: "Input" top: "x" }', encoding="utf-8")
    with pytest.raises(SolverError, match=r"net.prototxt is a net \(it has layers\), not a solver"):
        read_solver(tmp_path / "net.prototxt")
