"""Loading: names, keys, missing symbols, LLVM's errors, threads."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import signal
import sys
import threading

import kernels
import pytest

from flambeau.compiler import llvm, target
from flambeau.runtime import loader, object_cache


def constant(value: int, name: str = "answer", extra: str = "") -> str:
    return f"define i64 @{name}() nounwind {{\n  ret i64 {value}\n}}\n{extra}"


def call(address: int) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64)(address)()


def test_two_modules_may_define_the_same_name():
    one = loader.load_kernel("answer", constant(1))
    two = loader.load_kernel("answer", constant(2))
    assert one != two
    assert (call(one), call(two)) == (1, 2)
    assert loader.load_kernel("answer", constant(1)) == one


def test_names_within_a_module():
    """Prefixes, dots, internal and external functions, globals: each refers to its own."""
    found = loader.load_module("""
@f = global i64 10
@f.g = internal global i64 20
@shared = private constant i64 30
declare i64 @labs(i64)
define internal i64 @f1() {
  ret i64 1
}
define i64 @f2() nounwind {
  %a = call i64 @f1()
  %b = load i64, ptr @f
  %c = load i64, ptr @f.g
  %d = load i64, ptr @shared
  %e = call i64 @labs(i64 -100)
  %s1 = add i64 %a, %b
  %s2 = add i64 %s1, %c
  %s3 = add i64 %s2, %d
  %s4 = add i64 %s3, %e
  ret i64 %s4
}
define i64 @f20() {
  %a = call i64 @f2()
  %b = mul i64 %a, 2
  ret i64 %b
}
""")
    assert sorted(found) == ["f", "f2", "f20"]
    assert call(found["f2"]) == 161
    assert call(found["f20"]) == 322
    assert ctypes.c_int64.from_address(found["f"]).value == 10


def test_a_missing_name():
    with pytest.raises(ValueError, match="no function 'question', only"):
        loader.load_kernel("question", constant(3))


def test_a_missing_symbol_is_an_error_not_the_end():
    text = "declare void @no_such_thing()\n" + """
define void @k() nounwind {
  call void @no_such_thing()
  ret void
}"""
    with pytest.raises(llvm.LLVMError, match="needs no_such_thing"):
        loader.load_module(text)


def test_provided_symbols():
    @ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
    def twice(value: int) -> int:
        return 2 * value

    loader.provide("flambeau_test_twice", ctypes.cast(twice, ctypes.c_void_p).value)
    address = loader.load_kernel("k", """
declare i64 @flambeau_test_twice(i64)
define i64 @k() {
  %r = call i64 @flambeau_test_twice(i64 21)
  ret i64 %r
}""")
    assert call(address) == 42


def test_the_key_is_everything_that_matters():
    here = target.host()
    keys = {loader.cache_key(text, machine) for text in (constant(1), constant(2)) for machine in (
        here, dataclasses.replace(here, features=here.features + ",-avx"),
        dataclasses.replace(here, cpu="generic"), dataclasses.replace(here, triple="x-y-z"))}
    assert len(keys) == 8


def test_stored_modules_come_all_or_not_at_all(tmp_path, monkeypatch):
    cache = object_cache.ObjectCache(tmp_path / "cache")
    monkeypatch.setattr(object_cache, "_default", cache)
    texts = [constant(value, extra="; stored") for value in (7, 8)]
    loader.load_all(texts, 1)
    kept = loader.stored(map(loader.digest_of, texts))
    assert loader.load_stored(kept)
    monkeypatch.setattr(loader, "_modules", {})
    cache.discard(kept[1].key)
    assert cache.holds(kept[0].key)
    assert not loader.load_stored(kept)
    assert not loader._modules


def test_code_for_a_narrower_machine():
    narrow = target.Target(target.host().triple, "generic", "", 128, 16)
    addresses = {loader.load_kernel("answer", constant(6), machine)
                 for machine in (None, narrow, None, narrow)}
    assert len(addresses) == 2
    assert {call(address) for address in addresses} == {6}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_fork_while_another_thread_compiles():
    """The child can compile: locks are not left with a thread that it lacks."""
    ended = threading.Event()

    def work() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            llvm.compile_object(constant(number), target.host())

    worker = threading.Thread(target=work)
    worker.start()
    codes = []
    for i in range(6):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(10)
                found = call(loader.load_kernel("answer", constant(5000 + i)))
                code = 0 if found == 5000 + i else 2
            finally:
                os._exit(code)
        codes.append(os.waitpid(child, 0)[1])
    ended.set()
    worker.join()
    assert codes == [0] * 6


def test_many_python_threads_load():
    failures = []

    def work(seed: int) -> None:
        for i in range(20):
            address = loader.load_kernel("answer", constant(1000 + i, extra="; threads"))
            if call(address) != 1000 + i:
                failures.append((seed, i))

    kernels.in_threads(work)
    assert not failures


def test_loading_stays_fast():
    """A thousand objects in the one engine."""
    import time

    engine, here = loader._engine(), target.host()
    objects = [llvm.compile_object(constant(i, f"bulk{i}"), here) for i in range(300)]
    start = time.perf_counter()
    for i, data in enumerate(objects):
        assert call(engine.add(data, {"x": f"bulk{i}"})["x"]) == i
    assert (time.perf_counter() - start) / len(objects) < 0.005


def test_importing_flambeau_imports_no_llvm():
    found = kernels.python("""
