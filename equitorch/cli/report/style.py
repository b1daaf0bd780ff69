"""The look of a report: one style sheet for a light page, a dark page and paper."""

CSS = """
:root { color-scheme: light dark; --page:#f6f7f9; --card:#ffffff; --ink:#16202b; --muted:#5d6b7a;
  --grid:#e6eaee; --edge:#dfe4e9; --s1:#2a6fdb; --s2:#e0662f; --s3:#159a75; --good:#12805c; --bad:#c0362c;
  --wash:#eef4fd; --d1:#cfe0fa; --d2:#a5c6f5; --d3:#79aaee; --d4:#4d8ce4; --d5:#2a6fdb; --d6:#1d52a8;
  --d7:#123672; }
@media (prefers-color-scheme: dark) { :root { --page:#10151b; --card:#182029; --ink:#e8edf2;
  --muted:#93a1b0; --grid:#26303a; --edge:#2a3541; --s1:#6aa5ff; --s2:#ff9463; --s3:#45cfa3;
  --good:#4fd3a2; --bad:#ff7b70; --wash:#1a2940; --d1:#1b3357; --d2:#234678; --d3:#2f5fa3; --d4:#3f7bd0;
  --d5:#6aa5ff; --d6:#9cc4ff; --d7:#d5e6ff; } }
* { box-sizing:border-box }
body { margin:0; background:var(--page); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,Roboto,Arial,sans-serif }
main { max-width:1080px; margin:0 auto; padding:28px 20px 60px }
header { display:grid; grid-template-columns:1fr auto; gap:8px 28px; align-items:center; padding:26px
  30px; border-radius:16px; background:linear-gradient(120deg,var(--wash),var(--card) 70%); border:1px
  solid var(--edge) }
header h1 { margin:0; font-size:29px; letter-spacing:-.02em; line-height:1.2 }
header p { margin:6px 0 0; color:var(--muted) }
header .molecule { width:170px; height:170px; grid-row:span 2 }
.eyebrow { font-size:12px; font-weight:600; letter-spacing:.09em; text-transform:uppercase;
  color:var(--s1); margin:0 0 4px !important }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(128px,1fr)); gap:12px; margin:16px 0 }
.tile { background:var(--card); border:1px solid var(--edge); border-radius:12px; padding:13px 14px }
.tile b { display:block; font-size:20px; white-space:nowrap; font-weight:650; letter-spacing:-.02em;
  line-height:1.25; font-variant-numeric:tabular-nums }
.tile b small { font-size:13px; font-weight:500; color:var(--muted); letter-spacing:0 }
.tile span { color:var(--muted); font-size:13px }
section { background:var(--card); border:1px solid var(--edge); border-radius:14px; padding:20px 26px
  24px; margin:16px 0 }
h2 { font-size:18px; letter-spacing:-.01em; margin:0 0 4px }
h3 { font-size:14px; margin:18px 0 4px }
section > p { color:var(--muted); margin:0 0 12px; max-width:76ch }
.row { display:grid; gap:18px 22px; align-items:start }
.two { grid-template-columns:repeat(auto-fit,minmax(min(400px,100%),1fr)) }
.three { grid-template-columns:repeat(auto-fit,minmax(min(270px,100%),1fr)) }
.four { grid-template-columns:repeat(auto-fit,minmax(min(210px,100%),1fr)) }
.six { grid-template-columns:repeat(auto-fit,minmax(135px,1fr)) }
figure { margin:0 }
figcaption { color:var(--muted); font-size:13px; text-align:center }
svg { display:block; width:100%; height:auto; overflow:visible }
svg text { fill:var(--ink); font-family:inherit }
.title { font-size:13px; font-weight:600 }
.tick,.label,.legend,.note { font-size:11px }
svg .tick,svg .label,svg .legend { fill:var(--muted) }
svg .note { paint-order:stroke; stroke:var(--card); stroke-width:3px }
.grid { stroke:var(--grid); fill:none }
.axis { stroke:var(--muted); fill:none; opacity:.6 }
.line { fill:none; stroke-width:1.8; stroke-linejoin:round }
.line.s1 { stroke:var(--s1) }
.line.s2 { stroke:var(--s2) }
.line.s3 { stroke:var(--s3) }
.line.faint { stroke-width:1; opacity:.4 }
.line.guide { stroke:var(--muted); stroke-width:1; stroke-dasharray:4 3; opacity:.8 }
.dot.s1 { fill:var(--s1); fill-opacity:.6 }
.dot.s2 { fill:var(--s2) }
.dot.best { fill:var(--card); stroke:var(--s1); stroke-width:2; r:4px }
.bar.s1 { fill:var(--s1) }
.d1{fill:var(--d1)}
.d2{fill:var(--d2)}
.d3{fill:var(--d3)}
.d4{fill:var(--d4)}
.d5{fill:var(--d5)}
.d6{fill:var(--d6)}
.d7{fill:var(--d7)}
.bond { stroke-linecap:round }
.scale { height:10px; border-radius:5px; margin:8px auto 2px; max-width:220px }
.scroll { overflow-x:auto }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; font-size:14px }
th { text-align:right; font-weight:600; color:var(--muted); font-size:12.5px; white-space:nowrap }
td { text-align:right; white-space:nowrap }
th,td { padding:6px 10px; border-bottom:1px solid var(--grid) }
th:first-child,td:first-child { text-align:left; padding-left:0 }
tr:last-child td { border-bottom:0 }
.meter { display:inline-block; height:8px; border-radius:4px; background:var(--s1); vertical-align:middle;
  margin-right:8px }
.checks { list-style:none; padding:0; margin:6px 0 0; display:grid; gap:8px }
.checks li { display:grid; grid-template-columns:26px 200px 1fr; gap:4px 8px;
  align-items:baseline }
.ok { color:var(--good); font-weight:700 }
.bad { color:var(--bad); font-weight:700 }
.checks em { font-style:normal; color:var(--muted) }
.missing { border:1px dashed var(--edge); border-radius:10px; padding:12px 16px; color:var(--muted);
  margin:8px 0 }
.missing b { color:var(--ink) }
dl { display:grid; grid-template-columns:max-content 1fr; gap:4px 22px; margin:8px 0 }
dt { color:var(--muted) }
dd { margin:0; overflow-wrap:anywhere }
pre { background:var(--page); border:1px solid var(--edge); border-radius:10px; padding:13px 16px;
  overflow-x:auto; font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace; margin:8px 0 }
footer { color:var(--muted); font-size:13px; text-align:center; margin-top:22px }
details { margin-top:10px }
details summary { cursor:pointer; color:var(--muted) }
@media (max-width:640px) { header { grid-template-columns:1fr } header .molecule { display:none } section
  { padding:16px } .checks li { grid-template-columns:26px 1fr } .checks em { grid-column:2 } }
@media print { body { background:#fff; font-size:12px } main { max-width:none; padding:0 }
  section,header,.tile { break-inside:avoid; border-color:#ccc } details { display:block } }
"""
