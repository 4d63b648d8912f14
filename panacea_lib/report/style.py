"""The report page's style sheet: readable on paper white and in the dark, wide and narrow."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --soft: #5b6670; --ground: #ffffff;
  --panel: #f4f6f8; --line: #d8dee4; --accent: #0b65a3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e8ec; --soft: #9aa6b1; --ground: #15191d; --panel: #1f252b; --line: #343c44;
    --accent: #6db7ec; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .7rem; padding-bottom: .25rem;
  border-bottom: 1px solid var(--line); }
.lead { color: var(--soft); margin-top: 0; }
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
small { color: var(--soft); }
figure { margin: 0 0 1.5rem; }
img { max-width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line);
  border-radius: 6px; }
figcaption, details { color: var(--soft); font-size: .9rem; }
pre { background: var(--panel); padding: .7rem .9rem; border-radius: 6px; overflow-x: auto; }
@media (max-width: 40rem) {
  main { padding: 1rem .8rem 3rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
}
"""
