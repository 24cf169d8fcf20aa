# Adds the crates that a Cargo.lock names, with their checksums, to SRC_URI.
#
# The lock file is the one list of crates, so that there is none to regenerate and none to go stale.
# Set before it is inherited:
#
#   CARGO_LOCK_FILE  the lock file, where bitbake can read it as it parses
#
# The recipe's version has to be the one that the lock file gives for ${BPN}.

def cargo_lock_packages(text):
    """The packages of a lock file, each with its plain keys; cargo writes them in one form."""
    import re
    # Not tomllib: bitbake runs with a Python of the host's that may be older than 3.11.
    for table in re.split(r"^\[\[package\]\]\n", text, flags=re.MULTILINE)[1:]:
        table = table.split("\n[")[0]
        yield dict(re.findall(r'^(\w+) = "(.*)"$', table, flags=re.MULTILINE))

def cargo_lock_registry(source):
    """The registry's name, as crate:// wants it, or None."""
    import re
    match = re.fullmatch(r"registry\+https://github\.com/rust-lang/(.+)-index", source)
    return match and match.group(1)

python () {
    path = d.getVar("CARGO_LOCK_FILE")
    bb.parse.mark_dependency(d, path)
    try:
        with open(path, encoding="utf-8") as lock:
            packages = list(cargo_lock_packages(lock.read()))
    except OSError as cause:
        raise bb.parse.SkipRecipe(
            "%s cannot be read (%s): CARGO_LOCK_FILE has to name the Cargo.lock of %s"
            % (path, cause.strerror, d.getVar("BPN")))

    for package in packages:
        name, version, source = (package.get(k) for k in ("name", "version", "source"))
        if source is None:
            # A member of the workspace.
            if name == d.getVar("BPN") and version != d.getVar("PV"):
                bb.fatal("%s is for version %s, but %s says %s: give the recipe's file that version"
                         % (d.getVar("FILE"), d.getVar("PV"), path, version))
            continue
        registry = cargo_lock_registry(source)
        if registry is None or "checksum" not in package:
            bb.fatal("%s takes %s %s from %s, which cargo_lock.bbclass cannot fetch: "
                     "take it from the registry" % (path, name, version, source))
        d.appendVar("SRC_URI", " crate://%s/%s/%s" % (registry, name, version))
        d.setVarFlag("SRC_URI", "%s-%s.sha256sum" % (name, version), package["checksum"])
}
