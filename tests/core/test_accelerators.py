"""torch.cuda, torch.accelerator, torch.backends, torch.nn.attention without an accelerator."""

from __future__ import annotations

import pytest

import flambeau as torch


def test_questions_are_answered():
    assert not torch.cuda.is_available()
    assert not torch.accelerator.is_available()
    assert torch.accelerator.current_accelerator() is None
    assert torch.cuda.device_count() == torch.accelerator.device_count() == 0
    assert torch.cuda.memory_allocated() == torch.cuda.max_memory_reserved("cuda:0") == 0
    assert not torch.cuda.is_bf16_supported()
    assert torch.cuda.get_rng_state_all() == []
    assert torch.cuda.memory_stats() == {}
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_rng_state_all([])
    torch.cuda.manual_seed_all(3)


@pytest.mark.parametrize("call", [
    lambda: torch.cuda.synchronize(), lambda: torch.cuda.Stream(), lambda: torch.cuda.Event(),
    lambda: torch.cuda.get_rng_state(), lambda: torch.cuda.set_rng_state_all([1]),
    lambda: torch.cuda.mem_get_info(), lambda: torch.cuda.device(0).__enter__()])
def test_what_needs_a_gpu_says_so(call):
    with pytest.raises((AssertionError, RuntimeError), match="not compiled with CUDA"):
        call()


@pytest.mark.parametrize("name", [
    "synchronize", "current_device_index", "memory_allocated", "empty_cache", "memory_stats"])
def test_what_needs_an_accelerator_says_so(name):
    with pytest.raises(RuntimeError, match="none is available"):
        getattr(torch.accelerator, name)()


def test_the_queue_of_the_cpu_is_always_done():
    stream, event = torch.Stream(), torch.Event("cpu")
    assert stream.query()
    assert event.query()
    stream.synchronize()
    stream.wait_event(event)
    with stream as entered:
        assert entered is stream
    assert "device_type=cpu" in repr(stream)
    for call in (stream.record_event, event.record, lambda: stream.wait_stream(stream)):
        with pytest.raises(RuntimeError, match="doesn't support events"):
            call()
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.Stream("cuda")
    assert issubclass(torch.AcceleratorError, RuntimeError)


def test_contexts_without_a_device_do_nothing():
    with torch.cuda.device(None), torch.cuda.device(-1), torch.cuda.stream(None), \
            torch.cuda.device_of(torch.ones(1)), torch.accelerator.device_index(None):
        assert float(torch.ones(2).sum()) == 2
    with pytest.raises(RuntimeError), torch.accelerator.device_index(0):
        pass


def test_choices_of_attention_are_kept_and_have_no_effect():
    q = torch.randn(1, 2, 4, 8)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, q, q)
    backends = torch.backends.cuda
    with torch.nn.attention.sdpa_kernel([torch.nn.attention.SDPBackend.MATH]), \
            backends.sdp_kernel(enable_flash=False):
        assert not backends.flash_sdp_enabled()
        assert backends.math_sdp_enabled()
        assert torch.equal(torch.nn.functional.scaled_dot_product_attention(q, q, q), wanted)
    assert backends.flash_sdp_enabled()
    backends.enable_math_sdp(False)
    assert not backends.math_sdp_enabled()
    backends.enable_math_sdp(True)
    with pytest.raises(TypeError, match="SDPBackend"), torch.nn.attention.sdpa_kernel("math"):
        pass
