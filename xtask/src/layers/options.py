"""Reads a Buildroot tree's options, and its configurations, with Buildroot's own language for them.

    options.py TREE KNOWN CONFIGURATION...

KNOWN names the options of Buildroot itself that the tree leans on, a line each with the type. A line
on stdout for each thing that is wrong.
"""

import os
import sys
import tempfile

import kconfiglib


def main(tree, known, *configurations):
    os.environ["BR2_EXTERNAL_EDGEREPL_PATH"] = tree
    # Buildroot's options have no prefix of their own in a configuration.
    os.environ["CONFIG_"] = ""
    with tempfile.NamedTemporaryFile("w", suffix=".in") as top:
        with open(known, encoding="utf-8") as file:
            for line in file:
                if line.strip() and not line.startswith("#"):
                    name, kind = line.split()
                    top.write(f'config {name}\n\t{kind} "{name}"\n')
        top.write(f'source "{tree}/Config.in"\n')
        top.flush()
        options = kconfiglib.Kconfig(top.name, warn_to_stderr=False)
        options.warn_assign_undef = True
        for configuration in configurations:
            options.load_config(configuration)
    for warning in options.warnings:
        print(warning)
    for name, option in options.syms.items():
        if not option.nodes and not option.is_constant and name.startswith("BR2_"):
            print(f"{name} is neither in the tree nor in {os.path.basename(known)}")
    own = [s for s in options.unique_defined_syms if os.path.abspath(s.nodes[0].filename).startswith(tree)]
    for option in own:
        asked = option.nodes[0].prompt
        if asked and not option.nodes[0].help:
            print(f"{option.name} has no help")
    if not own:
        print("the tree has no option")


main(*sys.argv[1:])
