"""`ablate`: which design is better, trained and judged alike, with how sure that is.

OUT/plan.json                what was measured before training: prices, and lengths where time is equal
OUT/ARM/seed-N/              a run folder of `train` each, with scores.ARM.json beside its weights
OUT/result.json              the answer from the seeds that are complete, written after each
"""

from collections.abc import Iterator

from restormer_cli.commands.ablate.types import Request, Started


def preview(request: Request) -> Started:
    """Return the plan of an ablation without running it. Raises UserError."""
    from restormer_cli.commands.ablate.plan import start

    return start(request)


def ablate(request: Request) -> Iterator[object]:
    """Yields Started, then Phases, Prices, Lengths, Steps, Tolds and Scoreds as they come, then Finished.

    Under a launcher every process goes along, and only the first one yields. Raises UserError before any work where
    the request is wrong, KeyboardInterrupt after a stop that was asked for and went well.
    """
    from restormer_cli.commands.ablate.plan import start

    started = start(request)

    # After the checks.
    from restormer_cli.commands.ablate.ablation import Ablation
    from restormer_cli.training.signals import stop_requests

    with stop_requests() as stop:
        ablation = Ablation(started, request, stop)
        for event in ablation.run():
            if ablation.main:
                yield event
