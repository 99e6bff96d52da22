"""The styles of a report, for light and dark."""

from __future__ import annotations

# Text on its ground has a contrast of at least 4.5 in both themes (WCAG 2.2, AA); a test computes it.
_LIGHT = """--ground:#fff;--panel:#f5f6f8;--text:#1d2126;--muted:#57606a;--rule:#d5dae0;--accent:#0b5fc0;\
--good:#14692b;--warn:#7d5200;--bad:#b3202a;--left:#7a828c"""
_DARK = """--ground:#101317;--panel:#191d23;--text:#e4e8ec;--muted:#a0a8b2;--rule:#343b44;--accent:#6cb0ff;\
--good:#5dc470;--warn:#dca73f;--bad:#ff8a80;--left:#7f8893"""

PAGE = f"""
:root{{color-scheme:light dark;{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
@media print{{:root{{{_LIGHT}}}.tall{{max-height:none!important}}}}
*{{box-sizing:border-box}}
body{{margin:0 auto;max-width:1280px;padding:24px clamp(14px,3vw,40px) 48px;background:var(--ground);
color:var(--text);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}}
h1,h2,h3,h4,p,dl,dd,figure,ul,ol{{margin:0;padding:0}}
h1{{font-size:1.7rem;line-height:1.25;margin-bottom:4px}}
h2{{font-size:1.35rem;line-height:1.3}}
h3{{font-size:1.05rem;margin:30px 0 8px}}
h4{{font-size:.95rem;font-weight:600}}
.kicker{{color:var(--muted);font-size:.85rem}}
code,.path{{overflow-wrap:anywhere}}
code{{font:.88em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}}
.muted{{color:var(--muted);font-size:.88rem}}
a{{color:var(--accent)}}
main>section{{margin-top:36px;padding-top:24px;border-top:1px solid var(--rule)}}
main>section:first-child{{margin-top:20px;padding-top:0;border-top:0}}
footer{{margin-top:48px;padding-top:12px;border-top:1px solid var(--rule);color:var(--muted);font-size:.85rem}}
.facts{{display:flex;flex-wrap:wrap;gap:1px;margin-top:14px;
background:var(--rule);border:1px solid var(--rule);border-radius:8px;overflow:hidden}}
.facts>div{{flex:1 1 150px;background:var(--panel);padding:10px 14px}}
.facts dt{{color:var(--muted);font-size:.82rem}}
.facts strong{{font-size:1.15rem;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}}
.facts .muted{{font-size:.82rem;line-height:1.4;overflow-wrap:anywhere}}
figure{{margin-top:10px}}
.plot{{padding:6px 26px 6px 72px}}
.canvas{{display:block;width:100%;overflow:visible}}
.canvas svg,.mark{{overflow:visible}}
svg text{{fill:var(--muted);font-size:12px;font-variant-numeric:tabular-nums}}
svg .middle{{text-anchor:middle}}
svg .end{{text-anchor:end}}
svg .odd{{fill:var(--warn);font-weight:600}}
.grid{{stroke:var(--rule);stroke-width:1}}
.axis{{stroke:var(--left);stroke-width:1}}
.line{{fill:none;stroke:var(--accent);stroke-width:2;stroke-linejoin:round;stroke-linecap:round;
vector-effect:non-scaling-stroke}}
.line.left{{stroke:var(--left);stroke-dasharray:4 4}}
.dot{{fill:var(--accent)}}
.dot.left{{fill:var(--left)}}
svg .file{{fill:var(--accent);stroke:var(--ground);stroke-width:1.5}}
svg .file.left{{fill:var(--left)}}
svg .ring{{fill:var(--ground);stroke:var(--good);stroke-width:2.5}}
.best .file{{fill:var(--good);stroke:none}}
svg .damaged{{fill:none;stroke:var(--bad);stroke-width:2.5;stroke-linecap:round}}
svg .target{{fill:transparent;stroke:none}}
.deleted{{stroke:var(--left);stroke-width:1}}
.resume{{stroke-width:1.5;stroke-dasharray:2 4;stroke:var(--left)}}
.resume.confirmed{{stroke:var(--good)}}
.resume.differs{{stroke:var(--bad)}}
.kill{{fill:var(--bad);stroke:var(--ground);stroke-width:1.5}}
.session{{fill:var(--accent)}}
.session.odd-one{{opacity:.6}}
.session.left{{fill:var(--left);opacity:.55}}
.rail{{fill:var(--rule)}}
.legend{{display:flex;flex-wrap:wrap;gap:2px 18px;list-style:none;padding-left:72px;color:var(--muted);
font-size:.85rem}}
.legend svg{{vertical-align:-3px;overflow:visible}}
.spark{{width:130px;height:26px;display:block}}
.spark .line{{stroke-width:1.5}}
.wide{{overflow-x:auto;margin-top:8px;border:1px solid var(--rule);border-radius:8px}}
.tall{{overflow-y:auto;max-height:36rem}}
table{{border-collapse:collapse;width:100%;font-size:.86rem;font-variant-numeric:tabular-nums}}
th,td{{padding:5px 10px;text-align:left;vertical-align:top;white-space:nowrap;border-top:1px solid var(--rule)}}
thead th{{position:sticky;top:0;z-index:1;border-top:0;background:var(--panel);color:var(--muted);font-weight:600}}
tbody th{{font-weight:400;min-width:min(16rem,40vw);white-space:normal}}
.number{{text-align:right}}
.is-best th{{font-weight:600}}
.problem{{color:var(--bad);white-space:normal;min-width:14rem}}
td.problem{{white-space:normal}}
.check.intact{{color:var(--good)}}
.check.damaged{{color:var(--bad);font-weight:600}}
.check.not-checked{{color:var(--muted)}}
.badge{{display:inline-block;padding:0 7px;border:1px solid currentColor;border-radius:9px;font-size:.76rem;
font-weight:500;line-height:1.5;white-space:nowrap;color:var(--muted)}}
.badge.good,.badge.best{{color:var(--good)}}
.badge.warn{{color:var(--warn)}}
.badge.bad{{color:var(--bad)}}
.badge.last{{color:var(--accent)}}
.sessions{{list-style:none;margin-top:8px}}
.sessions>li{{padding:12px 0;border-top:1px solid var(--rule);margin-left:calc(var(--depth,0)*min(28px,4vw))}}
.sessions>li[style]{{padding-left:12px;border-left:2px solid var(--left)}}
.sessions p,.changes,.sessions details{{font-size:.9rem;margin-top:2px;overflow-wrap:anywhere}}
.bar{{display:block;width:100%;margin:7px 0 5px;overflow:visible}}
.changes{{padding-left:1.2em}}
ins{{color:var(--good);text-decoration:none;border-bottom:1px solid}}
del{{color:var(--bad)}}
details{{margin-top:8px}}
summary{{cursor:pointer;color:var(--muted);font-size:.88rem}}
details dl{{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:2px 16px;margin:6px 0 4px}}
details dt{{color:var(--muted)}}
details dd{{overflow-wrap:anywhere;font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}}
.figures td{{padding:1px 12px}}
.notes{{margin:8px 0 0 1.6em;font-size:.86rem;color:var(--muted);overflow-wrap:anywhere}}
a:focus-visible,summary:focus-visible,.wide:focus-visible{{outline:2px solid var(--accent);outline-offset:2px}}
"""
