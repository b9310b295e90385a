"""Flambeau: PyTorch, rebuilt in Python, with every kernel generated at run time as LLVM IR.

    import flambeau as torch

This file is a table of names: where each lives. A name is imported when it is first used.
"""

from __future__ import annotations

import importlib
import sys
from types import FunctionType, ModuleType
from typing import Any

__version__ = "0.1.0"

_DTYPES = {
    "uint8": "uint8", "int8": "int8", "int16": "int16", "short": "int16", "int32": "int32",
    "int": "int32", "int64": "int64", "long": "int64", "float16": "float16", "half": "float16",
    "bfloat16": "bfloat16", "float32": "float32", "float": "float32", "float64": "float64",
    "double": "float64", "complex64": "complex64", "cfloat": "complex64",
    "complex128": "complex128", "complex32": "complex32", "chalf": "complex32",
    "cdouble": "complex128", "bool": "bool_", "uint16": "uint16",
    "uint32": "uint32", "uint64": "uint64",
}
_STORED_DTYPES = (
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    "float4_e2m1fn_x2", "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2",
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in range(1, 8)),
    "qint8", "quint8", "qint32", "quint4x2", "quint2x4")

_HOMES = {
    "core.dtypes": ("finfo", "iinfo", "promote_types"),
    "core.shapes": ("Size",),
    "tensor": ("Tensor",),
    "tensor.creation": (
        "as_tensor", "asarray", "scalar_tensor", "empty", "zeros", "ones", "full",
        "empty_like", "zeros_like", "ones_like", "full_like", "empty_strided", "arange", "linspace",
        "logspace", "eye", "tril_indices", "triu_indices", "frombuffer", "empty_permuted"),
    "tensor.formats": (
        "strided", "jagged", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc",
        "contiguous_format", "legacy_contiguous_format", "preserve_format", "channels_last",
        "channels_last_3d"),
    "tensor.storages": ("UntypedStorage", "from_file"),
    "tensor.typed_storages": (
        "TypedStorage", "is_storage", "BFloat16Storage", "BoolStorage", "ByteStorage",
        "CharStorage", "ComplexDoubleStorage", "ComplexFloatStorage", "DoubleStorage",
        "FloatStorage", "HalfStorage", "IntStorage", "LongStorage", "ShortStorage", "QInt8Storage",
        "QInt32Storage", "QUInt8Storage", "QUInt4x2Storage", "QUInt2x4Storage"),
    "tensor.sparse.construct": (
        "sparse_coo_tensor", "sparse_csr_tensor", "sparse_csc_tensor", "sparse_bsr_tensor",
        "sparse_bsc_tensor", "sparse_compressed_tensor"),
    "tensor.sparse.methods": (
        "smm", "hspmm", "sspaddmm", "is_same_size", "indices_copy", "values_copy",
        "crow_indices_copy", "col_indices_copy", "ccol_indices_copy", "row_indices_copy"),
    "tensor.quantized.construct": (
        "_empty_affine_quantized", "_empty_per_channel_affine_quantized",
        "_make_per_channel_quantized_tensor", "_make_per_tensor_quantized_tensor", "dequantize",
        "empty_quantized", "fused_moving_avg_obs_fake_quant", "int_repr", "q_per_channel_axis",
        "q_per_channel_scales", "q_per_channel_zero_points", "q_scale", "q_zero_point",
        "quantize_per_channel", "quantize_per_tensor", "quantize_per_tensor_dynamic",
        "quantized_batch_norm", "quantized_max_pool1d", "quantized_max_pool2d",
        "quantized_max_pool3d"),
    "core.qschemes": (
        "per_channel_affine", "per_channel_affine_float_qparams", "per_channel_symmetric",
        "per_tensor_affine", "per_tensor_symmetric"),
    "tensor.legacy": (
        "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor",
        "HalfTensor", "IntTensor", "LongTensor", "ShortTensor"),
    "tensor.interop": ("from_numpy", "from_dlpack"),
    "tensor.random": (
        "manual_seed", "seed", "initial_seed", "get_rng_state", "set_rng_state", "rand", "randn",
        "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "normal",
        "dropout", "multinomial", "poisson", "binomial", "thread_safe_generator"),
    "tensor.overloads": (
        "batch_norm", "native_batch_norm",
        "std", "var", "std_mean", "var_mean", "reshape", "flatten", "where", "allclose", "equal",
        "is_tensor", "numel", "atleast_1d", "atleast_2d", "broadcast_tensors",
        "result_type", "can_cast", "meshgrid", "tensor_split", "tile", "ravel",
        "is_floating_point", "is_complex", "is_nonzero", "clone"),
    "tensor.norms": ("norm",),
    "tensor.spectrograms": ("stft", "istft"),
    "tensor.windows": (
        "bartlett_window", "blackman_window", "hamming_window", "hann_window", "kaiser_window"),
    "tensor.gamma": ("_dirichlet_grad", "_sample_dirichlet", "_standard_gamma",
                     "_standard_gamma_grad"),
    "tensor.linalg_legacy": (
        "cholesky", "det", "inverse", "lu", "lu_solve", "matrix_exp", "matrix_power", "pinverse",
        "qr", "slogdet", "svd", "triangular_solve"),
    "tensor.linalg_systems": ("cholesky_inverse", "cholesky_solve", "lu_unpack"),
    "tensor.linalg_spectral": ("geqrf", "logdet", "orgqr", "ormqr"),
    "tensor.vandermonde": ("vander",),
    "tensor.low_rank": ("lobpcg", "pca_lowrank", "svd_lowrank"),
    "tensor.shaping": (
        "positive", "atleast_3d", "hsplit", "vsplit", "dsplit", "split_with_sizes", "unsafe_chunk",
        "unsafe_split", "unsafe_split_with_sizes", "as_strided", "as_strided_copy",
        "as_strided_scatter", "view_copy", "view_as_real_copy", "view_as_complex_copy",
        "split_with_sizes_copy", "split_copy", "unbind_copy", "swapaxes",
        "detach_copy", "block_diag", "cartesian_prod", "combinations", "einsum", "chain_matmul",
        "repeat_interleave", "gradient", "unravel_index", "broadcast_shapes", "constant_pad_nd",
        "rot90"),
    "tensor.complex_numbers": (
        "real", "imag", "conj", "conj_physical", "resolve_conj", "resolve_neg", "is_conj", "is_neg",
        "adjoint"),
    "tensor.sorting": (
        "median", "nanmedian", "quantile", "nanquantile", "unique", "unique_consecutive"),
    "tensor.histograms": ("bincount", "histc", "histogram", "histogramdd"),
    "tensor.compress": ("nonzero", "argwhere", "masked_select"),
    "tensor.indexing": ("index_put", "index_put_"),
    "tensor.settings": (
        "get_default_dtype", "set_default_dtype", "set_num_threads", "get_num_threads",
        "get_num_interop_threads", "set_num_interop_threads",
        "are_deterministic_algorithms_enabled", "use_deterministic_algorithms",
        "get_default_device", "set_default_device",
        "set_float32_matmul_precision", "get_float32_matmul_precision",
        "is_deterministic_algorithms_warn_only_enabled", "set_deterministic_debug_mode",
        "get_deterministic_debug_mode", "set_warn_always", "is_warn_always_enabled",
        "set_flush_denormal", "init_num_threads", "set_default_tensor_type", "get_device_module",
        "typename"),
    "tensor.symbols": (
        "SymBool", "SymFloat", "SymInt", "cond", "sym_float", "sym_int", "sym_ite", "sym_max",
        "sym_min", "sym_not", "sym_sum"),
    "tensor.elements": ("hash_tensor", "to_dlpack", "is_inference"),
    "amp.autocast_mode": (
        "autocast", "autocast_decrement_nesting", "autocast_increment_nesting",
        "clear_autocast_cache", "get_autocast_cpu_dtype", "get_autocast_dtype",
        "get_autocast_gpu_dtype", "is_autocast_cache_enabled", "is_autocast_cpu_enabled",
        "is_autocast_enabled", "set_autocast_cache_enabled", "set_autocast_cpu_dtype",
        "set_autocast_cpu_enabled", "set_autocast_dtype", "set_autocast_enabled",
        "set_autocast_gpu_dtype"),
    "tensor.display": ("set_printoptions",),
    "runtime.generator": ("Generator", "default_generator"),
    "runtime.memory": ("OutOfMemoryError",),
    "autograd.grad_mode": (
        "no_grad", "enable_grad", "set_grad_enabled", "inference_mode", "is_grad_enabled",
        "is_inference_mode_enabled"),
    "autograd.anomaly": ("is_anomaly_check_nan_enabled", "is_anomaly_enabled",
                         "set_anomaly_enabled"),
    "func.batches": ("vmap",),
    "nn._native": (
        "alpha_dropout", "alpha_dropout_", "binary_cross_entropy_with_logits",
        "cosine_embedding_loss", "ctc_loss", "dropout_", "embedding", "embedding_bag",
        "feature_alpha_dropout", "feature_alpha_dropout_", "feature_dropout", "feature_dropout_",
        "frobenius_norm", "get_device", "hinge_embedding_loss", "instance_norm", "is_signed",
        "kl_div", "margin_ranking_loss", "native_dropout", "poisson_nll_loss", "rrelu", "rrelu_",
        "triplet_margin_loss", "zero_", "detach_", "resize_as_", "adaptive_max_pool1d",
        "max_pool1d_with_indices", "norm_except_dim"),
    "nn._private": ("_assert", "_log_softmax", "_log_softmax_backward_data", "_shape_as_tensor",
                    "_softmax", "_softmax_backward_data"),
    "nn._recurrent": (
        "gru", "gru_cell", "lstm", "lstm_cell", "rnn_relu", "rnn_relu_cell", "rnn_tanh",
        "rnn_tanh_cell"),
    "amp.grad_scaler": ("GradScaler",),
    "core.errors": ("AcceleratorError",),
    "futures": ("fork", "wait"),
    "library.tags": ("Tag",),
    "library.schema": ("parse_schema",),
    "library.script": (
        "AggregationType", "AVG", "SUM", "ScriptClass", "ScriptFunction", "compiled_with_cxx11_abi",
        "import_ir_module", "import_ir_module_from_buffer", "merge_type_from_type_comment",
        "parse_ir", "parse_type_comment", "unify_type_list"),
    "serialization": ("save", "load", "checkpoint", "resume"),
    "accelerator": ("AcceleratorError", "Event", "Stream"),
}

