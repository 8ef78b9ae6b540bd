"""How the status page looks: one sheet, light and dark, from a phone to a wall."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--fg:#1b1f24;--dim:#5b6570;--bg:#f6f7f8;--card:#fff;--line:#dfe3e7;--ok:#1a7f4b;
--bad:#b3261e;--wait:#8a6100;--draw:#2563a8;--shade:#b3261e26}
@media(prefers-color-scheme:dark){:root{--fg:#e6e9ec;--dim:#98a2ad;--bg:#101316;--card:#191d21;--line:#2d343b;
--ok:#4cc38a;--bad:#ff7b72;--wait:#e0b341;--draw:#6cb2ff;--shade:#ff7b722e}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1rem 1rem 2rem;background:var(--bg);color:var(--fg);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header{display:flex;flex-wrap:wrap;gap:.1rem .9rem;align-items:baseline;margin-bottom:.75rem}
h1{font-size:1.1rem;margin:0;overflow-wrap:anywhere}h2{font-size:.95rem;margin:0 0 .5rem}
p{margin:.25rem 0}
.dim,header,footer,figcaption{color:var(--dim)}h1{color:var(--fg)}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.9rem 1rem;min-width:0}
.grid{display:grid;gap:.75rem;grid-template-columns:minmax(0,1fr)}
.verdict{font-size:1.7rem;line-height:1.2;font-weight:650;margin:0 0 .15rem}
.ok{color:var(--ok)}.bad{color:var(--bad)}.wait{color:var(--wait)}
.alert{border-left:4px solid var(--bad)}.alert ul{margin:0;padding-left:1.1rem}
.alert li{overflow-wrap:anywhere}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.93rem}
th,td{text-align:left;padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}th:last-child,td:last-child{padding-right:0}
th{font-weight:500;color:var(--dim)}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
code{font:.92em/1.45 ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:break-word}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.25rem .9rem;margin:0;font-size:.93rem}
dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}
details{font-size:.93rem;margin-top:.35rem}summary{cursor:pointer}.none{padding-left:.95rem;font-size:.93rem}
details p{overflow-wrap:anywhere}
a{color:inherit}footer{margin-top:1rem}footer a{margin-right:.9rem;display:inline-block;padding:.2rem 0}
.bar{display:block;width:100%;min-width:3.5rem;height:.4rem;margin-top:.35rem;border-radius:.2rem}
.rail{fill:var(--line)}.fill{fill:var(--draw)}rect.ok{fill:var(--ok)}rect.bad{fill:var(--bad)}.mark{fill:var(--fg)}
.plot{margin:1rem 0 .25rem}
.frame{position:relative;height:12rem;margin-left:2.1rem}
.frame svg{width:100%;height:100%;display:block;overflow:visible}
.y{position:absolute;right:100%;margin-right:.45rem;transform:translateY(50%);font-size:.8rem;line-height:1;
color:var(--dim);font-variant-numeric:tabular-nums}
.one{color:var(--bad);font-weight:600}
.x{display:flex;justify-content:space-between;margin:.3rem 0 0 2.1rem;font-size:.8rem;color:var(--dim)}
.empty{position:absolute;inset:auto 0 .8rem;color:var(--dim);text-align:center}
.line,.threshold,.plot .grid{fill:none;vector-effect:non-scaling-stroke}
.plot .grid{stroke:var(--line);stroke-width:1}
.line{stroke:url(#level);stroke-width:1.75;stroke-linecap:round;stroke-linejoin:round}
.threshold{stroke:var(--bad);stroke-width:1;stroke-dasharray:5 4}
.area{fill:var(--draw);opacity:.13}.shade{fill:var(--shade)}
.over{stop-color:var(--bad)}.under{stop-color:var(--draw)}
.narrow{max-width:36rem}.episodes td:nth-child(2),.episodes td:nth-child(3){white-space:nowrap}
@media(min-width:46rem){.grid{grid-template-columns:repeat(2,minmax(0,1fr))}.card{grid-column:span 2}
.third{grid-column:span 1}.last{grid-column:span 2}}
@media(min-width:70rem){.grid{grid-template-columns:repeat(12,minmax(0,1fr))}.card{grid-column:span 12}
.two-thirds{grid-column:span 8;grid-row:span 2}.third,.last{grid-column:span 4}}
@media(max-width:30rem){body{padding:.75rem .6rem 2rem}.card{padding:.75rem}
table{font-size:.87rem}.frame{height:9.5rem}
.why tr{display:grid;grid-template-columns:1fr 1fr 1fr;border-bottom:1px solid var(--line);padding:.3rem 0}
.episodes thead{display:none}.episodes tr{display:grid;grid-template-columns:1fr auto auto;gap:0 .7rem}
.episodes td{border:0;padding:.15rem 0}.episodes td:last-child{grid-column:1/-1}
.why td,.why th{border:0;padding:.1rem 0}
.why td:first-child{grid-column:1/-1}.why th:first-child{display:none}}
"""
