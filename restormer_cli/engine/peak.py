"""The peak memory of a stretch of work, measured."""

import re
import sys
from contextlib import suppress
from pathlib import Path


class Peak:
    """`start()`, work, `bytes()`: what the process (on a GPU: its tensors there) needed at the most meanwhile."""

    def __init__(self, device: str) -> None:
        self.cuda = device if device.startswith("cuda") else None

    def start(self) -> None:
        """Forget earlier peaks, where the system lets us."""
        if self.cuda:
            import torch

            torch.cuda.reset_peak_memory_stats(self.cuda)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM; see proc(5)

    def bytes(self) -> int | None:
        """Since `start`; since the process began where the system cannot forget; None where it does not say."""
        if self.cuda:
            import torch

            return torch.cuda.max_memory_allocated(self.cuda)
        with suppress(OSError):
            found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
            if found:
                return int(found[1]) * 1024
        with suppress(ImportError):
            import resource

            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return None