import sys, flambeau
from flambeau.core import config
from flambeau.compiler import llvm, target, soft_float
from flambeau.runtime import loader, launch, memory, native, object_cache, pool
pool.get_num_threads(), pool.set_num_threads(2), memory.memory_stats()
config.settings(), object_cache.default_cache()
assert "llvmlite" not in sys.modules
""")
    assert found.returncode == 0, found.stderr


def test_parse_errors_quote_the_lines():
    with pytest.raises(llvm.LLVMError) as caught:
        llvm.compile_object("define void @k() {\n  %a = add i32 1, 2.0\n  ret void\n}\n",
                            target.host())
    text = str(caught.value)
    assert "line 2" in text
    assert ">     2 |   %a = add i32 1, 2.0" in text
    assert text.splitlines()[3].index("^") == text.splitlines()[2].index("2.0")


def test_the_verifier_runs():
    with pytest.raises(llvm.LLVMError) as caught:
        llvm.compile_object("""
define i32 @k(i1 %c) {
  br i1 %c, label %a, label %b
a:
  %x = add i32 1, 2
  br label %b
b:
  %y = add i32 %x, 1
  ret i32 %y
}""", target.host())
    assert "dominate" in str(caught.value)
    assert "%x = add i32 1, 2" in str(caught.value)


def test_assembly_and_other_targets():
    text = """
define void @k(ptr %a) nounwind {
  %slot = alloca double
  %x = load double, ptr %a
  store double %x, ptr %slot
  %y = load double, ptr %slot
  %z = fmul double %y, %y
  store double %z, ptr %a
  ret void
}"""
    assert "mul" in llvm.emit_assembly(text, target.host())
    assert "alloca" not in llvm.optimised_ir(text, target.host())
    arm = target.Target("aarch64-unknown-linux-gnu", "generic", "+neon", 128, 32)
    assert "fmul\td0" in llvm.emit_assembly(text, arm)
    assert llvm.compile_object(text, arm, jit=False)[:4] == b"\x7fELF"
    wasm = target.Target("wasm32-unknown-unknown", "generic", "+simd128", 128, 16)
    assert llvm.compile_object(text, wasm, jit=False)[:4] == b"\0asm"
    with pytest.raises(llvm.LLVMError, match="nonsense"):
        llvm.emit_assembly(text, target.Target("nonsense-x-y", "", "", 128, 16))


def test_undefined_symbols():
    text = """
declare void @usleep(i32)
declare float @llvm.fabs.f32(float)
@away = external global i64
define void @k(ptr %a) {
  call void @usleep(i32 1)
  %x = load i64, ptr @away
  store i64 %x, ptr %a
  ret void
}"""
    data = llvm.compile_object(text, target.host())
    if sys.platform == "linux":
        assert sorted(loader.undefined_symbols(data)) == ["away", "usleep"]
