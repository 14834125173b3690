"""Asks a service for images: pictures of a class into files, and statistics of a few hundred more.

Start one with `onestep serve`, then `python examples/ask_a_service.py --prompt 3`. It needs
no torch.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onestep.serving.client import Client, ServiceError


def ask(client: Client, prompt: str, *, n: int, out: Path) -> None:
    model = client.models()[0]
    print(f"{model.id} is {model.version}: {model.size}, classes {', '.join(model.labels)}")
    out.mkdir(parents=True, exist_ok=True)
    for image in client.images(prompt, n=4, seed=0, model=model.version):
        path = out / f"{prompt or 'image'}-{image.info['seed']}-{image.info['k']}.png"
        image.save(path)
        print(path)
    total, count = np.zeros(model.shape), 0
    for part in client.stream(prompt or None, n=n, seed=0, model=model.version):
        total += part.images.sum(axis=0, dtype=np.float64)
        count += len(part.images)
    print(f"mean level of {count} images: {total.mean() / count:+.4f}")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key", help="where the service asks for one")
    parser.add_argument("--prompt", default="", help="a class; empty for a model without")
    parser.add_argument("--n", type=int, default=256, help="images of the statistics")
    parser.add_argument("--out", type=Path, default=Path("images"))
    arguments = parser.parse_args(words)
    try:
        with Client(arguments.url, key=arguments.key) as client:
            ask(client, arguments.prompt, n=arguments.n, out=arguments.out)
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