_RENAMED = {
    "Storage": ("tensor.typed_storages", "FloatStorage"),
    "device": ("core.device", "Device"), "dtype": ("core.dtypes", "DType"),
    "memory_format": ("tensor.formats", "MemoryFormat"), "layout": ("tensor.formats", "Layout"),
    "qscheme": ("core.qschemes", "QScheme"),
    "bit": ("core.dtypes", "uint1"),
    "range": ("tensor.creation", "range_"), "max": ("tensor.overloads", "max_"),
    "min": ("tensor.overloads", "min_"), "complex": ("tensor.complex_numbers", "complex_"),
}

_CONSTANTS = {"pi": 3.141592653589793, "e": 2.718281828459045, "inf": float("inf"),
              "nan": float("nan"), "newaxis": None, "has_lapack": True, "has_mkl": False,
              "has_openmp": False, "has_spectral": True}

_PACKAGES = ("amp", "autograd", "compiler", "export", "func", "masked", "nn", "optim", "utils",
             "serialization", "testing", "linalg", "fft", "signal", "special", "random", "cpu",
             "cuda", "accelerator", "backends", "types", "overrides", "library", "distributions",
             "_C", "futures", "return_types", "sparse", "storage",
             "nested", "multiprocessing", "profiler", "hub", "distributed")

