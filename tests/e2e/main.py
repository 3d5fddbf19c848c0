"""Runs the scenarios, or those that are named, against both services; says what each showed."""

import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import scenarios
from environment import Environment


def main() -> int:
    wanted = [scenario for scenario in scenarios.ALL if not sys.argv[1:] or scenario.__name__ in sys.argv[1:]]
    if not wanted:
        names = ", ".join(scenario.__name__ for scenario in scenarios.ALL)
        print(f"there is no scenario {' '.join(sys.argv[1:])}; there are {names}", file=sys.stderr)
        return 2
    # An end that leaves nothing running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = []
    with tempfile.TemporaryDirectory(prefix="usher-e2e-") as directory, Environment(Path(directory)) as environment:
        for scenario in wanted:
            start = time.monotonic()
            try:
                shown = scenario(environment)
            except Exception:  # whatever it is: the scenario failed, and the others go on
                traceback.print_exc()
                failed.append(scenario.__name__)
                shown = scenario.__doc__
            verdict = "FAILED" if scenario.__name__ in failed else "ok"
            print(f"{scenario.__name__} ... {verdict} ({time.monotonic() - start:.1f} s) {shown}", flush=True)
        if failed:
            for service in (environment.account, environment.notify):
                print(f"\nthe end of {service.name}'s log:\n{service.end_of_log()}", file=sys.stderr)
    print(f"\nend to end: {len(wanted) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
