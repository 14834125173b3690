"""Early stopping on recorded trials: python benchmarks/recorded_sweep.py.

python benchmarks/recorded_sweep.py --record curricula     train what its record lacks
python benchmarks/recorded_sweep.py --record sizes --at-once 2
"""

import argparse

from onestep.benchmarks.sweep_record import RECORDED, record


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", choices=RECORDED, required=True, help="train what it lacks")
    parser.add_argument("--at-once", type=int, default=1, help="processes that train")
    arguments = parser.parse_args()
    record(arguments.record, arguments.at_once)


if __name__ == "__main__":
    main()