_TABLE = {name: (home, name) for home, names in _HOMES.items() for name in names}
_TABLE |= {name: ("core.dtypes", attribute) for name, attribute in _DTYPES.items()}
_TABLE |= {name: ("core.dtypes", name) for name in _STORED_DTYPES}
_TABLE |= _RENAMED

__all__ = sorted({"__version__", "tensor", "compile", "ops", *_CONSTANTS,
                  *(name for name in _TABLE if name[0] != "_")} - {"newaxis"})


def __getattr__(name: str) -> Any:
    if name in _CONSTANTS:
        return _CONSTANTS[name]
    if name in _TABLE:
        home, attribute = _TABLE[name]
        value = getattr(importlib.import_module(f"{__name__}.{home}"), attribute)
        if home.startswith("tensor.") and isinstance(value, FunctionType):
            value = importlib.import_module(f"{__name__}.tensor.overriding").door(value)
        globals()[name] = value
        return value
    if name in _PACKAGES:
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    elif not name.startswith("__"):
        found = _op(name)
        if found is not None:
            globals()[name] = found
            return found
    raise AttributeError(f"module 'flambeau' has no attribute {name!r}: not implemented yet, or no "
                         "such name in PyTorch")


def _op(name: str) -> Any:
    """An op of the op table by its public name or alias, its in-place form, or that over lists."""
    if name.startswith("_foreach_"):
        return importlib.import_module(f"{__name__}.tensor.foreach").lookup(name)
    public = importlib.import_module(f"{__name__}.tensor.public")
    return public.lookup("torch", name)


class _Table(ModuleType):
    """`tensor`, `compile` and `ops` name a folder and what users know: users get theirs.

    Importing the folder does not put the module in its place.
    """

    @property
    def tensor(self) -> Any:
        return importlib.import_module("flambeau.tensor.creation").tensor

    @tensor.setter
    def tensor(self, module: ModuleType) -> None:
        pass

    @property
    def compile(self) -> Any:
        return importlib.import_module("flambeau.compile").compile

    @compile.setter
    def compile(self, module: ModuleType) -> None:
        pass

    @property
    def ops(self) -> Any:
        """Operators by namespace; the folder `ops` holds the table."""
        return importlib.import_module("flambeau.library.operators").ops

    @ops.setter
    def ops(self, module: ModuleType) -> None:
        pass


sys.modules[__name__].__class__ = _Table


def __dir__() -> list[str]:
    public = importlib.import_module(f"{__name__}.tensor.public")
    return sorted({*globals(), *_TABLE, *_CONSTANTS, *_PACKAGES, *public.names("torch")})
