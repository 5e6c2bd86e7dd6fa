"""One HTML page without outside resources: style, tables, escaped texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1d2429;--soft:#5d6a73;--rule:#d8dee3;--tint:#f3f6f8;--c0:#0b7285;
--c1:#c2540a;--c2:#7048e8;--c3:#5d6a73;--for:34,139,90;--against:206,60,60}
@media (prefers-color-scheme:dark){:root{--paper:#14181b;--ink:#e4e9ec;--soft:#9aa7b0;--rule:#333c43;--tint:#1d2327;
--c0:#4fc3d9;--c1:#f2994a;--c2:#b197fc;--c3:#9aa7b0;--for:74,190,130;--against:240,110,110}}
*{box-sizing:border-box}
body{margin:0 auto;padding:24px 20px 48px;max-width:1040px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:26px;line-height:1.25;margin:0 0 4px}h2{font-size:19px;margin:36px 0 10px}
h3{font-size:15px;margin:18px 0 6px}
p{margin:6px 0 10px}.soft,figcaption{color:var(--soft)}.note{color:var(--soft);font-size:13.5px;max-width:75ch}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin:18px 0}
.tile{background:var(--tint);border-radius:8px;padding:10px 16px;min-width:120px}
.tile b{display:block;font-size:24px;line-height:1.3;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:13px}
.scroll{overflow-x:auto}table{border-collapse:collapse;margin:6px 0;overflow-wrap:normal}
p,td,th,.tile span,.tile b{unicode-bidi:plaintext}b{unicode-bidi:isolate}
th,td{text-align:start;padding:4px 14px 4px 0;border-bottom:1px solid var(--rule);vertical-align:top}
th{font-weight:600;color:var(--soft);font-size:13px}td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
td.wide{min-width:200px;overflow-wrap:anywhere}
.matrix td,.matrix th{padding:5px 10px;text-align:center;border:1px solid var(--rule)}.matrix th.row{text-align:right}
.matrix td{background:rgba(var(--tone),var(--a));font-variant-numeric:tabular-nums}
.tall td{padding:5px 6px}
.tall th span{display:inline-block;writing-mode:vertical-rl;max-height:12em;overflow-wrap:anywhere}
.tall th{vertical-align:bottom}.tall th.row{max-width:14em;overflow-wrap:anywhere;vertical-align:middle}
.bar{display:inline-block;height:9px;border-radius:2px;background:var(--c0);vertical-align:baseline}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr));gap:8px 28px}
figure{margin:0}figcaption{font-size:13.5px}svg{width:100%;height:auto;max-width:520px;display:block}
svg text{fill:var(--soft);font:11.5px system-ui,sans-serif}.grid{stroke:var(--rule)}
.line{fill:none;stroke-width:2}.rule{fill:none;stroke:var(--soft);stroke-dasharray:3 4}
.line.s0{stroke:var(--c0)}.line.s1{stroke:var(--c1)}.line.s2{stroke:var(--c2)}.line.s3{stroke:var(--c3)}
.dot.s0,.cloud.s0{fill:var(--c0)}.dot.s1,.cloud.s1{fill:var(--c1)}.dot.s2{fill:var(--c2)}.dot.s3{fill:var(--c3)}
.cloud{opacity:.45}.legend{margin:0;font-size:13px;color:var(--soft)}.legend span{margin-right:14px;white-space:nowrap}
.key{display:inline-block;width:14px;height:3px;margin-right:5px;vertical-align:middle}
.key.s0{background:var(--c0)}.key.s1{background:var(--c1)}.key.s2{background:var(--c2)}.key.s3{background:var(--c3)}
.error{border-left:3px solid var(--rule);padding:2px 0 2px 12px;margin:10px 0}.error p{margin:2px 0}
mark{color:inherit;border-radius:3px;padding:0 1px}mark.for{background:rgba(var(--for),var(--a))}
mark.against{background:rgba(var(--against),var(--a))}
pre{background:var(--tint);border-radius:6px;padding:10px 12px;white-space:pre-wrap;font-size:13px;margin:6px 0}
code{font-size:.92em}
@media (max-width:520px){body{padding:16px 12px 32px}h1{font-size:22px}.tile{flex:1 1 40%}}
@media print{:root{--paper:#fff;--ink:#000;--soft:#444;--rule:#bbb;--tint:#f2f2f2;--c0:#0b7285;--c1:#c2540a;
--c2:#7048e8;--c3:#666;--for:34,139,90;--against:206,60,60}body{max-width:none;padding:0;font-size:11pt}
h2,h3{break-after:avoid}figure,tr,.matrix,.error,.tile{break-inside:avoid}.scroll{overflow:visible}
.plots{grid-template-columns:1fr 1fr}.tall{font-size:8.5pt}.tall td,.tall th{padding:2px 3px}.tall th{font-size:8.5pt}
mark,.matrix td,.bar,.key,.tile,pre{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


@dataclass(frozen=True)
class Markup:
    """Text that is HTML already."""

    html: str

    def __len__(self) -> int:
        return 0  # characters that are seen


def text(value: str | Markup) -> str:
    """Return a value as HTML: everything but `Markup` is escaped."""
    return value.html if isinstance(value, Markup) else escape(value)


def table(
    header: Sequence[str | Markup], rows: Sequence[Sequence[str | Markup]], *, numbers: Sequence[int] = ()
) -> str:
    """Return a table; `numbers` are the columns that are aligned to the right."""

    def cells(row: Sequence[Any], tag: str) -> str:
        kinds = ("n" if i in numbers else "wide" if len(value) > 40 else "" for i, value in enumerate(row))
        return "".join(
            f"<{tag}{f' class={kind}' if kind else ''}>{text(value)}</{tag}>"
            for kind, value in zip(kinds, row, strict=True)
        )

    head = f"<thead><tr>{cells(header, 'th')}</tr></thead>" if any(header) else ""
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def facts(values: Mapping[str, str]) -> str:
    """Return names and values."""
    return table(("", ""), list(values.items()))


def tiles(values: Sequence[tuple[str, str, str]]) -> str:
    """Return large values, each with what it is and a small line below."""
    shown = (
        f'<div class="tile"><span>{escape(name)}</span><b>{escape(value)}</b><span>{escape(below)}</span></div>'
        for name, value, below in values
    )
    return f'<div class="tiles">{"".join(shown)}</div>'


def note(content: str) -> str:
    """Return a sentence in small print."""
    return f'<p class="note">{escape(content)}</p>'


def section(title: str, *parts: str) -> str:
    """Return a section; nothing if it has no parts."""
    content = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def captioned(plot: str, caption: str) -> str:
    """Return a figure with a caption."""
    return plot.replace("</figure>", f"<figcaption>{escape(caption)}</figcaption></figure>")


def page(title: str, below: str, *sections: str) -> str:
    """Return the page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>"
        f'<p class="soft">{escape(below)}</p>\n' + "\n".join(part for part in sections if part) + "\n</body></html>\n"
    )
