"""The report page's style sheet: readable on paper white and in the dark, wide and narrow."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --soft: #5b6670; --ground: #ffffff;
  --panel: #f4f6f8; --line: #d8dee4; --accent: #0b65a3; --grey: #b4bdc6;
  --good: #11734b; --bad: #a5411b; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e8ec; --soft: #9aa6b1; --ground: #15191d; --panel: #1f252b; --line: #343c44;
    --accent: #6db7ec; --grey: #66717c; --good: #5cc596; --bad: #ee9a75; }
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .7rem; padding-bottom: .25rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.3rem 0 .4rem; }
h4 { font-size: .8rem; font-weight: 600; color: var(--soft); margin: 0; }
.lead { color: var(--soft); margin-top: 0; }
.headline { background: var(--panel); border-radius: 8px; padding: .8rem 1rem; }
.headline b { font-size: 1.5rem; color: var(--accent); margin-right: .15rem; }
.note { border-left: 3px solid var(--accent); padding-left: .8rem; color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; min-width: 100%; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number, td.name { white-space: nowrap; }
.words { min-width: 14rem; overflow-wrap: anywhere; white-space: pre-wrap; }
small, .small { color: var(--soft); font-size: .85em; }
figure { margin: 0 0 1.5rem; }
img { max-width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line);
  border-radius: 6px; }
figcaption, details { color: var(--soft); font-size: .9rem; }
details { margin-top: .6rem; }
summary { cursor: pointer; }
pre { background: var(--panel); padding: .7rem .9rem; border-radius: 6px; overflow-x: auto; }
ul { padding-left: 1.2rem; }
.verdicts { list-style: none; padding: 0; }
.verdicts li { border-left: 3px solid var(--grey); padding: .1rem 0 .1rem .7rem; margin: .35rem 0; }
.verdicts .better { border-color: var(--good); }
.verdicts .worse { border-color: var(--bad); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }

.controls { display: grid; grid-template-columns: minmax(9rem, 14rem) 1fr; gap: .8rem 1.5rem;
  background: var(--panel); border-radius: 8px; padding: .9rem 1rem; align-items: start; }
.ranges.several { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr));
  gap: .2rem 1.5rem; }
.field label { display: block; font-size: .85rem; color: var(--soft); overflow-wrap: anywhere; }
.field input, .field select { width: 100%; margin: .3rem 0 0; accent-color: var(--accent); }
.field select { font: inherit; padding: .2rem .3rem; color: var(--ink); background: var(--ground);
  border: 1px solid var(--line); border-radius: 5px; }
.ends { display: flex; justify-content: space-between; margin: 0;
  font-size: .8rem; color: var(--soft); }
.asked { margin: .8rem 0 0; color: var(--soft); font-size: .9rem; }
.nearest { margin: 0 0 .8rem; font-weight: 600; }
.result { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1.08fr); gap: 1.5rem; }
.result figure { margin: 0; }
.figures table { font-size: .85rem; }
.figures th, .figures td { padding: .35rem .4rem; }
.figures .name { overflow-wrap: anywhere; min-width: 7.8rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font-size: 12px; }
svg .tick { fill: var(--soft); font-size: 11px; }
svg path, svg polyline { fill: none; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .optimum { stroke: var(--grey); stroke-width: 6; stroke-linejoin: round; }
svg path.optimum { stroke-width: 4; }
svg .chosen { stroke: var(--accent); stroke-width: 1.5; }
svg .point, svg .bar { fill: var(--accent); }
svg .bar { opacity: .75; }
svg .reference { stroke: var(--ink); stroke-width: 2.5; }
svg .interval { stroke: var(--ink); stroke-width: 1.5; }
svg circle.here { fill: none; stroke: var(--ink); stroke-width: 2.5; }
.key { display: inline-block; width: 1.1rem; height: .3rem; margin: 0 .35rem .2rem .8rem;
  vertical-align: middle; background: var(--accent); }
.key:first-child { margin-left: 0; }
.key.optimum { background: var(--grey); height: .45rem; }
.key.reference { background: none; width: auto; height: auto; color: var(--ink); }
.key.reference::before { content: "\\2715"; font-weight: 700; }
.answers { list-style: none; padding: 0; display: grid; gap: .8rem; }
.answers li { border: 1px solid var(--line); border-radius: 8px; padding: .6rem .9rem; }
.answers .prompt { margin: 0 0 .4rem; font-weight: 600; }
.answers .prompt, .answer { white-space: pre-wrap; overflow-wrap: anywhere; }
.answer { margin: 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .4rem 1.5rem; }
@media (max-width: 46rem) {
  main { padding: 1rem .8rem 3rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
  .controls, .result, .pair { grid-template-columns: minmax(0, 1fr); }
}
"""
