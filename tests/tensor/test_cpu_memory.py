"""`flambeau.cpu`: what the allocator says of tensors."""

from __future__ import annotations

import flambeau as torch


def test_statistics_follow_tensors():
    before = torch.cpu.memory_allocated()
    torch.cpu.reset_peak_memory_stats()
    x = torch.empty(1 << 20)
    assert torch.cpu.memory_allocated() - before == 4 << 20
    del x
    assert torch.cpu.memory_allocated() == before
    assert torch.cpu.max_memory_allocated() - before >= 4 << 20
    assert torch.cpu.memory_reserved() >= torch.cpu.memory_allocated()
    torch.cpu.empty_cache()
    assert torch.cpu.memory_stats()["inactive_split_bytes.all.current"] == 0
    assert "MiB" in torch.cpu.memory_summary()


def test_the_cpu_is_one_device():
    assert torch.cpu.is_available() and torch.cpu.device_count() == 1
    with torch.cpu.stream(torch.cpu.current_stream()):
        torch.cpu.synchronize()
