"""The page of what serving costs and survives, made from the stored results alone."""

import json
from collections.abc import Mapping
from typing import Any, Final

from onestep.benchmarks.misses import Misses, misses_of
from onestep.benchmarks.record import DOCS, RESULTS
from onestep.platform.evaluation.table import markdown_row

PAGE: Final = DOCS / "serving_speed.md"
NAMES: Final = ("serving", "serving_faults", "serving_fuzz", "serving_soak")
NOT_RUN: Final = "not run"
EXPLAINED: Final[dict[str, dict[str, str]]] = {}
HEAD: Final = """# What serving costs and survives

Written by `python benchmarks/serving_page.py` from benchmarks/results/serving*.json.

One replica of one thread (`serve=throughput`) holds a U-Net of 1.07 million parameters at 28x28,
and its forwards run in a process of their own (`serve.apart`) that keeps to one core (`serve.pin`),
as LitServe's do; a request asks for one image.
[serving.py](../benchmarks/serving.py) lets one server run at a time, all in each of {rounds}
rounds of {seconds:g} s a cell, and takes medians. The load generator, wrk, shares the two cores
with what it measures, as does other work on this machine (load {before} before, {after} after).
LitServe and BentoML hold the same engine; BentoML's batches are lists in JSON, so its files travel
as base64, all others as they are. The engine alone made {full} images/s in full batches of {rows}
with their npy files ({low} to {high}), and one image in {ms} ms.

It ran right before and right after each server had most clients. Of its images per second, these
make, in the median of the rounds:
"""
SERVER: Final = ("server", "file", "clients", "images/s", "range", "p50 ms", "p99 ms")


def stored() -> dict[str, Any]:
    """The results that there are, by name."""
    files = {name: RESULTS / f"{name}.json" for name in NAMES}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def misses(found: Mapping[str, Any]) -> Misses:
    """Bars that are missed, with what is known of why."""

    def missed(result: Mapping[str, Any]) -> list[str]:
        return [bar["number"] for bar in result["bars"] if not bar["reached"]]

    return misses_of(found, missed, EXPLAINED)


def page(found: Mapping[str, Any]) -> str:
    """The page.

    Args:
        found: The results, by name.
    """
    speed = found["serving"]
    rows = max(speed["engine"], key=int)
    full, one = speed["engine"][rows], speed["engine"]["1"]
    head = HEAD.format(
        rounds=speed["rounds"],
        seconds=speed["seconds"],
        before=speed["machine"]["load_before"],
        after=speed["load_after"],
        full=full["per_second"],
        rows=rows,
        low=full["range"][0],
        high=full["range"][1],
        ms=one["ms"],
    )
    shares = [
        f"- {server}: {share['median']:.0%} ({share['range'][0]:.0%} to {share['range'][1]:.0%})"
        for server, share in speed["of_the_engine"].items()
    ]
    lines = [head, *shares, "", markdown_row(SERVER), markdown_row(["---", "---", *["--:"] * 5])]
    for server, cells in speed["servers"].items():
        for cell, numbers in cells.items():
            form, clients = cell.split()
            low, high = numbers["range"]
            told = (numbers["per_second"], f"{low} to {high}", numbers["p50_ms"], numbers["p99_ms"])
            lines.append(markdown_row([server, form, clients, *map(str, told)]))
    lines += ["", *_faults(found), "", "## Bars", "", *_bars(found), ""]
    return "\n".join(lines)


def _faults(found: Mapping[str, Any]) -> list[str]:
    faults = found["serving_faults"]
    over, flip = faults["overload"], faults["flip"]
    first, again = faults["replica_killed"], faults["replica_killed_retried"]
    ingress, restart = faults["ingress_killed"], faults["restart"]
    fuzz = found["serving_fuzz"]
    return [
        "## Faults",
        "",
        f"- An alias moves under load: {flip['failed']} of {flip['requests']} requests fail; the "
        f"first answer of the new version comes after {flip['first_new_s']} s.",
        f"- One of two replicas is killed: {first['failed']} of {first['requests']} fail without "
        f"asking again, {again['failed']} of {again['requests']} with.",
        f"- The ingress is killed: nothing for {ingress['longest_gap_s']} s, and "
        f"{ingress['failed']} of {ingress['requests']} fail where clients ask again.",
        f"- All processes are restarted one after the other, by a file with another setting: "
        f"{restart['failed']} of {restart['requests']} fail, and nobody waits longer than "
        f"{restart['longest_gap_s']} s for the next image.",
        f"- {over['clients']} clients ask for {over['offered_per_second']}/s of a service that can "
        f"do {over['capacity_per_second']}/s, for {over['seconds']:g} s: it makes "
        f"{over['goodput_per_second']}/s, refuses in {over['refused_p50_ms']} ms (p99 "
        f"{over['refused_p99_ms']} ms, of {over['refused_probes']} that were watched) and recovers "
        f"in {over['recovered_s']} s.",
        f"- {fuzz['by_hand']} hostile requests and {fuzz['by_schema']} of schemathesis: "
        f"{fuzz['faults']} failures, hangs or words about the server.",
        f"- Few clients ask for long while the alias moves every ten seconds: {_soak(found)}.",
    ]


def _soak(found: Mapping[str, Any]) -> str:
    if (soak := found.get("serving_soak")) is None:
        return NOT_RUN
    return (
        f"in {soak['minutes']:g} minutes {soak['failed']} of {soak['requests']} fail, and the "
        f"memory of all processes grows by {soak['growth']:.1%}"
    )


def _bars(found: Mapping[str, Any]) -> list[str]:
    whys = misses(found)
    lines = [markdown_row(["benchmark", "number", "value", "bar", "why not"])]
    lines.append(markdown_row(["---", "---", "--:", "--:", "---"]))
    for name, result in found.items():
        for bar in result["bars"]:
            why = "" if bar["reached"] else whys[name][bar["number"]]
            cells = [name, bar["number"], f"{bar['value']:g}", bar["bar"], why]
            lines.append(markdown_row(cells))
    lines += [markdown_row([name, "", NOT_RUN, "", ""]) for name in NAMES if name not in found]
    return lines


if __name__ == "__main__":
    PAGE.write_text(page(stored()))
