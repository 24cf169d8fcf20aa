"""What bitbake makes of a layer's recipes: one JSON document on stdout.

    parse.py CORE LAYER SERIES TUNE_PKGARCH [NAME=VALUE...]

bitbake's own parser reads them. OpenEmbedded's core is in no package registry: CORE stands in for it
with the names that the layer uses, and no more. It shows that recipes parse, what they fetch and by
which checksums; it builds nothing.

A recipe that is appended to is there twice: as it is, and with the file that is appended. The recipes of other
layers that this one appends to are in CORE too, and are there with that alone.
"""

import fnmatch
import glob
import io
import json
import logging
import os
import sys
import types

# The package of bitbake lacks two of its servers, which nothing here asks.
for name in ("hashserv", "hashserv.client", "prserv", "prserv.serv"):
    sys.modules.setdefault(name, types.ModuleType(name))

import bb  # noqa: E402
import bb.build  # noqa: E402
import bb.codeparser  # noqa: E402
import bb.data  # noqa: E402
import bb.event  # noqa: E402
import bb.fetch2  # noqa: E402
import bb.parse  # noqa: E402


def main(core, layer, series, tune, *settings):
    core, layer = os.path.abspath(core), os.path.abspath(layer)
    said = Said()
    d = configuration(core, layer, series, tune, settings)
    # Those for other layers too, as if those were there.
    own = below(layer, "*.bb")
    facts = [recipe(path, d, said) for path in own]
    for append in below(layer, "*.bbappend"):
        pattern = os.path.basename(append).removesuffix("append").replace("%", "*")
        found = [path for path in own + below(core, "*.bb") if fnmatch.fnmatch(os.path.basename(path), pattern)]
        if not found:
            sys.exit(f"{append}: there is no recipe that it is for")
        facts += [recipe(path, d, said, append) for path in found]
    json.dump({"recipes": facts}, sys.stdout)


def below(folder, pattern):
    return sorted(glob.glob(os.path.join(folder, "**", pattern), recursive=True))


def configuration(core, layer, series, tune, settings):
    d = bb.data.init()
    d.setVar("TOPDIR", "/build")
    d.setVar("BBPATH", core)
    d.setVar("SERIES", series)
    d.setVar("TUNE_PKGARCH", tune)
    d.setVar("LAYERDIR", layer)
    d = bb.parse.handle(os.path.join(layer, "conf", "layer.conf"), d, True)
    d.expandVarref("LAYERDIR")
    d.delVar("LAYERDIR")
    d = bb.parse.handle(os.path.join(core, "conf", "bitbake.conf"), d, True)
    for setting in settings:
        name, _, value = setting.partition("=")
        d.setVar(f"{name}:forcevariable", value)
    if series not in d.getVar("LAYERSERIES_COMPAT_edgerepl").split():
        sys.exit(f"conf/layer.conf: {series} is not in LAYERSERIES_COMPAT_edgerepl")
    bb.fetch2.fetcher_init(d)
    bb.parse.init_parser(d)
    return bb.parse.handle(os.path.join(core, "classes", "base.bbclass"), d, True)


def recipe(path, base, said, append=None):
    d = bb.data.createCopy(base)
    if append:
        d.setVar("__BBAPPEND", append)
    d.setVar("FILE", path)
    d.setVar("__bbclasstype", "recipe")
    said.clear()
    d = bb.parse.handle(path, d)[""]
    skipped = d.getVar("__SKIPPED", False)
    facts = {
        "file": append or path,
        "appended": bool(append),
        "said": list(said),
        "skipped": skipped or None,
        "variables": variables(d),
    }
    if not skipped:
        facts["sources"] = [source(url, d) for url in (d.getVar("SRC_URI") or "").split()]
        text = io.StringIO()
        bb.data.emit_func("do_install", text, d)
        facts["do_install"] = text.getvalue()
    return facts


def source(url, d):
    """A place that the recipe fetches from, and what it is checked against."""
    kind = url.partition("://")[0]
    data = bb.fetch2.FetchData(url, d)
    data.setup_localpath(d)
    known = {"url": url, "kind": kind, "local": data.localpath}
    for name in ("sha256", "md5", "sha1"):
        known[name] = getattr(data, f"{name}_expected", None)
    if kind == "git":
        known["revision"] = data.parm.get("rev") or d.getVar("SRCREV")
    if kind == "file":
        known["found"] = os.path.exists(data.localpath)
    return known


def variables(d):
    """All that has a value as text, but for functions."""
    found = {}
    for name in sorted(d.keys()):
        if name.startswith("__") or d.getVarFlag(name, "func", False):
            continue
        try:
            value = d.getVar(name)
        except bb.data_smart.ExpansionError as error:
            value = f"can't be expanded: {error}"
        if isinstance(value, str):
            found[name] = value
    return found


class Said(list):
    """What the parser had to say, from its warnings up."""

    def __init__(self):
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self.append(record.getMessage())
        logging.getLogger("BitBake").addHandler(handler)


if __name__ == "__main__":
    main(*sys.argv[1:])
