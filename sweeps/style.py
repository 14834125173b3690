"""The look of a sweep's page: for a laptop, a phone and paper."""

from typing import Final

from .markup import Html

STYLE: Final = Html("""
:root { color-scheme: light; --ink: #222; --soft: #666; --line: #ddd; --mark: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 76rem;
  background: #fff; color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 .7rem; }
p { margin: .5rem 0; max-width: 46rem; overflow-wrap: anywhere; }
small, figcaption, header p { color: var(--soft); font-size: .875rem; }
section { margin-top: 1.5rem; padding-top: 1.2rem; border-top: 1px solid var(--line); }
.winner { border-top: 3px solid var(--mark); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr));
  gap: .7rem 1.5rem; margin: .7rem 0; }
dt { color: var(--soft); font-size: .875rem; overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.numbers dd { font-size: 1.5rem; line-height: 1.3; }
pre { margin: .4rem 0; padding: .6rem .8rem; overflow-x: auto; background: #f5f5f5;
  border-radius: 4px; }
code { font: .85rem/1.5 ui-monospace, monospace; }
.winner pre code { white-space: pre-wrap; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: .7rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; vertical-align: top; }
thead th { color: var(--soft); font-weight: 500; vertical-align: bottom;
  border-bottom: 1px solid #999; min-width: 4.5rem; max-width: 11rem; }
tbody tr { border-bottom: 1px solid #eee; }
tbody th { font-weight: 600; }
tfoot th, tfoot td { border-top: 1px solid #999; font-weight: 600; }
td small { display: inline-block; max-width: 26rem; overflow-wrap: anywhere; }
td:last-child small { min-width: 16rem; }
.failed { color: #b03a00; }
.stopped, .underway { color: var(--soft); }
.flow { display: flex; flex-wrap: wrap; gap: 0 2.5rem; }
figure { margin: .8rem 0 1.4rem; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { max-width: 29rem; margin-top: .3rem; }
summary { cursor: pointer; color: var(--mark); margin: .7rem 0; }
ul { margin: .3rem 0; padding-left: 1.2rem; }
li { overflow-wrap: anywhere; }
@media print { body { max-width: none; padding: 0; } section { break-inside: avoid-page; } }
""")
