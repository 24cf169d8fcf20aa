# A recipe whose features are not there is left out.
python () {
    wanted = set((d.getVar("REQUIRED_DISTRO_FEATURES") or "").split())
    missing = wanted - set(d.getVar("DISTRO_FEATURES").split())
    if missing:
        raise bb.parse.SkipRecipe("the distribution lacks %s" % " ".join(sorted(missing)))
}
