"""Which test of ours stands for which test of MXNet 1.9.1.

For each of MXNet's test files, and for Scala's ModuleSuite: upstream test to the tests
here that pin the same behavior down, as paths below `tests` and names. What is not
there yet says what it waits for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Later:
    """No test yet.

    Attributes:
        needs: What the library must learn first.
    """

    needs: str


Ours = tuple[str, ...] | Later

IMAGES = Later("reading and augmenting images")

_BIND = "asyncmod/module/test_bind.py::"
_BUCKETS = "asyncmod/module/test_bucketing.py::"
_DTYPES = "asyncmod/module/test_dtypes.py::"
_FIT = "asyncmod/module/test_fit.py::"
_GROUPS = "asyncmod/module/test_context_groups.py::"
_MODULE = "asyncmod/module/test_upstream_module.py::"
_OPTIMIZER = "asyncmod/optimizer/test_optimizer.py::"
_OPTIMIZERS = "asyncmod/optimizer/test_all_optimizers.py::"
_PARAMETERS = "asyncmod/module/test_parameters.py::"
_QUIRKS = "asyncmod/optimizer/test_quirks.py::"
_SETUP = "asyncmod/module/test_optimizer_setup.py::"
_SPARSE = "asyncmod/module/test_upstream_sparse.py::"
_SPARSE_GOLDEN = "asyncmod/module/test_golden_sparse.py::"
_SPARSE_UPDATES = "asyncmod/optimizer/test_row_sparse_updates.py::"
_STATES = "asyncmod/module/test_state_inputs.py::"
_CSV = "asyncmod/io/test_csv_iter.py::"
_LIBSVM = "asyncmod/io/test_libsvm_iter.py::"
_MNIST = "asyncmod/io/test_mnist_iter.py::"
_ROWS = "asyncmod/io/test_ndarray_iter.py::"
_ITERATORS = "asyncmod/io/test_upstream_iterators.py::"
_GOLDEN_IO = "asyncmod/io/test_golden_iterators.py::test_same_batches_as_mxnet"
_METRIC = "asyncmod/metric/test_metric.py::"
_METRICS = "asyncmod/metric/test_upstream_metrics.py::"
_GOLDEN_METRICS = "asyncmod/metric/test_golden_metrics.py::test_same_values_as_mxnet"
_INIT = "asyncmod/initializer/test_upstream_init.py::"
_GOLDEN_INIT = "asyncmod/initializer/test_golden_initializers.py::"
_MONITOR = "asyncmod/test_monitor.py::test_upstream_test_monitor"

TEST_MODULE: dict[str, Ours] = {
    "test_module_dtype": (_DTYPES + "test_upstream_test_module_dtype",),
    "test_module_bind": (
        "asyncmod/module/test_bad_input.py::test_data_shapes_that_cannot_be",
    ),
    "test_module_input_grads": (_BIND + "test_input_gradients_come_in_bound_order",),
    "test_module_ctx_group": (_GROUPS + "test_gradients_are_those_without_groups",),
    "test_bucket_module_ctx_group": (
        _GROUPS + "test_buckets_in_groups_are_those_without",
    ),
    "test_module_layout": (_BIND + "test_layout_says_where_the_batch_is",),
    "test_save_load": (_PARAMETERS + "test_checkpoint_with_optimizer_states",),
    "test_bucketing_save_load": (_BUCKETS + "test_checkpoint_round_trip",),
    "test_module_reshape": (_BIND + "test_reshape_as_in_mxnet",),
    "test_module_states": (_STATES + "test_upstream_test_module_states",),
    "test_module_switch_bucket": (
        _BUCKETS + "test_automatic_names_start_anew_in_each_bucket",
        _BUCKETS + "test_report_tells_the_bytes_of_each_bucket",
    ),
    "test_module_set_params": (_PARAMETERS + "test_missing_and_extra_parameters",),
    "test_monitor": (_MONITOR,),
    "test_executor_group": (
        _MODULE + "test_shared_modules_have_one_memory_and_equal_requests",
        _BIND + "test_a_shared_module_has_one_set_of_parameters",
    ),
    "test_executor_group (sparse embedding)": (
        _SPARSE + "test_shared_modules_share_a_sparse_embedding",
        _SPARSE_GOLDEN + "test_embedding",
    ),
    "test_factorization_machine_module": (
        _SPARSE + "test_a_factorization_machine_learns_in_a_manual_loop",
        _SPARSE_GOLDEN + "test_factorization_machine",
    ),
    "test_module_initializer": (
        _SPARSE + "test_a_row_sparse_parameter_starts_as_its_variable_says",
    ),
    "test_forward_reshape": (_BIND + "test_forward_with_changing_shapes",),
    "test_forward_types": (_MODULE + "test_forward_takes_any_object_with_data",),
    "test_reference_single_batch_during_fit": (
        _FIT + "test_arrays_may_be_reused_for_the_next_batch",
    ),
    "test_bucket_module_grad_req": (
        _BUCKETS + "test_requests_are_carried_to_other_buckets",
    ),
    "test_module_update_no_pragram": (_SETUP + "test_a_module_without_parameters",),
    "test_module_init_optimizer": (_SETUP + "test_names_by_index",),
}

TEST_IO: dict[str, Ours] = {
    "test_MNISTIter": (
        _MNIST + "test_images_and_labels",
        _MNIST + "test_the_order_is_drawn_once",
    ),
    "test_Cifar10Rec": IMAGES,
    "test_inter_methods_in_augmenter": IMAGES,
    "test_image_iter_exception": IMAGES,
    "test_NDArrayIter": (
        _ITERATORS + "test_batches_of_128_of_1000_rows",
        _ITERATORS + "test_roll_over_begins_with_what_pad_ends_with",
        _ITERATORS + "test_ten_rows_fill_a_batch_of_205",
        _GOLDEN_IO,
    ),
    "test_NDArrayIter_h5py": (_ROWS + "test_arrays_of_others",),
    "test_NDArrayIter_csr": (_SPARSE + "test_batches_of_a_csr_matrix",),
    "test_LibSVMIter": (
        _LIBSVM + "test_data_and_labels_wrap_around",
        _LIBSVM + "test_parts_take_every_row_once",
        _LIBSVM + "test_a_file_that_holds_something_else",
        _GOLDEN_IO,
    ),
    "test_DataBatch": (_ITERATORS + "test_a_batch_as_text",),
    "test_CSVIter": (_CSV + "test_values_and_dtypes",),
    "test_ImageRecordIter_seed_augmentation": IMAGES,
}

TEST_METRIC: dict[str, Ours] = {
    "test_metrics": (
        _METRIC + "test_create",
        _METRIC + "test_created_again_from_its_config",
    ),
    "test_global_metric": (_METRICS + "test_a_local_reset_keeps_the_global_value",),
    "test_nll_loss": (_GOLDEN_METRICS,),
    "test_acc": (_GOLDEN_METRICS,),
    "test_acc_2d_label": (_METRICS + "test_labels_of_two_axes_are_flattened",),
    "test_loss_update": (_METRICS + "test_loss_takes_a_list_or_one_array",),
    "test_f1": (
        _METRIC + "test_nan_before_any_update_and_after_a_reset",
        _METRICS + "test_micro_pools_and_macro_averages",
        _GOLDEN_METRICS,
    ),
    "test_mcc": (_METRICS + "test_micro_pools_and_macro_averages", _GOLDEN_METRICS),
    "test_perplexity": (
        _METRIC + "test_perplexity_along_another_axis",
        _GOLDEN_METRICS,
    ),
    "test_pearsonr": (
        _METRIC + "test_moments_joined_in_pieces_are_those_of_the_whole",
        _GOLDEN_METRICS,
    ),
    "test_pcc": (
        _METRIC + "test_binary_pcc_is_mcc",
        _METRICS + "test_pcc_depends_on_neither_order_nor_batches",
    ),
    "test_single_array_input": (_METRICS + "test_one_array_in_place_of_lists",),
}

# One test of ours takes every optimizer through a grid of settings, against formulas
# written in NumPy; a second one repeats what MXNet computed.
_FORMULAS = _OPTIMIZERS + "test_updates_follow_the_formula"
_RECORDED = (
    "asyncmod/module/test_golden_training.py::test_training_follows_the_recorded_one"
)
_HALVES = _OPTIMIZERS + "test_multi_precision_is_the_update_in_float32"

TEST_OPTIMIZER: dict[str, Ours] = {
    "test_learning_rate": (_OPTIMIZER + "test_learning_rate_beside_a_scheduler",),
    "test_learning_rate_expect_user_warning": (
        _OPTIMIZER + "test_learning_rate_beside_a_scheduler",
    ),
    "test_lr_wd_mult": (
        _OPTIMIZER + "test_which_multiplier_wins",
        _OPTIMIZER + "test_weight_decay_is_for_weights_and_gammas_only",
    ),
    "test_sgd": (
        _FORMULAS,
        _HALVES,
        _RECORDED,
        _OPTIMIZER + "test_sgd_follows_the_formula",
    ),
    "test_sparse_sgd": (
        _SPARSE_UPDATES + "test_five_updates",
        _SPARSE_UPDATES + "test_lazily_other_rows_are_left_alone",
        "conformance/test_sparse.py::test_updates",
    ),
    "test_std_sparse_sgd": (
        _SPARSE_UPDATES + "test_five_updates",
        _SPARSE_UPDATES + "test_lazily_other_rows_are_left_alone",
    ),
    "test_nag": (_FORMULAS, _HALVES, _RECORDED),
    "test_lamb": (_FORMULAS, _HALVES, _RECORDED),
    "test_multilamb": (_FORMULAS, _RECORDED),
    "test_sgld": (
        _QUIRKS + "test_sgld_is_half_a_step_and_noise",
        _QUIRKS + "test_sgld_adds_noise_of_the_right_size",
    ),
    "test_ftml": (_FORMULAS, _RECORDED),
    "test_adam": (_FORMULAS, _RECORDED),
    "test_adam (lazy_update)": (_SPARSE_UPDATES + "test_five_updates",),
    "test_adamax": (_FORMULAS, _RECORDED),
    "test_signum": (_FORMULAS, _RECORDED),
    "test_rms": (_FORMULAS, _RECORDED),
    "test_ftrl": (_FORMULAS, _RECORDED),
    "test_nadam": (
        _FORMULAS,
        _RECORDED,
        _QUIRKS + "test_nadam_shares_one_schedule_between_parameters",
    ),
    "test_adagrad": (_FORMULAS, _RECORDED),
    "test_adadelta": (_FORMULAS, _RECORDED),
    "test_factor_scheduler, multifactor, poly, cosine": (
        "asyncmod/optimizer/test_schedulers.py::test_same_rates_as_mxnet",
    ),
}

TEST_INIT: dict[str, Ours] = {
    "test_default_init": (_INIT + "test_the_slope_of_prelu_starts_at_a_quarter",),
    "test_variable_init": (
        _INIT + "test_a_variable_s_own_initializer_beats_the_default",
        _PARAMETERS + "test_variable_init_beats_the_default",
    ),
    "test_aux_init": (_INIT + "test_running_statistics_start_at_zero_and_one",),
    "test_rsp_const_init": (
        _SPARSE + "test_a_row_sparse_parameter_starts_as_its_variable_says",
    ),
    "test_bilinear_init": (
        _INIT + "test_bilinear_weights_of_four_by_four",
        _GOLDEN_INIT + "test_exact_values",
    ),
    "test_const_init_dumps": (_GOLDEN_INIT + "test_dumps",),
}

SCALA_MODULE_SUITE: dict[str, Ours] = {
    "predict": (_MODULE + "test_predict_merges_three_outputs_of_one_and_two_batches",),
    "model dtype": (_DTYPES + "test_upstream_test_module_dtype",),
    # Scala gives them in argument order, Python (and we) in the order of the data.
    "module input_grads": (_BIND + "test_input_gradients_come_in_bound_order",),
    "module layout": (_BIND + "test_layout_says_where_the_batch_is",),
    "save load": (_PARAMETERS + "test_checkpoint_with_optimizer_states",),
    "module reshape": (
        _BIND + "test_reshape_as_in_mxnet",
        _MODULE + "test_reshape_and_back_to_the_original_shape",
    ),
    "module setParams": (_PARAMETERS + "test_missing_and_extra_parameters",),
    "monitor": (_MONITOR,),
    "forward reshape": (_BIND + "test_forward_with_changing_shapes",),
}

INVENTORY: dict[str, dict[str, Ours]] = {
    "tests/python/unittest/test_module.py": TEST_MODULE,
    "tests/python/unittest/test_io.py": TEST_IO,
    "tests/python/unittest/test_metric.py": TEST_METRIC,
    "tests/python/unittest/test_optimizer.py": TEST_OPTIMIZER,
    "tests/python/unittest/test_init.py": TEST_INIT,
    "scala-package ModuleSuite": SCALA_MODULE_SUITE,
}
